"""A request that the provider may have accepted is never sent again by itself, in any fault."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from botocore.exceptions import ReadTimeoutError

from catchlight.api.idempotency import IN_PROGRESS_TIME
from catchlight.api.submission_client import ANSWER_TIMEOUT_SECONDS
from catchlight.models import TaskStatus
from local.template.expand import load_template
from tests.integration.conftest import REPOSITORY
from tests.integration.tasks_api.api_harness import ACCEPTED, Clock, TasksApiHarness, lost, refusal

TASK = "flux-kontext#task12345"


def no_answer(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("18 s", request=request)


def hung_up(request: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("server disconnected", request=request)


UNCLEAR_ANSWERS: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "no answer": no_answer,
    "hung up": hung_up,
    "HTTP 500": refusal(500, {"code": 500}),
    "HTTP 502": lambda _: httpx.Response(502, content=b"<html>"),
    "envelope 500": refusal(200, {"code": 500, "msg": "Server Error"}),
    "no id": refusal(200, {"code": 200, "msg": "success", "data": {}}),
    "an id that is none": refusal(200, {"code": 200, "data": {"taskId": "a/b"}}),
    "redirected": lambda _: httpx.Response(307, headers={"location": "https://elsewhere.example"}),
    "endless": lambda _: httpx.Response(200, content=b"x" * 70_000),
    "no JSON": lambda _: httpx.Response(200, content=b"OK"),
}


@pytest.mark.parametrize("name", UNCLEAR_ANSWERS)
def test_a_request_with_an_unknown_outcome_is_never_sent_again_by_itself(
    api: TasksApiHarness, clock: Clock, name: str
) -> None:
    api.providers.answer = UNCLEAR_ANSWERS[name]

    first = api.submit()
    api.providers.answer = refusal(200, ACCEPTED["flux-kontext"])
    clock.pass_by(days=1)
    again = api.submit()

    for answer in (first, again):
        assert (answer.status, answer.problem) == (409, "submission-outcome-unknown")
        assert "retry-after" not in answer.headers
        assert answer.body["askedAt"] == "2026-11-21T12:00:00.000Z"
        assert "GET /tasks?provider=flux-kontext&since=2026-11-21T12:00:00.000Z" in answer.body["advice"]
        assert "DELETE /submissions/order-1" in answer.body["advice"]
    assert len(api.providers.requests) == 1
    assert api.tasks() == []


def crash(request: httpx.Request) -> httpx.Response:
    raise KeyboardInterrupt("the sandbox is gone")


def test_a_crash_while_the_provider_is_asked_leaves_an_unknown_outcome(api: TasksApiHarness, clock: Clock) -> None:
    api.providers.answer = crash
    with pytest.raises(KeyboardInterrupt):
        api.submit()
    api.providers.answer = refusal(200, ACCEPTED["flux-kontext"])
    api.restart()

    at_once = api.submit()
    clock.pass_by(seconds=IN_PROGRESS_TIME.total_seconds())
    later = api.submit()

    assert at_once.problem == "submission-in-progress"  # the first attempt may still be running
    assert later.problem == "submission-outcome-unknown"
    assert len(api.providers.requests) == 1


@pytest.mark.parametrize("unclear_answer", [no_answer, crash])
def test_whether_to_release_a_key_is_the_callers_decision(
    api: TasksApiHarness,
    clock: Clock,
    unclear_answer: Callable[[httpx.Request], httpx.Response],
    caplog: pytest.LogCaptureFixture,
) -> None:
    api.providers.answer = unclear_answer
    try:
        api.submit()
    except KeyboardInterrupt:
        clock.pass_by(minutes=1)
    api.providers.answer = refusal(200, ACCEPTED["flux-kontext"])

    caplog.set_level("INFO", logger="catchlight")
    assert api.ask("DELETE", "/submissions/order-1").status == 204
    (released,) = [record for record in caplog.records if record.getMessage() == "idempotency key released"]
    assert vars(released)["key"] == "order-1"
    assert api.submit().status == 201
    assert len(api.providers.requests) == 2
    assert api.tasks() == [TASK]
    assert api.record()["state"] == "COMPLETED"
    assert "reason" not in api.record()


def test_a_key_whose_outcome_is_known_is_not_released(api: TasksApiHarness) -> None:
    api.submit()

    answer = api.ask("DELETE", "/submissions/order-1")

    assert (answer.status, answer.problem, answer.body["taskId"]) == (409, "submission-outcome-known", "task12345")
    assert api.submit().status == 201
    assert len(api.providers.requests) == 1


def test_the_key_of_a_running_submission_is_not_released(api: TasksApiHarness) -> None:
    answers = []

    def release_meanwhile(request: httpx.Request) -> httpx.Response:
        answers.append(api.ask("DELETE", "/submissions/order-1"))
        return httpx.Response(200, json=ACCEPTED["flux-kontext"])

    api.providers.answer = release_meanwhile

    assert api.submit().status == 201
    assert [answer.problem for answer in answers] == ["submission-in-progress"]


@pytest.mark.parametrize("key", ["never-used", "order-1", "a b", ".."])
def test_there_is_nothing_to_release(api: TasksApiHarness, key: str) -> None:
    api.providers.answer = refusal(400, {"code": 400})
    api.submit()  # refused for certain: the key is released

    answer = api.ask("DELETE", f"/submissions/{key}")

    assert (answer.status, answer.problem) == (404, "no-such-submission")


def test_malformed_keys_are_not_read_from_the_table(api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB accepts keys of 2,048 bytes, the API accepts paths of 10,000."""
    monkeypatch.setattr(api.dynamodb, "get_item", lost(api.dynamodb.get_item, arrives=False))

    assert api.ask("DELETE", f"/submissions/{'x' * 3000}").problem == "no-such-submission"


# ------------------------------------------------------------------------------------------------ the table fails


def test_without_a_reserved_key_no_request_is_sent(api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(api.dynamodb, "update_item", lost(api.dynamodb.update_item, arrives=False))
        answer = api.submit()

    assert (answer.status, answer.problem) == (503, "unavailable")
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


def test_a_reservation_that_the_client_library_repeats_is_its_own(
    api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore retries a call whose response is lost, and then finds the record that the first try wrote."""
    update_item = api.dynamodb.update_item

    def twice(**arguments: Any) -> Any:
        if arguments["Key"]["task"]["S"].startswith("#submission#"):
            update_item(**arguments)
        return update_item(**arguments)

    monkeypatch.setattr(api.dynamodb, "update_item", twice)

    assert api.submit().status == 201
    assert len(api.providers.requests) == 1


def test_the_id_of_a_task_that_cannot_be_written_is_in_the_answer(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        write = api.dynamodb.transact_write_items
        patches.setattr(api.dynamodb, "transact_write_items", lost(write, arrives=False))
        answer = api.submit()
    assert (answer.status, answer.problem, answer.body["taskId"]) == (409, "submission-outcome-unknown", "task12345")
    assert '{"provider": "flux-kontext", "taskIds": ["task12345"]}' in answer.body["advice"]
    clock.pass_by(minutes=1)

    assert api.submit().problem == "submission-outcome-unknown"
    assert len(api.providers.requests) == 1


def test_a_write_without_a_response_leaves_time_to_answer_with_the_tasks_id(
    api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catchlight.api.idempotency.MAX_WRITING_SECONDS", 0.01)
    calls = []

    def hang(**arguments: Any) -> None:
        calls.append(arguments)
        time.sleep(0.02)
        raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    monkeypatch.setattr(api.dynamodb, "transact_write_items", hang)

    assert api.submit().body["taskId"] == "task12345"
    assert len(calls) == 1
    config = api.dynamodb.meta.config
    longest_call = config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout)
    timeout = load_template(REPOSITORY / "template.yaml", {}).resources["ServeTasksApiFunction"]["Properties"][
        "Timeout"
    ]
    assert ANSWER_TIMEOUT_SECONDS + longest_call < timeout


def test_a_write_that_conflicts_with_a_callback_is_repeated(
    api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = api.dynamodb.transact_write_items, []

    def disturbed(**arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
            raise api.dynamodb.exceptions.TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return write(**arguments)

    monkeypatch.setattr(api.dynamodb, "transact_write_items", disturbed)

    assert api.submit().status == 201
    assert api.tasks() == [TASK]


def test_a_refusal_that_cannot_be_written_is_answered_all_the_same(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome counts as unknown afterwards: this error is on the safe side."""
    update_item = api.dynamodb.update_item

    def fail_from_now_on(request: httpx.Request) -> httpx.Response:
        monkeypatch.setattr(api.dynamodb, "update_item", lost(update_item, arrives=False))
        return httpx.Response(400, json={"code": 400})

    api.providers.answer = fail_from_now_on
    assert api.submit().problem == "request-refused"
    monkeypatch.setattr(api.dynamodb, "update_item", update_item)
    clock.pass_by(minutes=1)

    assert api.submit().problem == "submission-outcome-unknown"


def test_an_unknown_outcome_is_counted(api: TasksApiHarness, capsys: pytest.CaptureFixture[str]) -> None:
    api.submit("order-1")
    api.providers.answer = no_answer
    api.submit("order-2", provider="acedata")

    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counted = [line for line in written if "SubmissionsWithUnknownOutcome" in line]
    assert [(line["provider"], line["SubmissionsWithUnknownOutcome"]) for line in counted] == [("acedata", [1.0])]


def test_prompts_are_not_logged(api: TasksApiHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="catchlight")
    prompt = "a lighthouse that is secret"
    api.submit(prompt=prompt)
    api.submit("order-2", prompt=prompt, callBackUrl=prompt)
    api.providers.answer = refusal(400, {"code": 400, "msg": prompt})
    api.submit("order-3", prompt=prompt)
    api.ask("GET", "/tasks/flux-kontext/task12345")

    ours = [record for record in caplog.records if record.name == "catchlight"]
    assert len(ours) == 4
    assert prompt not in str([record.__dict__ for record in ours])


def test_an_accepted_submission_is_polled_for(api: TasksApiHarness) -> None:
    """Its item is inserted as a pending task: for such a record, DispatchChanges queues the first poll."""
    api.submit()

    item = api.store.item(TASK)
    assert item
    assert item["status"] == TaskStatus.PENDING
