"""Runs the command line against a tasks API in memory."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from catchlight.client import TasksClient
from catchlight.client.stack import StackChoice
from catchlight_cli.command_line import run
from tests.stacks import a_stack
from tests.tasks_api_in_memory import TasksApiInMemory


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The document that --json prints."""
        return json.loads(self.out)


@pytest.fixture
def catchlight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[TasksApiInMemory, str], Ran]:
    """Runs `catchlight` with these arguments against a tasks API."""
    stack = a_stack()
    monkeypatch.setattr(StackChoice, "find", lambda _: stack)
    # Wide enough that asserted lines are not wrapped.
    monkeypatch.setenv("COLUMNS", "250")

    def ran(api: TasksApiInMemory, *words: str) -> Ran:
        monkeypatch.setattr(TasksClient, "of", lambda _: api.client())
        status = run(words)
        written = capsys.readouterr()
        return Ran(status, written.out, written.err)

    return ran
