"""The interpreter of the rehearsal's functions imports what Lambda has, and nothing of MiniStack's environment."""

import subprocess
import sys

import pytest

from local import REPOSITORY


@pytest.mark.parametrize(("layers", "is_found"), [({}, True), ({"_LAMBDA_LAYERS_DIRS": "/nowhere"}, False)])
def test_only_workers_are_restricted_to_their_own_packages(layers: dict[str, str], is_found: bool) -> None:
    # The test's environment takes the place of MiniStack's: it has botocore as well.
    code = "import importlib.util; print(importlib.util.find_spec('botocore') is not None)"
    environment = {"PYTHONPATH": str(REPOSITORY / "scripts/rehearsal/worker"), **layers}

    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)

    assert run.stdout.strip() == str(is_found), run.stderr
