"""A request for images is sent once, however often it is asked for, and whatever breaks on the way."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import httpx
import pytest

from functions.answer_requests import app
from image_tasks.models import TaskStatus
from image_tasks.providers import PROVIDERS
from image_tasks.submission_claims import ASKING_TIME
from tests.integration.answer_desk.desk import CALLBACK_BASE_URL, TAKEN, Clock, Desk, lost
from tests.planted_secrets import API_KEYS, CALLBACK_TOKEN

TASK = "flux-kontext#task12345"

# ------------------------------------------------------------------------------------------------ taken


@pytest.mark.parametrize(
    ("provider_id", "url", "field"),
    [
        ("flux-kontext", "https://api.kie.ai/api/v1/flux/kontext/generate", "callBackUrl"),
        ("nanobanana", "https://api.nanobananaapi.ai/api/v1/nanobanana/generate", "callBackUrl"),
        ("acedata", "https://api.acedata.cloud/flux/images", "callback_url"),
    ],
)
def test_the_request_goes_to_the_provider_as_it_is_with_the_callback_url(
    desk: Desk, provider_id: str, url: str, field: str
) -> None:
    asked: dict[str, Any] = {
        "prompt": "Ein Leuchtturm \N{WAVING BLACK FLAG}",
        "inputImage": "https://x.example/1.png",
        "seed": 7,
    }

    answer = desk.submit(provider=provider_id, **asked)

    (request,) = desk.providers.requests
    assert (request.method, str(request.url)) == ("POST", url)
    assert request.headers["authorization"] == f"Bearer {API_KEYS[provider_id]}"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {
        **asked,
        field: f"{CALLBACK_BASE_URL}/callbacks/{provider_id}/{CALLBACK_TOKEN}",
    }
    assert answer.status == 201
    assert answer.headers["location"] == f"/tasks/{provider_id}/task12345"
    assert answer.body == {
        "task": f"{provider_id}#task12345",
        "provider": provider_id,
        "taskId": "task12345",
        "outcome": "submitted",
    }


def test_the_task_is_registered_in_the_same_breath(desk: Desk) -> None:
    desk.submit(prompt="a lighthouse", model="flux-kontext-max", aspectRatio="16:9", seed=7)

    assert desk.store.item(TASK) == {
        "task": TASK,
        "provider": "flux-kontext",
        "taskId": "task12345",
        "status": "PENDING",
        "rank": 0,
        "registeredAt": "2026-11-21T12:00:00.000Z",
        "updatedAt": "2026-11-21T12:00:00.000Z",
        "feed": "tasks",
        "arrivedAt": "2026-11-21T12:00:00.000Z",
        "request": {"prompt": "a lighthouse", "model": "flux-kontext-max", "size": "16:9", "seeds": [7]},
        "idempotencyKey": "order-1",
    }


@pytest.mark.parametrize("endpoint", PROVIDERS["nanobanana"].submit_paths)
def test_a_provider_may_have_several_endpoints(desk: Desk, endpoint: str) -> None:
    body = {"provider": "nanobanana", "endpoint": endpoint, "request": {"prompt": "a lighthouse"}}

    assert desk.ask("POST", "/tasks", body=body, headers={"Idempotency-Key": "1"}).status == 201
    assert desk.providers.requests[0].url.path == f"/api/v1/nanobanana/{endpoint}"


def test_a_callback_that_is_faster_than_the_answer_stays_as_it_is(desk: Desk) -> None:
    def call_back_first(request: httpx.Request) -> httpx.Response:
        desk.store.put(TASK, provider="flux-kontext", taskId="task12345", status="SUCCEEDED", rank=30, deliveries=1)
        return httpx.Response(200, json=TAKEN["flux-kontext"])

    desk.providers.answer = call_back_first

    assert desk.submit().status == 201
    item = desk.store.item(TASK)
    assert item
    assert (item["status"], item["rank"], item["deliveries"]) == ("SUCCEEDED", 30, 1)
    assert item["registeredAt"]
    assert item["idempotencyKey"] == "order-1"


def test_a_claim_is_no_task(desk: Desk) -> None:
    desk.submit()

    assert "status" not in desk.claim()
    assert "feed" not in desk.claim()
    assert desk.tasks() == [TASK]
    assert [task["task"] for task in desk.ask("GET", "/tasks").body["tasks"]] == [TASK]


def test_a_claim_is_kept_as_long_as_tasks_are(desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.submit("for-ever")
    monkeypatch.setenv("TASK_RETENTION_DAYS", "30")
    desk.start_anew()
    desk.submit("for-a-month")

    assert "deleteAfter" not in desk.claim("for-ever")
    assert desk.claim("for-a-month")["deleteAfter"] == int(clock.now.timestamp()) + 30 * 86_400


# ------------------------------------------------------------------------------------------------ repeated


def test_the_same_key_and_request_have_the_same_answer(desk: Desk, clock: Clock) -> None:
    first = desk.submit()
    clock.pass_by(days=3)
    desk.start_anew()

    again = desk.submit()

    assert (again.status, again.body, again.headers["location"]) == (201, first.body, first.headers["location"])
    assert len(desk.providers.requests) == 1


def test_the_order_of_members_is_no_difference(desk: Desk) -> None:
    desk.submit(prompt="a lighthouse", seed=7)

    assert desk.submit(seed=7, prompt="a lighthouse").status == 201
    assert len(desk.providers.requests) == 1


@pytest.mark.parametrize(
    "other", [{"prompt": "another"}, {"prompt": "a lighthouse", "seed": 1}, {"provider": "acedata"}], ids=str
)
def test_the_same_key_and_another_request_are_refused(desk: Desk, other: dict[str, Any]) -> None:
    desk.submit()

    answer = desk.submit(**other)

    assert (answer.status, answer.problem) == (422, "idempotency-key-used")
    assert len(desk.providers.requests) == 1


def test_another_key_generates_again(desk: Desk) -> None:
    desk.submit("order-1")
    desk.submit("order-2")

    assert len(desk.providers.requests) == 2


def test_of_many_at_once_one_is_sent(desk: Desk) -> None:
    assert app.dependencies().submissions  # not part of the race: a sandbox handles one request at a time
    is_asked, may_answer = threading.Event(), threading.Event()

    def wait(request: httpx.Request) -> httpx.Response:
        is_asked.set()
        assert may_answer.wait(30)
        return httpx.Response(200, json=TAKEN["flux-kontext"])

    desk.providers.answer = wait
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(desk.submit)
        assert is_asked.wait(30)
        others = list(pool.map(lambda _: desk.submit(), range(15)))
        may_answer.set()

    assert first.result().status == 201
    assert Counter(answer.problem for answer in others) == {"submission-in-progress": 15}
    assert {answer.status for answer in others} == {409}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in others)
    assert desk.submit().body == first.result().body
    assert len(desk.providers.requests) == 1


def test_a_race_for_a_key_has_one_winner(desk: Desk) -> None:
    assert app.dependencies().submissions
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: desk.submit(), range(32)))

    assert len(desk.providers.requests) == 1
    assert {answer.status for answer in answers} <= {201, 409}


# ------------------------------------------------------------------------------------------------ refused


def refusal(status: int, body: Any, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, json=body, headers=headers)


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def no_connection_in_time(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("3 s", request=request)


CERTAIN: dict[str, tuple[Callable[[httpx.Request], httpx.Response], int, str]] = {
    "parameters": (refusal(200, {"code": 422, "msg": "prompt is required"}), 422, "request-refused"),
    "bad request": (refusal(400, {"code": 400, "msg": "?"}), 422, "request-refused"),
    "no such path": (refusal(404, None), 422, "request-refused"),
    "key": (refusal(401, {"code": 401}), 424, "account-refused"),
    "credits": (refusal(200, {"code": 402, "msg": "Insufficient Credits"}), 424, "account-refused"),
    "rate limit": (refusal(429, {"code": 429}), 429, "provider-busy"),
    "maintenance": (refusal(200, {"code": 455}), 429, "provider-busy"),
    "unreachable": (unreachable, 503, "provider-unavailable"),
    "no connection": (no_connection_in_time, 503, "provider-unavailable"),
}


@pytest.mark.parametrize("name", CERTAIN)
def test_what_is_refused_for_certain_may_be_sent_again_with_the_same_key(desk: Desk, name: str) -> None:
    desk.providers.answer, status, problem = CERTAIN[name]

    answer = desk.submit()

    assert (answer.status, answer.problem) == (status, problem)
    assert "Nothing was generated" in answer.body["advice"]
    assert desk.tasks() == []
    desk.providers.answer = refusal(200, TAKEN["flux-kontext"])
    # Another request, too: nothing has come of the first one.
    assert desk.submit(prompt="a lighthouse by day").status == 201
    assert len(desk.providers.requests) == 2
    assert desk.tasks() == [TASK]


def test_the_providers_words_come_back_as_they_are(desk: Desk) -> None:
    said = {"code": 422, "msg": "aspectRatio: one of 1:1, 16:9", "data": {"field": "aspectRatio", "n": [1, None, 2.5]}}
    desk.providers.answer = refusal(200, said)

    assert desk.submit().body["providerReply"] == {"status": 200, "body": said}


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"<html>Bad Request</html>", "<html>Bad Request</html>"),
        (b"\xff\x00", "\ufffd\x00"),
        (b"x" * 60_000, "x" * 4000),
        (b'{"msg": "\\ud800", "n": NaN}', {"msg": "\ud800", "n": "NaN"}),
        (b"[" * 500 + b"]" * 500, "[" * 500 + "]" * 500),
        (b"[" * 30_000, "[" * 4000),
        (b"9" * 5000, "9" * 4000),
        (b"", ""),
    ],
)
def test_whatever_a_provider_says_can_be_shown(desk: Desk, content: bytes, shown: Any) -> None:
    desk.providers.answer = lambda _: httpx.Response(400, content=content)

    assert desk.submit().body["providerReply"] == {"status": 400, "body": shown}


def test_our_secrets_do_not_come_back_should_a_provider_repeat_them(desk: Desk) -> None:
    def repeat(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content)
        return httpx.Response(
            401, json={"code": 401, "msg": f"invalid {request.headers['authorization']}", "data": sent}
        )

    desk.providers.answer = repeat

    body = json.dumps(desk.submit().body)

    assert CALLBACK_TOKEN not in body
    assert API_KEYS["flux-kontext"] not in body
    assert f"{CALLBACK_BASE_URL}/callbacks/flux-kontext/*****" in body


@pytest.mark.parametrize(
    ("header", "seconds"),
    [({"retry-after": "7"}, 7), ({}, 10), ({"retry-after": "soon"}, 10), ({"retry-after": "9" * 5}, 300)],
)
def test_how_long_to_wait_is_told(desk: Desk, header: dict[str, str], seconds: int) -> None:
    desk.providers.answer = refusal(429, {"code": 429}, **header)

    assert int(desk.submit().headers["retry-after"]) == seconds


def test_without_an_api_key_nothing_is_sent(desk: Desk) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=desk.keys_secret, SecretString="{}")

    answer = desk.submit()

    assert (answer.status, answer.problem) == (424, "account-refused")
    assert desk.providers.requests == []
    assert desk.store.items() == []


def test_a_malformed_secret_is_the_operators_to_repair(desk: Desk) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=desk.keys_secret, SecretString="no JSON")

    assert (desk.submit().status, desk.store.items()) == (503, [])


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"request": {"prompt": "p", "callBackUrl": "https://mine.example"}}, "request.callBackUrl"),
        ({"request": {"prompt": "p", "callback_url": None}}, "request.callback_url"),
        ({"request": {"prompt": "p", "CALLBACKURL": "x"}}, "request.CALLBACKURL"),
        ({"request": {"prompt": [[[[[[[["deep"]]]]]]]]}}, "request"),
        ({"request": {"prompt": "\ud800"}}, "request"),
        ({"request": {"prompt": {"\udfff": 1}}}, "request"),
        ({"request": {}}, "request"),
        ({"request": "a lighthouse"}, "request"),
        ({"request": {"prompt": "p"}, "endpoint": "generate-9"}, "endpoint"),
        ({"request": {"prompt": "p"}, "endpoint": ""}, "endpoint"),
        ({"request": {"prompt": "p"}, "endpoint": "../../x"}, "endpoint"),
        ({"request": {"prompt": "p"}, "callBackUrl": "https://mine.example"}, "callBackUrl"),
        ({"request": {"prompt": "p"}, "provider": "https://evil.example"}, "provider"),
    ],
)
def test_what_is_no_request_is_never_sent(desk: Desk, body: dict[str, Any], at: str) -> None:
    answer = desk.ask("POST", "/tasks", body={"provider": "flux-kontext", **body}, headers={"Idempotency-Key": "1"})

    assert (answer.status, answer.problem) == (422, "invalid-request")
    assert [error["at"] for error in answer.body["errors"]] == [at]
    assert desk.providers.requests == []
    assert desk.store.items() == []


def test_a_request_without_a_key_is_never_sent(desk: Desk) -> None:
    answer = desk.submit(None)

    assert (answer.status, answer.problem) == (400, "idempotency-key-missing")
    assert desk.providers.requests == []


@pytest.mark.parametrize("key", ["", "a b", "a/b", "ü", "x" * 129, "a,b", "#"])
def test_a_key_is_made_of_plain_characters(desk: Desk, key: str) -> None:
    answer = desk.submit(key)

    assert (answer.status, answer.problem) == (400, "invalid-parameter")
    assert desk.providers.requests == []


# ------------------------------------------------------------------------------------------------ in doubt


def no_answer(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("18 s", request=request)


def hung_up(request: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("server disconnected", request=request)


DOUBTS: dict[str, Callable[[httpx.Request], httpx.Response]] = {
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


@pytest.mark.parametrize("name", DOUBTS)
def test_what_is_in_doubt_is_never_sent_again_by_itself(desk: Desk, clock: Clock, name: str) -> None:
    desk.providers.answer = DOUBTS[name]

    first = desk.submit()
    desk.providers.answer = refusal(200, TAKEN["flux-kontext"])
    clock.pass_by(days=1)
    again = desk.submit()

    for answer in (first, again):
        assert (answer.status, answer.problem) == (409, "submission-in-doubt")
        assert "retry-after" not in answer.headers
        assert answer.body["askedAt"] == "2026-11-21T12:00:00.000Z"
        assert "GET /tasks?provider=flux-kontext&since=2026-11-21T12:00:00.000Z" in answer.body["advice"]
        assert "DELETE /submissions/order-1" in answer.body["advice"]
    assert len(desk.providers.requests) == 1
    assert desk.tasks() == []


def crash(request: httpx.Request) -> httpx.Response:
    raise KeyboardInterrupt("the sandbox is gone")


def test_a_crash_while_the_provider_is_asked_leaves_a_doubt(desk: Desk, clock: Clock) -> None:
    desk.providers.answer = crash
    with pytest.raises(KeyboardInterrupt):
        desk.submit()
    desk.providers.answer = refusal(200, TAKEN["flux-kontext"])
    desk.start_anew()

    at_once = desk.submit()
    clock.pass_by(seconds=ASKING_TIME.total_seconds())
    later = desk.submit()

    assert at_once.problem == "submission-in-progress"  # whoever asked may still be at it
    assert later.problem == "submission-in-doubt"
    assert len(desk.providers.requests) == 1


@pytest.mark.parametrize("doubt", [no_answer, crash])
def test_the_way_out_of_doubt_is_the_callers_decision(
    desk: Desk, clock: Clock, doubt: Callable[[httpx.Request], httpx.Response]
) -> None:
    desk.providers.answer = doubt
    try:
        desk.submit()
    except KeyboardInterrupt:
        clock.pass_by(minutes=1)
    desk.providers.answer = refusal(200, TAKEN["flux-kontext"])

    assert desk.ask("DELETE", "/submissions/order-1").status == 204
    assert desk.submit().status == 201
    assert len(desk.providers.requests) == 2
    assert desk.tasks() == [TASK]
    assert desk.claim()["state"] == "TAKEN"
    assert "doubt" not in desk.claim()


def test_what_is_not_in_doubt_is_not_given_up(desk: Desk) -> None:
    desk.submit()

    answer = desk.ask("DELETE", "/submissions/order-1")

    assert (answer.status, answer.problem, answer.body["taskId"]) == (409, "submission-not-in-doubt", "task12345")
    assert desk.submit().status == 201
    assert len(desk.providers.requests) == 1


def test_whoever_is_at_work_is_not_given_up(desk: Desk) -> None:
    given_up = []

    def give_up_meanwhile(request: httpx.Request) -> httpx.Response:
        given_up.append(desk.ask("DELETE", "/submissions/order-1"))
        return httpx.Response(200, json=TAKEN["flux-kontext"])

    desk.providers.answer = give_up_meanwhile

    assert desk.submit().status == 201
    assert [answer.problem for answer in given_up] == ["submission-in-progress"]


@pytest.mark.parametrize("key", ["never-used", "order-1", "a b", ".."])
def test_there_is_nothing_to_give_up(desk: Desk, key: str) -> None:
    desk.providers.answer = refusal(400, {"code": 400})
    desk.submit()  # refused for certain: the key is free

    answer = desk.ask("DELETE", f"/submissions/{key}")

    assert (answer.status, answer.problem) == (404, "no-such-submission")


# ------------------------------------------------------------------------------------------------ the table fails


def test_a_key_that_cannot_be_claimed_is_not_asked_with(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(desk.dynamodb, "update_item", lost(desk.dynamodb.update_item, arrives=False))
        answer = desk.submit()

    assert (answer.status, answer.problem) == (503, "unavailable")
    assert desk.providers.requests == []
    assert desk.submit().status == 201


def test_a_claim_whose_answer_is_lost_is_not_asked_with_and_comes_to_be_in_doubt(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(desk.dynamodb, "update_item", lost(desk.dynamodb.update_item, arrives=True))
        assert desk.submit().status == 503
    clock.pass_by(minutes=1)

    assert desk.submit().problem == "submission-in-doubt"
    assert desk.providers.requests == []


def test_a_claim_that_the_client_library_repeats_is_its_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore tries again when an answer is lost, and finds what its first try has written."""
    update_item = desk.dynamodb.update_item

    def twice(**arguments: Any) -> Any:
        if arguments["Key"]["task"]["S"].startswith("#submission#"):
            update_item(**arguments)
        return update_item(**arguments)

    monkeypatch.setattr(desk.dynamodb, "update_item", twice)

    assert desk.submit().status == 201
    assert len(desk.providers.requests) == 1


def test_a_task_that_cannot_be_written_down_is_told(desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patches:
        write = desk.dynamodb.transact_write_items
        patches.setattr(desk.dynamodb, "transact_write_items", lost(write, arrives=False))
        answer = desk.submit()
    assert (answer.status, answer.problem, answer.body["taskId"]) == (409, "submission-in-doubt", "task12345")
    assert '{"provider": "flux-kontext", "taskIds": ["task12345"]}' in answer.body["advice"]
    clock.pass_by(minutes=1)

    assert desk.submit().problem == "submission-in-doubt"
    assert len(desk.providers.requests) == 1


def test_a_write_that_a_callback_disturbs_is_done_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = desk.dynamodb.transact_write_items, []

    def disturbed(**arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
            raise desk.dynamodb.exceptions.TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return write(**arguments)

    monkeypatch.setattr(desk.dynamodb, "transact_write_items", disturbed)

    assert desk.submit().status == 201
    assert desk.tasks() == [TASK]


def test_a_refusal_that_cannot_be_noted_is_told_all_the_same(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is taken for a doubt afterwards: the safe way to be wrong."""
    update_item = desk.dynamodb.update_item

    def fail_from_now_on(request: httpx.Request) -> httpx.Response:
        monkeypatch.setattr(desk.dynamodb, "update_item", lost(update_item, arrives=False))
        return httpx.Response(400, json={"code": 400})

    desk.providers.answer = fail_from_now_on
    assert desk.submit().problem == "request-refused"
    monkeypatch.setattr(desk.dynamodb, "update_item", update_item)
    clock.pass_by(minutes=1)

    assert desk.submit().problem == "submission-in-doubt"


def test_a_doubt_is_counted(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.submit("order-1")
    desk.providers.answer = no_answer
    desk.submit("order-2", provider="acedata")

    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counted = [line for line in written if "SubmissionsInDoubt" in line]
    assert [(line["provider"], line["SubmissionsInDoubt"]) for line in counted] == [("acedata", [1.0])]


def test_what_was_asked_for_is_logged_nowhere(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="catchlight")
    prompt = "a lighthouse that nobody may hear of"
    desk.submit(prompt=prompt)
    desk.submit("order-2", prompt=prompt, callBackUrl=prompt)
    desk.providers.answer = refusal(400, {"code": 400, "msg": prompt})
    desk.submit("order-3", prompt=prompt)
    desk.ask("GET", "/tasks/flux-kontext/task12345")

    ours = [record for record in caplog.records if record.name == "catchlight"]
    assert len(ours) == 4
    assert prompt not in str([record.__dict__ for record in ours])


def test_what_was_taken_is_polled_for(desk: Desk) -> None:
    """Its item is an insertion of a pending task, which is what the stream's reader waits for."""
    desk.submit()

    item = desk.store.item(TASK)
    assert item
    assert item["status"] == TaskStatus.PENDING
