"""The rehearsal's functions can import only what Lambda has, and nothing from MiniStack's virtual environment."""

import subprocess
import sys

import pytest

from local import REPOSITORY


@pytest.mark.parametrize(("layers", "is_found"), [({}, True), ({"_LAMBDA_LAYERS_DIRS": "/nowhere"}, False)])
def test_only_workers_are_restricted_to_their_own_packages(layers: dict[str, str], is_found: bool) -> None:
    # The environment of this test replaces MiniStack's: both contain botocore. Only workers have the variable.
    code = "import importlib.util; print(importlib.util.find_spec('botocore') is not None)"
    environment = {"PYTHONPATH": str(REPOSITORY / "scripts/rehearsal/worker"), **layers}

    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)

    assert run.stdout.strip() == str(is_found), run.stderr
