"""PollTasks with DynamoDB in memory, and plain functions in place of the providers."""

import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from catchlight.errors import StoreUnavailableError
from catchlight.polling import provider_client
from catchlight.polling.provider_client import FIRST_REQUESTS, ProviderClient
from catchlight.providers import PROVIDERS
from functions.poll_tasks import app
from tests.canary_secrets import API_KEYS
from tests.conftest import FakeLambdaContext
from tests.fake_http import FakeHttp
from tests.integration.conftest import Store
from tests.integration.functions import an_event, metric_lines
from tests.integration.providers import (
    ACE,
    ACE_PATH,
    FLUX,
    FLUX_PATH,
    MARKET_PATH,
    NANO,
    NANO_PATH,
    RESULT_URL,
    Providers,
    failed,
    json_response,
    poll,
    running,
    status_of,
    succeeded,
    timed_out,
    unreachable,
)

# ------------------------------------------------------------------------------------------------ outages


@pytest.mark.parametrize(
    "answer", [unreachable, json_response({}, 500), json_response({"code": 455}), json_response({"code": 429})]
)
def test_after_five_minutes_without_an_answer_a_poll_finds_the_original_in_time(
    store: Store, providers: Providers, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    """The URL of an original expires after 600 s. The outage begins with the first poll, 130 s after registration."""
    store.register(FLUX)
    now = begun = 130
    waited, wait, polls = 120, 0, 0
    while status_of(store, FLUX) == "PENDING":
        now += wait
        providers.answers = {FLUX_PATH: answer if now < begun + 300 else succeeded}
        state = poll(FLUX, waited_seconds=waited, wait_seconds=wait, polls=polls)
        waited, wait, polls = state["waitedSeconds"], state["waitSeconds"], state["polls"]

    assert status_of(store, FLUX) == "SUCCEEDED"
    assert now <= 600


# ------------------------------------------------------------------------------------------------ tasks

NOTED = "2026-11-28T10:00:00.001Z"


@pytest.mark.parametrize("status", ["TIMED_OUT", "FAILED", "SUCCEEDED", "INCOMPLETE", "ARCHIVED"])
def test_tasks_with_a_result_are_not_polled(store: Store, providers: Providers, status: str) -> None:
    store.put(FLUX, status=status, rank=20)

    assert poll(FLUX)["tasks"] == []

    assert providers.requests == []
    assert status_of(store, FLUX) == status


@pytest.mark.parametrize(
    ("execution", "is_polled"),
    [(None, True), ("2026-11-28T10:00:00.000Z", False), (NOTED, True), ("2026-11-28T10:00:00.002Z", True)],
    ids=["started by an operator", "earlier", "the noted one", "later, but not noted"],
)
def test_only_the_execution_that_was_started_last_polls_a_task(
    store: Store, providers: Providers, execution: str | None, is_polled: bool
) -> None:
    store.register(FLUX, NANO)
    item = store.item(FLUX)
    assert item is not None
    store.put(**item | {"pollingSince": NOTED})
    providers.answers = {FLUX_PATH: running, NANO_PATH: running}

    state = poll(FLUX, NANO, polling_since=execution)

    assert {request.url.path for request in providers.requests} == {NANO_PATH, *[FLUX_PATH] * is_polled}
    assert (state["tasks"], state.get("pollingSince")) == ([*[FLUX] * is_polled, NANO], execution)


def test_deleted_tasks_are_not_polled(store: Store, providers: Providers) -> None:
    assert poll(FLUX, NANO, ACE)["tasks"] == []

    assert providers.requests == []
    assert store.items() == []


def test_a_round_without_tasks_makes_no_request(providers: Providers) -> None:
    assert poll() == {"tasks": [], "waitSeconds": 30, "waitedSeconds": 60, "polls": 1}
    assert providers.requests == []


def test_each_provider_gets_requests_in_its_own_format_with_its_own_key(store: Store, providers: Providers) -> None:
    store.register(FLUX, NANO, ACE)
    providers.answers = {FLUX_PATH: running, NANO_PATH: running, ACE_PATH: json_response({})}

    assert poll(FLUX, NANO, ACE) == {"tasks": [FLUX, NANO, ACE], "waitSeconds": 30, "waitedSeconds": 60, "polls": 1}

    sent = {
        request.url.host: (request.method, str(request.url.query, "ascii"), request.headers["authorization"])
        for request in providers.requests
    }
    assert sent == {
        "api.kie.ai": ("GET", "taskId=f1", f"Bearer {API_KEYS['flux-kontext']}"),
        "api.nanobananaapi.ai": ("GET", "taskId=n1", f"Bearer {API_KEYS['nanobanana']}"),
        "api.acedata.cloud": ("POST", "", f"Bearer {API_KEYS['acedata']}"),
    }


def test_requests_go_to_the_configured_base_url(
    store: Store, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_BASE_URLS", "flux-kontext=https://api.apikley.ru/")
    store.register(FLUX, NANO)

    poll(FLUX, NANO)

    assert sorted(providers.hosts) == ["api.apikley.ru", "api.nanobananaapi.ai"]
    assert {request.url.path for request in providers.requests} == {FLUX_PATH, NANO_PATH}


def test_one_request_to_ace_data_covers_fifty_tasks(store: Store, providers: Providers) -> None:
    tasks = [f"acedata#a{number}" for number in range(50)]
    store.register(*tasks)
    items = [
        {
            "id": f"a{number}",
            "response": {"success": True, "data": [{"image_url": f"https://x.acedata.cloud/{number}"}]},
        }
        for number in range(49)
    ]
    providers.answers[ACE_PATH] = json_response({"items": items, "count": 49})

    assert poll(*tasks)["tasks"] == ["acedata#a49"]

    (request,) = providers.requests
    body = json.loads(request.content)
    assert (body["action"], body["ids"]) == ("retrieve_batch", [f"a{number}" for number in range(50)])
    assert {item["status"] for item in store.items()} == {"SUCCEEDED", "PENDING"}


def test_requests_to_a_provider_are_concurrent_up_to_its_limit(store: Store, providers: Providers) -> None:
    tasks = [f"flux-kontext#f{number}" for number in range(50)]
    store.register(*tasks)

    def slow(request: httpx.Request) -> httpx.Response:
        time.sleep(0.02)
        return running(request)

    providers.answers[FLUX_PATH] = slow

    assert len(poll(*tasks)["tasks"]) == 50
    assert len(providers.requests) == 50
    assert FIRST_REQUESTS < providers.max_concurrent <= PROVIDERS["flux-kontext"].max_concurrent_polls


# ------------------------------------------------------------------------------------------------ reports


def test_polled_results_are_written_to_the_items(store: Store, providers: Providers) -> None:
    store.register(FLUX, NANO, ACE)
    providers.answers = {
        FLUX_PATH: succeeded,
        NANO_PATH: failed,
        ACE_PATH: json_response(
            {"id": "a1", "response": {"success": True, "data": [{"image_url": "https://x.acedata.cloud/1"}]}}
        ),
    }

    assert poll(FLUX, NANO, ACE)["tasks"] == []

    items = {item["task"]: item for item in store.items()}
    assert {task: (item["status"], item["rank"], item["reportedBy"]) for task, item in items.items()} == {
        FLUX: ("SUCCEEDED", 30, "poll"),
        NANO: ("FAILED", 20, "poll"),
        ACE: ("SUCCEEDED", 30, "poll"),
    }
    assert items[FLUX]["images"][0]["url"] == RESULT_URL
    assert items[NANO]["failure"]["reason"] == "CONTENT_POLICY"
    assert "deliveries" not in items[FLUX]


def test_a_callback_during_a_poll_is_not_overwritten(store: Store, providers: Providers) -> None:
    store.register(FLUX)

    def call_back_then_fail(request: httpx.Request) -> httpx.Response:
        store.put(FLUX, status="SUCCEEDED", rank=30, images=[], deliveries=1)
        return failed(request)

    providers.answers[FLUX_PATH] = call_back_then_fail

    assert poll(FLUX)["tasks"] == []
    assert status_of(store, FLUX) == "SUCCEEDED"


@pytest.mark.parametrize(
    "answer",
    [
        running,
        json_response({"code": 200, "msg": "success", "data": None}),
        json_response({"code": 422, "msg": "Record does not exist", "data": None}),
        json_response({}, 404),
    ],
    ids=["running", "unknown", "422", "404"],
)
def test_a_task_that_is_running_or_not_found_is_polled_again(
    store: Store, providers: Providers, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    store.register(FLUX)
    before = store.items()
    providers.answers[FLUX_PATH] = answer

    assert poll(FLUX)["tasks"] == [FLUX]
    assert store.items() == before


# ------------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize(
    ("waited", "wait", "next_wait"),
    [
        (0, 60, 30),
        (60, 30, 30),
        (839, 60, 30),
        (840, 60, 120),
        (3600, 120, 120),
        (21_300, 120, 120),
        (21_400, 120, 80),  # the last poll is at the time limit
        (21_478, 120, 2),
    ],
)
def test_the_intervals_between_polls_grow_and_the_last_poll_is_at_the_time_limit(
    store: Store, providers: Providers, waited: int, wait: int, next_wait: int
) -> None:
    store.register(FLUX)
    providers.answers[FLUX_PATH] = running

    state = poll(FLUX, wait_seconds=wait, waited_seconds=waited)

    assert state == {"tasks": [FLUX], "waitSeconds": next_wait, "waitedSeconds": waited + wait, "polls": 1}


@pytest.mark.parametrize(("polls", "next_wait"), [(238, 30), (239, 150), (240, 150)])
def test_polls_beyond_the_limit_of_the_executions_history_are_delayed(
    store: Store, providers: Providers, polls: int, next_wait: int
) -> None:
    store.register(FLUX)
    providers.answers[FLUX_PATH] = running

    state = poll(FLUX, polls=polls)

    assert (state["waitSeconds"], state["polls"]) == (next_wait, polls + 1)


@pytest.mark.parametrize(
    "answer",
    [
        json_response({"code": 429, "msg": "rate limit"}),
        json_response({"code": 455, "msg": "maintenance"}),
        json_response({}, 429),
        json_response({"code": 455}, 455),
    ],
    ids=["429 in the body", "455 in the body", "HTTP 429", "HTTP 455"],
)
def test_a_busy_provider_gets_no_further_requests_for_a_while(
    store: Store, providers: Providers, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    tasks = [f"flux-kontext#f{number}" for number in range(40)]
    store.register(*tasks)
    providers.answers[FLUX_PATH] = answer

    state = poll(*tasks)

    assert (state["tasks"], state["waitSeconds"]) == (tasks, 120)
    assert len(providers.requests) <= FIRST_REQUESTS
    assert {item["status"] for item in store.items()} == {"PENDING"}


def test_a_busy_provider_does_not_make_the_wait_shorter(store: Store, providers: Providers) -> None:
    store.register(FLUX)
    providers.answers[FLUX_PATH] = json_response({"code": 429})

    assert (
        poll(FLUX, waited_seconds=3600)["waitSeconds"] == 150
    )  # a quarter of the 600 s for which an origin URL is valid


def test_a_provider_that_is_down_does_not_delay_the_others(store: Store, providers: Providers) -> None:
    store.register(FLUX, NANO, ACE)
    providers.answers = {FLUX_PATH: unreachable, NANO_PATH: succeeded, ACE_PATH: timed_out}

    assert poll(FLUX, NANO, ACE) == {"tasks": [FLUX, ACE], "waitSeconds": 30, "waitedSeconds": 60, "polls": 1}
    assert status_of(store, NANO) == "SUCCEEDED"


@pytest.mark.parametrize(
    "answer",
    [
        unreachable,
        timed_out,
        json_response({"code": 500}),
        json_response("?"),
        json_response([], 502),
        lambda _: httpx.Response(200, content=b"<html>"),
        lambda _: httpx.Response(200, content=b"\xff"),
        lambda _: httpx.Response(200, content=b"[" * 100_000),
        lambda _: httpx.Response(200, content=b'{"code": ' + b"9" * 5000 + b"}"),
        lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, content=b"no gzip"),
        lambda _: httpx.Response(302, headers={"location": "https://evil.example/"}),
        json_response({"code": 200, "data": {"taskId": "another", "successFlag": 1}}),
        json_response({"code": 200, "data": {"taskId": "f1", "successFlag": 9}}),
    ],
)
def test_a_provider_is_polled_again_after_an_outage(
    store: Store, providers: Providers, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    store.register(FLUX)
    providers.answers[FLUX_PATH] = answer
    state = poll(FLUX)
    assert (state["tasks"], status_of(store, FLUX)) == ([FLUX], "PENDING")
    assert set(providers.hosts) == {"api.kie.ai"}

    providers.answers[FLUX_PATH] = succeeded
    assert poll(FLUX, wait_seconds=state["waitSeconds"], waited_seconds=state["waitedSeconds"])["tasks"] == []
    assert status_of(store, FLUX) == "SUCCEEDED"


def test_an_endless_response_is_read_up_to_a_limit(
    store: Store, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(FLUX)
    monkeypatch.setattr(provider_client, "MAX_ANSWER_BYTES", 100_000)
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 10_000
            yield b" " * 10_000

    providers.answers[FLUX_PATH] = lambda _: httpx.Response(200, content=endless())

    assert poll(FLUX)["tasks"] == [FLUX]
    assert read < 1_000_000


# ------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "there is no API key"),
        ({"flux-kontext": {}}, "there is no API key"),
        ({"flux-kontext": {"apiKey": ""}}, "there is no API key"),
        ({"flux-kontext": {"apiKey": "..."}}, "the API key is a placeholder"),
        ({"flux-kontext": {"apiKey": "<your key>"}}, "the API key is a placeholder"),
    ],
)
def test_without_an_api_key_no_request_is_made(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, keys: dict[str, Any], reason: str
) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId="keys", SecretString=json.dumps(keys))
    store.register(FLUX)

    assert poll(FLUX)["tasks"] == [FLUX]
    assert providers.requests == []
    assert any(reason in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("api_key", "problem"),
    [
        ("quartz\u200bpebble", "U+200B (ZERO WIDTH SPACE) at position 7"),
        ("quartzpebble\u201d", "U+201D (RIGHT DOUBLE QUOTATION MARK) at position 13"),
        ("quartz\nquartz", "U+000A at position 7"),
        (7, "is not a string"),
    ],
    ids=ascii,
)
def test_a_key_that_no_header_can_hold_stops_the_polls_of_its_provider_alone(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, api_key: object, problem: str
) -> None:
    keys = {"flux-kontext": {"apiKey": api_key}, "nanobanana": {"apiKey": "\u00a0k3y\n"}}
    boto3.client("secretsmanager").put_secret_value(SecretId="keys", SecretString=json.dumps(keys))
    store.register(FLUX, NANO)
    providers.answers[FLUX_PATH] = providers.answers[NANO_PATH] = succeeded

    assert poll(FLUX, NANO)["tasks"] == [FLUX]

    assert (status_of(store, FLUX), status_of(store, NANO)) == ("PENDING", "SUCCEEDED")
    (request,) = providers.requests
    assert request.headers["authorization"] == "Bearer k3y"
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message == "provider not polled until its key is corrected"
    assert (record.__dict__["provider"], record.__dict__["tasks"]) == ("flux-kontext", [FLUX])
    assert "apiKey of flux-kontext in the provider keys secret" in caplog.text
    assert problem in caplog.text
    assert [part for part in ("quartz", "pebble") if part in caplog.text] == []


def test_a_refused_key_is_not_tried_for_every_task(store: Store, providers: Providers) -> None:
    tasks = [f"flux-kontext#f{number}" for number in range(40)]
    store.register(*tasks)
    providers.answers[FLUX_PATH] = json_response({"code": 401, "msg": "unauthorized"}, 401)

    assert poll(*tasks)["tasks"] == tasks
    assert len(providers.requests) <= FIRST_REQUESTS


def test_a_task_of_an_unknown_provider_does_not_delay_the_others(store: Store, providers: Providers) -> None:
    store.register("midjourney#m1", FLUX)
    providers.answers[FLUX_PATH] = succeeded

    assert poll("midjourney#m1", FLUX)["tasks"] == ["midjourney#m1"]
    assert status_of(store, FLUX) == "SUCCEEDED"


def test_an_invalid_task_id_does_not_delay_the_others(store: Store, providers: Providers) -> None:
    store.register("flux-kontext#a b", FLUX)
    providers.answers[FLUX_PATH] = succeeded

    assert poll("flux-kontext#a b", FLUX)["tasks"] == []
    assert status_of(store, FLUX) == "SUCCEEDED"
    assert [request.url.params["taskId"] for request in providers.requests] == ["f1"]


# ------------------------------------------------------------------------------------------------ giving up


def test_a_task_without_a_result_times_out(store: Store, providers: Providers) -> None:
    store.register(FLUX, NANO)
    providers.answers = {FLUX_PATH: running, NANO_PATH: succeeded}

    assert poll(FLUX, NANO, wait_seconds=120, waited_seconds=21_480)["tasks"] == []

    item = store.item(FLUX)
    assert item is not None
    assert (item["status"], item["rank"], item["failure"]["reason"]) == ("TIMED_OUT", 10, "NO_RESULT")
    assert item["failure"]["lastAnswer"] == "STILL_RUNNING"
    assert "6 hours" in item["failure"]["message"]
    assert status_of(store, NANO) == "SUCCEEDED"
    assert len(providers.requests) == 2


@pytest.mark.parametrize(
    ("answer", "last_answer"),
    [
        (json_response({"code": 200, "data": None}), "NOT_FOUND"),
        (json_response({"code": 401, "msg": "You do not have access"}), "REFUSED"),
        (json_response({"code": 455}), "BUSY"),
        (json_response("no object"), "UNREADABLE"),
        (json_response({}, 502), "NO_ANSWER"),
    ],
)
def test_a_task_that_timed_out_has_the_last_answer(
    store: Store, providers: Providers, answer: Any, last_answer: str
) -> None:
    # More tasks than FIRST_REQUESTS: after refusals, the others are not requested and get the same answer.
    tasks = [f"flux-kontext#f{number}" for number in range(12)]
    store.register(*tasks)
    providers.answers = {FLUX_PATH: answer}

    assert poll(*tasks, wait_seconds=120, waited_seconds=21_480)["tasks"] == []

    items = [store.item(task) for task in tasks]
    assert {item["failure"]["lastAnswer"] for item in items if item} == {last_answer}
    if last_answer == "REFUSED":
        assert all(item and "You do not have access" in item["failure"]["message"] for item in items)


def test_a_task_that_timed_out_without_an_answer_is_polled_and_gets_its_result(
    store: Store, providers: Providers
) -> None:
    failure = {"reason": "NO_RESULT", "lastAnswer": "NO_ANSWER"}
    store.put(FLUX, status="TIMED_OUT", rank=10, reportedAt="2026-01-31T12:00:00.000Z", failure=failure)
    providers.answers = {FLUX_PATH: lambda _: httpx.Response(503)}
    assert poll(FLUX, wait_seconds=0)["tasks"] == [FLUX]
    assert poll(FLUX, wait_seconds=120, waited_seconds=21_480)["tasks"] == []
    assert status_of(store, FLUX) == "TIMED_OUT"

    providers.answers = {FLUX_PATH: succeeded}
    assert poll(FLUX, wait_seconds=0)["tasks"] == []
    assert status_of(store, FLUX) == "SUCCEEDED"


def test_a_task_with_a_hint_after_its_timeout_is_polled(store: Store, providers: Providers) -> None:
    given_up = {"status": "TIMED_OUT", "rank": 10, "reportedAt": "2026-01-31T12:00:00.000Z", "deliveries": 1}
    store.put(FLUX, **given_up, hintedAt="2026-01-31T11:00:00.000Z")
    providers.answers = {FLUX_PATH: running}
    assert poll(FLUX)["tasks"] == []
    assert providers.requests == []

    store.put(FLUX, **given_up, hintedAt="2026-01-31T13:00:00.000Z")
    assert poll(FLUX, wait_seconds=0)["tasks"] == [FLUX]
    # Its execution also ends at the time limit.
    assert poll(FLUX, wait_seconds=120, waited_seconds=21_480)["tasks"] == []
    providers.answers = {FLUX_PATH: succeeded}
    assert poll(FLUX, wait_seconds=0)["tasks"] == []
    assert status_of(store, FLUX) == "SUCCEEDED"


@pytest.mark.parametrize("task", ["midjourney#m1", ACE])
def test_a_task_that_cannot_be_polled_times_out(store: Store, providers: Providers, task: str) -> None:
    # Otherwise, its execution would run until the timeout of the state machine, and the task would stay PENDING.
    store.register(task)

    assert poll(task, wait_seconds=120, waited_seconds=21_480)["tasks"] == []
    assert status_of(store, task) == "TIMED_OUT"


# ------------------------------------------------------------------------------------------------ time and faults


def test_a_round_without_enough_time_makes_no_request(store: Store, providers: Providers) -> None:
    store.register(FLUX)
    providers.answers[FLUX_PATH] = succeeded

    assert poll(FLUX, context=FakeLambdaContext(remaining_seconds=app.RESERVED_SECONDS - 1))["tasks"] == [FLUX]
    assert providers.requests == []

    assert poll(FLUX, context=FakeLambdaContext(remaining_seconds=app.RESERVED_SECONDS + 5))["tasks"] == []


def test_requests_stop_when_the_time_is_over(
    store: Store, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [f"flux-kontext#f{number}" for number in range(50)]
    store.register(*tasks)
    now = 1000.0
    monkeypatch.setattr(app, "time", SimpleNamespace(monotonic=lambda: now))
    http = FakeHttp(providers)
    monkeypatch.setattr(
        app, "ProviderClient", lambda base_urls: ProviderClient(base_urls, http=http, clock=lambda: now)
    )

    def use_up_the_time_in_the_last_first_request(request: httpx.Request) -> httpx.Response:
        nonlocal now
        if len(providers.requests) == FIRST_REQUESTS:
            now += 6
        return running(request)

    providers.answers[FLUX_PATH] = use_up_the_time_in_the_last_first_request

    assert len(poll(*tasks, context=FakeLambdaContext(remaining_seconds=app.RESERVED_SECONDS + 5))["tasks"]) == 50
    assert len(providers.requests) == FIRST_REQUESTS


def test_an_error_of_dynamodb_fails_the_round(store: Store, providers: Providers) -> None:
    store.register(FLUX)

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "BatchGetItem")

    app.dependencies().polling._table._client.meta.events.register("before-call.dynamodb", fail)

    with pytest.raises(StoreUnavailableError):
        poll(FLUX)
    assert providers.requests == []


def test_the_example_input_is_accepted(store: Store, providers: Providers) -> None:
    event = an_event("poll_tasks_input.json")
    store.register(*event["tasks"])
    market = json_response(an_event("polls/kie-market/success.json"))
    providers.answers = {FLUX_PATH: succeeded, NANO_PATH: succeeded, MARKET_PATH: market}
    providers.answers[ACE_PATH] = json_response({"items": []})

    answer = app.handler(event, FakeLambdaContext())

    assert answer["tasks"] == [task for task in event["tasks"] if task.startswith("acedata")]


def test_resolved_and_timed_out_tasks_are_counted(
    store: Store, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register(FLUX, NANO)
    providers.answers = {FLUX_PATH: succeeded, NANO_PATH: running}

    poll(FLUX, NANO, wait_seconds=120, waited_seconds=21_480)

    resolved, given_up = metric_lines(capsys)
    assert (resolved["provider"], resolved["ResolvedByPoll"], "TasksTimedOut" in resolved) == (
        "flux-kontext",
        [1.0],
        False,
    )
    assert (given_up["provider"], given_up["TasksTimedOut"], "ResolvedByPoll" in given_up) == (
        "nanobanana",
        [1.0],
        False,
    )


def test_a_refused_account_is_counted(store: Store, providers: Providers, capsys: pytest.CaptureFixture[str]) -> None:
    store.register(FLUX)
    providers.answers = {FLUX_PATH: lambda _: httpx.Response(200, json={"code": 402, "msg": "no credits"})}

    poll(FLUX)

    (line,) = metric_lines(capsys)
    assert (line["ProviderRefused"], line["PollErrors"], line["PollRequests"]) == ([1.0], [1.0], [1.0])


def test_no_log_line_holds_a_key(
    store: Store, providers: Providers, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store.register(FLUX, NANO)
    providers.answers = {FLUX_PATH: json_response({"code": 401}), NANO_PATH: unreachable}

    poll(FLUX, NANO)

    assert "status request failed" in caplog.text
    logged = caplog.text + str([record.__dict__ for record in caplog.records])
    assert [provider for provider in ("flux-kontext", "nanobanana") if API_KEYS[provider] in logged] == []
