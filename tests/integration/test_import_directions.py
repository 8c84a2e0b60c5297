"""Imports go one way: the contracts in pyproject.toml hold, and each finds the import that it forbids."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

REPOSITORY = Path(__file__).parents[2]
LAYER = "layers/catchlight/python"


# The checkout is installed. Packages without __init__.py are merged from all entries of sys.path: without this removal,
# import-linter would mix the modules of a copy with those of the checkout.
LINT = f"""
import sys
checkout = {[str(REPOSITORY), str(REPOSITORY / "cli"), str(REPOSITORY / LAYER)]}
sys.path[:] = [entry for entry in sys.path if entry not in checkout]
sys.path[:0] = sys.argv.pop(1).split(":")
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on a copy of this repository; it finds packages where Python does."""
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
    return a_copy(tmp_path)


def a_copy(to: Path) -> Path:
    for folder in ("cli", "functions", "local", "scripts", LAYER):
        shutil.copytree(REPOSITORY / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", to)
    return to


# The importing module, the module that it must not import, and the contract that forbids it.
FORBIDDEN_IMPORTS = [
    ("catchlight.models", "catchlight.settings", "Within the package imports go one way"),
    ("catchlight.settings", "catchlight.tasks.table", "Within the package imports go one way"),
    ("catchlight.providers.payloads", "catchlight.polling", "Within the package imports go one way"),
    ("catchlight.polling.poll_round", "catchlight.api.problems", "Within the package imports go one way"),
    ("catchlight.api.response_models", "catchlight.api.problems", "Within the tasks API imports go"),
    ("catchlight.aws.secrets", "os", "Only settings reads the environment"),
    ("functions.poll_tasks.app", "os", "Only settings reads the environment"),
    ("catchlight.polling.poll_round", "aws_lambda_powertools", "Only handlers have a logger"),
    ("catchlight.polling.poll_round", "functions.poll_tasks.app", "The local stack imports the functions"),
    ("functions.poll_tasks.app", "local.loopback", "The local stack imports the functions"),
    ("local.moto.calls", "local.permissions.decision", "Within the local stack imports go one way"),
    ("local.simulator.services", "local.simulator.api", "No import circle"),
    ("functions.poll_tasks.app", "functions.receive_callback.app", "Functions do not import each other"),
    ("catchlight.providers.kie", "httpx", "Modules that parse the providers' formats do no I/O"),
]


@pytest.fixture(scope="module")
def broken() -> Mapping[str, str]:
    """Returns import-linter's report on each contract that a copy with all forbidden imports breaks.

    One run with all imports takes a tenth of the time of separate runs.
    """
    with TemporaryDirectory() as folder:
        copy = a_copy(Path(folder))
        for module, imported, _ in FORBIDDEN_IMPORTS:
            root = copy if module.startswith(("functions", "local")) else copy / LAYER
            with (root / f"{module.replace('.', '/')}.py").open("a") as file:
                file.write(f"\nimport {imported}\n")
        result = lint_imports(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    _, *contracts = re.split(r"^(.+)\n-+$", result.stdout.partition("Broken contracts")[2], flags=re.MULTILINE)
    return dict(zip(contracts[::2], contracts[1::2], strict=True))


@pytest.mark.parametrize(("module", "imported", "contract"), FORBIDDEN_IMPORTS)
def test_a_forbidden_import_breaks_its_contract(
    broken: Mapping[str, str], module: str, imported: str, contract: str
) -> None:
    (reported,) = [text for name, text in broken.items() if name.startswith(contract)]

    if contract == "No import circle":  # reported with names relative to their package
        module, imported = (f".{name.rpartition('.')[2]}" for name in (module, imported))
    assert f"- {module} -> {imported} (" in re.sub(r"- +", "- ", reported)


def test_a_module_outside_of_all_layers_is_reported(copy: Path) -> None:
    (copy / LAYER / "catchlight" / "helpers.py").write_text("")

    result = lint_imports(copy)

    assert result.returncode == 1
    assert "helpers" in result.stdout
