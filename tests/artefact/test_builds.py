"""Tests that each build has its own folder, and that the user's settings of AWS tools have no effect on it."""

import os
import shutil
from pathlib import Path

import pytest

from local import LocalStackError, artefact
from local.artefact import SOURCES, built_artefact
from local.template.parse import read_template
from scripts.rehearsal.updates import copy_sources
from scripts.smoke.contents import Build, check_contents
from tests.artefact.conftest import HERE


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose builds consist of the template alone."""

    def build(project: Path, folder: Path, python: Path) -> None:
        folder.mkdir(parents=True)
        text = (project / "template.yaml").read_text()
        if text == "malformed":
            raise LocalStackError("sam build failed")
        (folder / "template.yaml").write_text(text)

    monkeypatch.setattr(artefact, "_build", build)
    for source in SOURCES:
        (tmp_path / source).write_text("1")
    return tmp_path


def built(project: Path, content: str) -> tuple[Path, bool]:
    """Builds a project with this template. Returns the folder, and whether this call has built it."""
    (project / "template.yaml").write_text(content)
    messages: list[str] = []
    folder = built_artefact(messages.append, project).folder
    assert (folder / "template.yaml").read_text() == content
    return folder, bool(messages)


def test_a_build_keeps_the_previous_builds_folder(project: Path) -> None:
    first, _ = built(project, "1")
    second, _ = built(project, "2")

    assert (first / "template.yaml").read_text() == "1"
    assert built(project, "1") == (first, False)
    assert built(project, "2") == (second, False)


def test_the_two_most_recently_used_builds_are_kept(project: Path) -> None:
    first, _ = built(project, "1")
    second, _ = built(project, "2")
    built(project, "1")
    third, _ = built(project, "3")

    assert set(first.parent.iterdir()) == {first, third}
    assert built(project, "2") == (second, True)


def test_a_failed_build_is_repeated(project: Path) -> None:
    for _ in range(2):
        with pytest.raises(LocalStackError, match="sam build failed"):
            built(project, "malformed")
        shutil.rmtree(next((project / ".aws-sam" / "this-machine").glob("*.unfinished")))


def test_settings_of_the_user_do_not_reach_sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_sources(tmp_path / "project")
    samconfig = (project / "samconfig.toml").read_text()
    heading = "[default.global.parameters]\n"
    assert heading in samconfig
    (project / "samconfig.toml").write_text(samconfig.replace(heading, f'{heading}profile = "nobody"\n'))
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "nobody")
    monkeypatch.setenv("SAM_TEMPLATE_FILE", os.devnull)

    found = built_artefact(print, project)

    assert list(check_contents(Build(found.folder, project, HERE))) == []
    # The build was renamed after SAM had written paths that are relative to it.
    machine = read_template(found.template.read_text())["Resources"]["PollTasksStateMachine"]["Properties"]
    assert (found.folder / machine["DefinitionUri"]).resolve() == project / "statemachines" / "poll_tasks.asl.yaml"


def test_no_test_of_the_artefact_runs_again_with_built(request: pytest.FixtureRequest) -> None:
    # --built selects the tests with this fixture: those that run the local stack with the built functions.
    tests = [item for item in request.session.items if item.path.parent == Path(__file__).parent]

    assert tests
    assert [item.nodeid for item in tests if "artefact" in getattr(item, "fixturenames", ())] == []
