"""The guard in conftest.py: unit tests cannot start processes."""

import os
import subprocess
import sys

import pytest


def test_a_process_is_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match="starts a process"):
        subprocess.run([sys.executable, "--version"], check=False)


def test_a_fork_is_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match="starts a process"):
        os.fork()
