"""Failed requests are logged with route, task and request id, and counted."""

import json
from typing import Any

import httpx
import pytest

from functions.serve_tasks_api import app
from tests.conftest import FakeLambdaContext
from tests.integration.fault_injection import (
    counted,
    every_aws_fault,
    every_fault,
    failing,
    write_to_captured_output,
    written,
)
from tests.integration.tasks_api.api_harness import TasksApiHarness, refusal

REQUESTS: dict[str, tuple[str, Any]] = {
    "GetItem": ("GET /tasks/{provider}/{taskId}", lambda api: api.send("GET", "/tasks/flux-kontext/task12345")),
    "Query": ("GET /tasks", lambda api: api.send("GET", "/tasks")),
    "UpdateItem": ("POST /tasks", lambda api: api.register("task12345")),
    "GetSecretValue": ("POST /submissions", lambda api: api.submit()),
}


def errors(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.levelname == "ERROR" and record.name == "catchlight"]


@every_fault
@pytest.mark.parametrize("operation", REQUESTS)
def test_failed_requests_are_logged_and_counted(
    api: TasksApiHarness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    fault: Exception,
) -> None:
    route, send = REQUESTS[operation]
    write_to_captured_output(app.logger, monkeypatch)

    with failing(operation, fault):
        if isinstance(fault, KeyError):
            with pytest.raises(KeyError):
                send(api)
        else:
            assert send(api).status == 503

    kind = "KeyError" if isinstance(fault, KeyError) else "StoreUnavailableError"
    (error,), reasons = written(capsys)
    assert (error["route"], error["exception_name"]) == (route, kind)
    assert error["request_id"]
    assert error.get("task") == ("flux-kontext#task12345" if operation == "GetItem" else None)
    assert reasons == [kind]


@every_aws_fault
def test_if_a_submitted_task_cannot_be_registered_its_id_is_logged(
    api: TasksApiHarness, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    with failing("TransactWriteItems", fault):
        assert api.submit("order-1").problem == "submission-outcome-unknown"

    (error,) = errors(caplog)
    # The task may have cost money, and its id is stored nowhere else.
    assert (error["task"], error["idempotency_key"]) == ("flux-kontext#task12345", "order-1")
    assert error["exc_info"][0].__name__ == "StoreUnavailableError"
    assert counted(capsys) == ["StoreUnavailableError"]


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def read_timeout(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("timed out", request=request)


@every_aws_fault
@pytest.mark.parametrize(
    ("respond", "problem"),
    [(read_timeout, "submission-outcome-unknown"), (unreachable, "provider-unavailable")],
    ids=["unknown outcome", "unreachable"],
)
def test_an_outcome_that_cannot_be_written_is_logged_and_counted(
    api: TasksApiHarness,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    respond: Any,
    problem: str,
    fault: Exception,
) -> None:
    api.providers.respond = respond
    calls: list[Any] = []

    def is_not_the_first(_: dict[str, Any]) -> bool:
        calls.append(1)
        return len(calls) > 1

    with failing("UpdateItem", fault, when=is_not_the_first):
        assert api.submit("order-1").problem == problem

    found = errors(caplog)
    assert {error["idempotency_key"] for error in found} == {"order-1"}
    assert found[-1]["exc_info"][0].__name__ == "StoreUnavailableError"
    assert counted(capsys)[-1] == "StoreUnavailableError"


def test_a_refused_api_key_is_counted(api: TasksApiHarness, capsys: pytest.CaptureFixture[str]) -> None:
    api.providers.respond = refusal(401, {"code": 401, "msg": "no"})

    assert api.submit().problem == "account-refused"

    assert counted(capsys, "ProviderRefused") == ["flux-kontext"]


@pytest.mark.parametrize("event", [{}, {"routeKey": "GET /nowhere", "requestContext": {"requestId": "r"}}], ids=str)
def test_malformed_events_are_logged_and_counted(
    api: TasksApiHarness, event: dict[str, Any], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError):
        app.handler(json.loads(json.dumps(event)), FakeLambdaContext())

    assert [error["exc_info"][0].__name__ for error in errors(caplog)] == counted(capsys) == ["KeyError"]
