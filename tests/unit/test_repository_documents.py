"""CONTRIBUTING, CHANGELOG, SECURITY, the commit hooks and the CI workflow refer to things that exist."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from catchlight import __version__
from catchlight_cli.commands import COMMANDS
from tests.unit.template.expanded import RAW

REPOSITORY = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text()
RENAMED = [
    (kind, old.split("`, `"), new.split("`, `"))
    for kind, old, new in re.findall(r"^\| ([^|]+) \| `([^|]+)`[^|`]* \| `([^|]+)` \|$", CHANGELOG, re.MULTILINE)
]
IN_TEMPLATE = {*RAW["Parameters"], *RAW["Outputs"], *RAW["Resources"]}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_targets_and_paths_exist(name: str) -> None:
    page = (REPOSITORY / name).read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", page, re.MULTILINE))
    paths = set(
        re.findall(r"[`( ]((?:\.|cli|docs|events|functions|layers|local|scripts|tests)[\w./-]*/[\w./-]*)", page)
    )
    paths |= set(re.findall(r"\b([A-Z]+\.md)\b", page))
    # Without paths in the virtual environment, and placeholders for a new provider.
    paths = {path for path in paths if not path.startswith(".venv/") and "PROVIDER" not in path}

    assert targets
    assert targets <= TARGETS
    assert paths
    assert [path for path in sorted(paths) if not (REPOSITORY / path).exists()] == []


def test_scripts_are_run_as_modules_because_they_import_from_the_checkout() -> None:
    # `python scripts/scan.py` has `scripts/` in its path, and not the checkout.
    files = ["Makefile", ".ci/run", ".pre-commit-config.yaml", "README.md", "CONTRIBUTING.md"]
    text = "\n".join((REPOSITORY / name).read_text() for name in files)

    assert re.findall(r"python[\d.]* (?:\S*/)?(?:scripts|local|tests)/\S+\.py", text) == []
    assert {"scripts.scan", "scripts.fuzz", "scripts.smoke"} <= set(re.findall(r"-m (scripts\.\w+)", text))


def test_the_newest_version_is_that_of_the_package() -> None:
    assert re.findall(r"^## \[([\d.]+)\] - (?:Unreleased|\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)[0] == __version__


def test_the_changelog_has_the_renamed_names_of_the_template_and_the_commands() -> None:
    resources = ("parameter", "output", "API", "function", "layer", "queue", "alarm", "metric, alarm")
    # A metric is not a resource: in a row of a metric and its alarm, the alarm is the second name.
    of_template = [
        (old[kind == "metric, alarm" :], new[kind == "metric, alarm" :])
        for kind, old, new in RENAMED
        if kind.startswith(resources) and kind != "metric"
    ]
    commands = [(old, new) for kind, (old, *_), (new, *_) in RENAMED if kind == "command"]

    assert len(of_template) > 15
    assert [name for _, new in of_template for name in new if name not in IN_TEMPLATE] == []
    assert [name for old, _ in of_template for name in old if name in IN_TEMPLATE] == []
    names = {f"catchlight {command.name}" for command in COMMANDS}
    assert len(commands) == 3
    assert all(new in names and old not in names for old, new in commands)


def test_commit_hooks_are_parts_of_make_check() -> None:
    (repo,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    makefile = (REPOSITORY / "Makefile").read_text()
    (parts,) = re.findall(r"^check: ([a-z ]+) ##", makefile, re.MULTILINE)

    assert repo["repo"] == "local"
    assert [hook["entry"] for hook in repo["hooks"]] == [f"make {part}" for part in parts.split()]
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in repo["hooks"])


def test_ci_runs_the_script_for_all_checks() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()

    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert (REPOSITORY / ".ci/run").exists()


def test_every_folder_of_tests_has_a_make_target() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    folders = {
        f"tests/{path.relative_to(REPOSITORY / 'tests').parts[0]}" for path in REPOSITORY.glob("tests/**/test_*.py")
    }

    assert folders == {*settings["tool"]["pytest"]["ini_options"]["testpaths"], "tests/searches"}
