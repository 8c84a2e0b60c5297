"""Keeps unit tests fast: they start no processes."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_PROCESS_EVENTS = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
_is_unit_test = False


def _refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_unit_test and event in _PROCESS_EVENTS:
        pytest.fail(f"a unit test starts a process ({event}): its place is in tests/integration")


# An audit hook is called for every way to start a process, also in libraries.
sys.addaudithook(_refuse_processes)


@pytest.fixture(autouse=True)
def no_processes() -> Iterator[None]:
    """Fails a test that starts a process. Processes of fixtures with a wider scope are allowed."""
    global _is_unit_test
    _is_unit_test = True
    yield
    _is_unit_test = False
