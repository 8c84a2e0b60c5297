"""Runs programs in processes of their own."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.waiting import TIMEOUT_SECONDS


def run_program(command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Runs a program until its end, and returns its standard output. None: the environment of this process.

    Raises:
        AssertionError: its exit status is not 0; with its output.
    """
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout
