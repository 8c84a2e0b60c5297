"""Faults of AWS calls, and what a handler has to log and count of each."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

# AWS refuses, or does not answer (botocore has a tree of exceptions for each), or our own code has a bug.
AWS_FAULTS = {
    "refused": ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "Operation"),
    "unreachable": EndpointConnectionError(endpoint_url="https://aws.example"),
    "unanswered": ReadTimeoutError(endpoint_url="https://aws.example"),
}
FAULTS: dict[str, Exception] = {**AWS_FAULTS, "bug": KeyError("bug")}

every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
every_aws_fault = pytest.mark.parametrize("fault", AWS_FAULTS.values(), ids=AWS_FAULTS)


@contextmanager
def failing(
    operation: str, fault: Exception, *, when: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Iterator[list[str]]:
    """Makes an operation fail in every client, for the parameters that are meant. Yields the failed calls."""
    make = BaseClient._make_api_call  # type: ignore[attr-defined] # not in the stubs
    failed: list[str] = []

    def call(client: BaseClient, name: str, parameters: dict[str, Any]) -> Any:
        if name == operation and when(parameters):
            failed.append(name)
            raise fault
        return make(client, name, parameters)

    with mock.patch.object(BaseClient, "_make_api_call", call):
        yield failed
    assert failed, f"{operation} was never called"


def reported(records: Iterable[logging.LogRecord], task: str) -> set[str]:
    """The types of the exceptions that lines of level ERROR about a task have."""
    return {
        record.exc_info[0].__name__
        for record in records
        if record.levelname == "ERROR" and record.exc_info and record.exc_info[0] and task in _tasks(record)
    }


def warned(records: Iterable[logging.LogRecord], task: str) -> set[str]:
    """The names of the errors that warnings about a task have."""
    return {vars(record)["error"] for record in records if record.levelname == "WARNING" and task in _tasks(record)}


def counted(capsys: pytest.CaptureFixture[str], metric: str = "ProcessingErrors") -> list[str]:
    """By which reason, or provider, a metric was counted since the last look."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    return [line.get("reason") or line.get("provider") for line in lines if metric in line]


def _tasks(record: logging.LogRecord) -> list[str]:
    fields = vars(record)
    return [*(fields.get("tasks") or ()), fields.get("task")]
