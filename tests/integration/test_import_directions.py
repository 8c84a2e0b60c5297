"""Imports go one way: the contracts in pyproject.toml hold, and notice what they are there to notice."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LAYER = "layers/catchlight/python"


# Folders without an __init__ have parts all along the path, and the checkout is installed: it must not mix with a copy.
LINT = f"""
import sys
checkout = {[str(REPOSITORY), str(REPOSITORY / "cli"), str(REPOSITORY / LAYER)]}
sys.path[:] = [entry for entry in sys.path if entry not in checkout]
sys.path[:0] = sys.argv.pop(1).split(":")
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of a copy of this repository; it finds packages where Python does."""
    return subprocess.run(
        [sys.executable, "-c", LINT, f"{folder}:{folder / 'cli'}:{folder / LAYER}", "--no-cache", "--no-logo"],
        cwd=folder,
        env={"COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_go_one_way() -> None:
    result = lint_imports(REPOSITORY)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("cli", "functions", "local", "scripts", LAYER):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("catchlight/models.py", "from catchlight import settings", "Within the package imports go one way"),
        ("catchlight/settings.py", "from catchlight.tasks import table", "Within the package imports go one way"),
        ("catchlight/providers/payloads.py", "from catchlight import polling", "Within the package imports go one way"),
        (
            "catchlight/polling/poll_round.py",
            "from catchlight.api import problems",
            "Within the package imports go one way",
        ),
        ("catchlight/api/schemas.py", "from catchlight.api import problems", "Within the tasks API imports go"),
        ("catchlight/aws/secrets.py", "from os import environ", "Only settings reads the environment"),
        ("functions/poll_tasks/app.py", "import os", "Only settings reads the environment"),
        ("catchlight/polling/poll_round.py", "from aws_lambda_powertools import Logger", "Only handlers own a logger"),
        (
            "catchlight/polling/poll_round.py",
            "from functions.poll_tasks import app",
            "The local stack uses the functions",
        ),
        ("functions/poll_tasks/app.py", "from local import loopback", "The local stack uses the functions"),
        ("local/moto/calls.py", "from local.permissions import decision", "Within the local stack imports go one way"),
        ("local/simulator/services.py", "from local.simulator import api", "No import circle"),
        ("functions/poll_tasks/app.py", "import functions.receive_callback.app", "Functions share nothing"),
        ("catchlight/providers/kie.py", "import httpx", "What knows a provider's language does no I/O"),
    ],
)
def test_an_import_the_other_way_is_noticed(copy: Path, module: str, line: str, broken: str) -> None:
    path = copy / (module if module.startswith(("functions", "local")) else f"{LAYER}/{module}")
    path.write_text(f"{path.read_text()}\n{line}\n")

    result = lint_imports(copy)

    assert result.returncode == 1, result.stdout + result.stderr
    assert [text for text in result.stdout.splitlines() if text.startswith(broken) and " BROKEN" in text]


def test_a_module_without_a_place_is_noticed(copy: Path) -> None:
    (copy / LAYER / "catchlight" / "helpers.py").write_text("")

    result = lint_imports(copy)

    assert result.returncode == 1
    assert "helpers" in result.stdout
