"""A request that the provider may have accepted is not sent again until its key is released."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from botocore.exceptions import ReadTimeoutError

from catchlight.api.idempotency import IN_PROGRESS_TIME
from catchlight.api.submission_client import ANSWER_TIMEOUT_SECONDS
from functions.dispatch_changes.app import FollowUp, read_changes
from tests.integration.conftest import TABLE_NAME
from tests.integration.tasks_api.api_harness import ACCEPTED, Clock, TasksApiHarness, lost, refusal
from tests.project_template import project_template

TASK = "flux-kontext#task12345"


def read_timeout(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("18 s", request=request)


def disconnected(request: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("server disconnected", request=request)


UNKNOWN_OUTCOMES: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "read timeout": read_timeout,
    "disconnected": disconnected,
    "HTTP 500": refusal(500, {"code": 500}),
    "HTTP 502": lambda _: httpx.Response(502, content=b"<html>"),
    "envelope 500": refusal(200, {"code": 500, "msg": "Server Error"}),
    "no id": refusal(200, {"code": 200, "msg": "success", "data": {}}),
    "invalid id": refusal(200, {"code": 200, "data": {"taskId": "a/b"}}),
    "redirected": lambda _: httpx.Response(307, headers={"location": "https://elsewhere.example"}),
    "endless": lambda _: httpx.Response(200, content=b"x" * 70_000),
    "no JSON": lambda _: httpx.Response(200, content=b"OK"),
}


@pytest.mark.parametrize("name", UNKNOWN_OUTCOMES)
def test_a_request_with_an_unknown_outcome_is_not_sent_again(api: TasksApiHarness, clock: Clock, name: str) -> None:
    api.providers.respond = UNKNOWN_OUTCOMES[name]

    first = api.submit()
    api.providers.respond = refusal(200, ACCEPTED["flux-kontext"])
    clock.pass_by(days=1)
    repeated = api.submit()

    for response in (first, repeated):
        assert (response.status, response.problem) == (409, "submission-outcome-unknown")
        assert "retry-after" not in response.headers
        assert response.body["askedAt"] == "2026-11-21T12:00:00.000Z"
        assert "GET /tasks?provider=flux-kontext&since=2026-11-21T12:00:00.000Z" in response.body["advice"]
        assert "DELETE /submissions/order-1" in response.body["advice"]
    assert len(api.providers.requests) == 1
    assert api.tasks() == []


def crash(request: httpx.Request) -> httpx.Response:
    raise KeyboardInterrupt("the sandbox has ended")


def test_a_crash_during_the_providers_request_leaves_an_unknown_outcome(api: TasksApiHarness, clock: Clock) -> None:
    api.providers.respond = crash
    with pytest.raises(KeyboardInterrupt):
        api.submit()
    api.providers.respond = refusal(200, ACCEPTED["flux-kontext"])
    api.restart()

    at_once = api.submit()
    clock.pass_by(seconds=IN_PROGRESS_TIME.total_seconds())
    later = api.submit()

    assert at_once.problem == "submission-in-progress"  # the first attempt may still be running
    assert later.problem == "submission-outcome-unknown"
    assert len(api.providers.requests) == 1


@pytest.mark.parametrize("failure", [read_timeout, crash])
def test_a_key_with_an_unknown_outcome_can_be_released(
    api: TasksApiHarness,
    clock: Clock,
    failure: Callable[[httpx.Request], httpx.Response],
    caplog: pytest.LogCaptureFixture,
) -> None:
    api.providers.respond = failure
    try:
        api.submit()
    except KeyboardInterrupt:
        clock.pass_by(minutes=1)
    api.providers.respond = refusal(200, ACCEPTED["flux-kontext"])

    caplog.set_level("INFO", logger="catchlight")
    assert api.send("DELETE", "/submissions/order-1").status == 204
    (released,) = [record for record in caplog.records if record.getMessage() == "idempotency key released"]
    assert vars(released)["key"] == "order-1"
    assert api.submit().status == 201
    assert len(api.providers.requests) == 2
    assert api.tasks() == [TASK]
    assert api.record()["state"] == "COMPLETED"
    assert "reason" not in api.record()


def test_a_key_with_a_known_outcome_is_not_released(api: TasksApiHarness) -> None:
    api.submit()

    response = api.send("DELETE", "/submissions/order-1")

    assert (response.status, response.problem, response.body["taskId"]) == (
        409,
        "submission-outcome-known",
        "task12345",
    )
    assert api.submit().status == 201
    assert len(api.providers.requests) == 1


def test_the_key_of_a_running_submission_is_not_released(api: TasksApiHarness) -> None:
    responses = []

    def release_meanwhile(request: httpx.Request) -> httpx.Response:
        responses.append(api.send("DELETE", "/submissions/order-1"))
        return httpx.Response(200, json=ACCEPTED["flux-kontext"])

    api.providers.respond = release_meanwhile

    assert api.submit().status == 201
    assert [response.problem for response in responses] == ["submission-in-progress"]


@pytest.mark.parametrize("key", ["never-used", "order-1", "a b", ".."])
def test_releasing_a_key_without_a_record_is_a_404(api: TasksApiHarness, key: str) -> None:
    api.providers.respond = refusal(400, {"code": 400})
    api.submit()  # refused for certain: the key is released

    response = api.send("DELETE", f"/submissions/{key}")

    assert (response.status, response.problem) == (404, "no-such-submission")


def test_malformed_keys_are_not_read_from_the_table(api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB accepts keys of 2,048 bytes, the API accepts paths of 10,000."""
    monkeypatch.setattr(api.dynamodb, "get_item", lost(api.dynamodb.get_item, arrives=False))

    assert api.send("DELETE", f"/submissions/{'x' * 3000}").problem == "no-such-submission"


# ------------------------------------------------------------------------------------------------ DynamoDB failures


def test_if_the_key_cannot_be_reserved_no_request_is_sent(
    api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(api.dynamodb, "update_item", lost(api.dynamodb.update_item, arrives=False))
        response = api.submit()

    assert (response.status, response.problem) == (503, "unavailable")
    assert api.providers.requests == []
    assert api.submit().status == 201


def test_if_the_response_to_the_reservation_is_lost_no_request_is_sent_and_the_outcome_is_unknown(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(api.dynamodb, "update_item", lost(api.dynamodb.update_item, arrives=True))
        assert api.submit().status == 503
    clock.pass_by(minutes=1)

    assert api.submit().problem == "submission-outcome-unknown"
    assert api.providers.requests == []


def test_a_reservation_that_botocore_retries_succeeds(api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore retries a call whose response is lost, and then finds the record that the first try wrote."""
    update_item = api.dynamodb.update_item

    def update_twice(**arguments: Any) -> Any:
        if arguments["Key"]["task"]["S"].startswith("#submission#"):
            update_item(**arguments)
        return update_item(**arguments)

    monkeypatch.setattr(api.dynamodb, "update_item", update_twice)

    assert api.submit().status == 201
    assert len(api.providers.requests) == 1


def test_if_the_task_cannot_be_written_the_response_has_its_id(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        write = api.dynamodb.transact_write_items
        patches.setattr(api.dynamodb, "transact_write_items", lost(write, arrives=False))
        response = api.submit()
    assert (response.status, response.problem, response.body["taskId"]) == (
        409,
        "submission-outcome-unknown",
        "task12345",
    )
    assert '{"provider": "flux-kontext", "taskIds": ["task12345"]}' in response.body["advice"]
    clock.pass_by(minutes=1)

    assert api.submit().problem == "submission-outcome-unknown"
    assert len(api.providers.requests) == 1


def test_a_write_that_times_out_leaves_time_to_return_the_task_id(
    api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catchlight.api.idempotency.MAX_WRITING_SECONDS", 0.01)
    calls = []

    def time_out(**arguments: Any) -> None:
        calls.append(arguments)
        time.sleep(0.02)
        raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    monkeypatch.setattr(api.dynamodb, "transact_write_items", time_out)

    assert api.submit().body["taskId"] == "task12345"
    assert len(calls) == 1
    config = api.dynamodb.meta.config
    longest_call = config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout)
    timeout = project_template().resources["ServeTasksApiFunction"]["Properties"]["Timeout"]
    assert ANSWER_TIMEOUT_SECONDS + longest_call < timeout


def test_a_write_that_conflicts_with_a_callback_is_retried(
    api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = api.dynamodb.transact_write_items, []

    def conflict_once(**arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
            raise api.dynamodb.exceptions.TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return write(**arguments)

    monkeypatch.setattr(api.dynamodb, "transact_write_items", conflict_once)

    assert api.submit().status == 201
    assert api.tasks() == [TASK]


def test_a_refusal_is_returned_even_if_it_cannot_be_written(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome counts as unknown afterwards, so that the request is not sent again."""
    update_item = api.dynamodb.update_item

    def fail_from_now_on(request: httpx.Request) -> httpx.Response:
        monkeypatch.setattr(api.dynamodb, "update_item", lost(update_item, arrives=False))
        return httpx.Response(400, json={"code": 400})

    api.providers.respond = fail_from_now_on
    assert api.submit().problem == "request-refused"
    monkeypatch.setattr(api.dynamodb, "update_item", update_item)
    clock.pass_by(minutes=1)

    assert api.submit().problem == "submission-outcome-unknown"


def test_an_unknown_outcome_is_counted(api: TasksApiHarness, capsys: pytest.CaptureFixture[str]) -> None:
    api.submit("order-1")
    api.providers.respond = read_timeout
    api.submit("order-2", provider="acedata")

    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counted = [line for line in written if "SubmissionsWithUnknownOutcome" in line]
    assert [(line["provider"], line["SubmissionsWithUnknownOutcome"]) for line in counted] == [("acedata", [1.0])]


def test_prompts_are_not_logged(api: TasksApiHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="catchlight")
    prompt = "a lighthouse that is secret"
    api.submit(prompt=prompt)
    api.submit("order-2", prompt=prompt, callBackUrl=prompt)
    api.providers.respond = refusal(400, {"code": 400, "msg": prompt})
    api.submit("order-3", prompt=prompt)
    api.send("GET", "/tasks/flux-kontext/task12345")

    ours = [record for record in caplog.records if record.name == "catchlight"]
    assert len(ours) == 4
    assert prompt not in str([record.__dict__ for record in ours])


def test_the_first_poll_of_an_accepted_submission_is_queued(api: TasksApiHarness) -> None:
    """DispatchChanges queues it when it reads the stream record of the new item."""
    api.submit()

    key: Any = {"task": {"S": TASK}}
    item = api.store.client.get_item(TableName=TABLE_NAME, Key=key)["Item"]
    record = {"eventName": "INSERT", "dynamodb": {"Keys": key, "NewImage": item, "SequenceNumber": "1"}}
    assert [(change.task, change.follow_up) for change in read_changes([record])] == [(TASK, FollowUp.POLL_LATER)]
