"""Injects faults into AWS calls, and reads the log lines and metrics that a handler must emit for them."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from aws_lambda_powertools import Logger
from botocore.client import BaseClient
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from tests.integration.functions import StandardOutput

# AWS rejects the call or does not respond (botocore has an exception tree for each), or Catchlight's code has a bug.
AWS_FAULTS = {
    "refused": ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "Operation"),
    "unreachable": EndpointConnectionError(endpoint_url="https://aws.example"),
    "unanswered": ReadTimeoutError(endpoint_url="https://aws.example"),
}
FAULTS: dict[str, Exception] = {**AWS_FAULTS, "bug": KeyError("bug")}

every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
every_aws_fault = pytest.mark.parametrize("fault", AWS_FAULTS.values(), ids=AWS_FAULTS)


class OutageClock:
    """Replaces the module `time` of code that waits for the end of an outage: its pauses take no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


def install_clock(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> OutageClock:
    """Gives modules a clock in the place of `time`."""
    clock = OutageClock()
    for module in modules:
        monkeypatch.setattr(module, "time", clock)
    return clock


@contextmanager
def failing(
    operation: str, fault: Exception, *, when: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Iterator[list[str]]:
    """Makes an operation fail in every client, for parameters that match `when`. Yields the list of failed calls."""
    make_api_call = BaseClient._make_api_call  # type: ignore[attr-defined] # not in the stubs
    failed: list[str] = []

    def call(client: BaseClient, name: str, parameters: dict[str, Any]) -> Any:
        if name == operation and when(parameters):
            failed.append(name)
            raise fault
        return make_api_call(client, name, parameters)

    with mock.patch.object(BaseClient, "_make_api_call", call):
        yield failed
    assert failed, f"{operation} was never called"


def reported(records: Iterable[logging.LogRecord], task: str) -> set[str]:
    """Returns the exception types in log lines of level ERROR about a task."""
    return {
        record.exc_info[0].__name__
        for record in records
        if record.levelname == "ERROR" and record.exc_info and record.exc_info[0] and task in _tasks(record)
    }


def warned(records: Iterable[logging.LogRecord], task: str) -> set[str]:
    """Returns the names of the errors in warnings about a task."""
    return {vars(record)["error"] for record in records if record.levelname == "WARNING" and task in _tasks(record)}


def counted(capsys: pytest.CaptureFixture[str], metric: str = "ProcessingErrors") -> list[str]:
    """Returns the reason or provider of each count of a metric since the last call."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    return [line.get("reason") or line.get("provider") for line in lines if metric in line]


def write_to_captured_output(logger: Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Powertools' log handler writes to the standard output of its creation, which may be that of another test."""
    handler = logger.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    monkeypatch.setattr(handler, "stream", StandardOutput())


def written(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the log lines of level ERROR, and the reasons with which failures were counted."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    errors = [line for line in lines if line.get("level") == "ERROR"]
    return errors, [line["reason"] for line in lines if "ProcessingErrors" in line]


def _tasks(record: logging.LogRecord) -> list[str]:
    fields = vars(record)
    return [*(fields.get("tasks") or ()), fields.get("task")]
