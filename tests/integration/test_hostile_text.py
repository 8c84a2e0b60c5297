"""Untrusted text in callbacks and poll responses is logged as one line of ASCII, and published in valid events."""

import json
import re
from collections.abc import Callable, Iterator
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.dispatch import MAX_TASKS_PER_EXECUTION
from catchlight.models import TaskStatus
from functions.poll_tasks import app as poll_tasks
from functions.publish_events import app as publish_events
from functions.receive_callback import app as receive_callback
from tests.hostile.strings import STRINGS
from tests.integration.conftest import REPOSITORY, TABLE_NAME, Store
from tests.integration.functions import PROVIDER_KEYS, TOKEN, StandardOutput, a_callback, a_secret
from tests.integration.providers import ACE_PATH, FLUX_PATH, MARKET_PATH, poll, polling, record

FUNCTIONS = sorted(app.parent.name for app in (REPOSITORY / "functions").glob("*/app.py"))
NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")
URL = "https://tempfile.aiquickdraw.com/r/1.png"

# Callbacks with the text in every field that is stored, logged or quoted in a response; by provider.
BODIES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "failure": ("flux-kontext", lambda text: {"code": 501, "msg": text}),
    "code": ("flux-kontext", lambda text: {"code": text, "msg": text}),
    "URL": (
        "flux-kontext",
        lambda text: {"code": 200, "data": {"info": {"resultImageUrl": text, "originImageUrl": URL}}},
    ),
    "path": ("flux-kontext", lambda text: {"code": 200, "data": {"info": {"resultImageUrl": f"{URL}/{text}"}}}),
    "record": (
        "nanobanana",
        lambda text: {
            "code": 200,
            "data": {
                "successFlag": 1,
                "paramJson": json.dumps({"prompt": text, "model": text, "size": text, text: text}),
                "response": {"resultImageUrl": URL},
                "createTime": text,
                "completeTime": text,
            },
        },
    ),
    "market": (
        "kie-market",
        lambda text: {
            "code": 200,
            "msg": text,
            "data": {
                "state": "fail",
                "failCode": text,
                "failMsg": text,
                "costTime": text,
                "param": json.dumps({"input": {"prompt": text}, "model": text}),
            },
        },
    ),
    "outputs": (
        "kie-market",
        lambda text: {"code": 200, "data": {"state": "success", "resultJson": [URL, text, f"{URL}{text}.mp4"]}},
    ),
    "state": ("kie-market", lambda text: {"code": 200, "data": {"state": text, text: text}}),
    "error": ("acedata", lambda text: {"success": False, "error": {"code": text, "message": text}, "trace_id": text}),
    "image": (
        "acedata",
        lambda text: {
            "success": True,
            "trace_id": text,
            "data": [{"image_url": URL, "prompt": text, "seed": text, "timings": {text: 1}}],
        },
    ),
}


@pytest.fixture(autouse=True)
def environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    boto3.client("s3").create_bucket(Bucket="images-bucket")
    boto3.client("events").create_event_bus(Name="tasks")
    for name, value in {
        "IMAGES_BUCKET": "images-bucket",
        "TASKS_TABLE": TABLE_NAME,
        "EVENT_BUS": "tasks",
        "CALLBACK_TOKEN_SECRET": a_secret("token", TOKEN),
        "PROVIDER_KEYS_SECRET": a_secret("every key", json.dumps(PROVIDER_KEYS)),
    }.items():
        monkeypatch.setenv(name, value)
    apps = (receive_callback, publish_events, poll_tasks)
    for app in apps:
        monkeypatch.setattr(app.logger.registered_handler, "stream", StandardOutput())
        app.dependencies.cache_clear()
    yield
    for app in apps:
        app.dependencies.cache_clear()


def log_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Returns the lines that the functions have logged, after checking that each is JSON in printable ASCII."""
    output = "".join(capsys.readouterr())
    assert not NOT_ASCII.search(output)
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_logs_lines_of_ascii(
    function: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each function has its own logger, as in Lambda; otherwise all share the logger that the first of them set up.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", function)
    app = SimpleNamespace(**run_path(str(REPOSITORY / "functions" / function / "app.py")))
    monkeypatch.setattr(app.logger.registered_handler, "stream", StandardOutput())

    for text in STRINGS:
        # The text is not in the message: pytest reports messages, and xdist cannot send half a surrogate pair.
        app.logger.warning("a text", task=text)

    assert [line["task"] for line in log_lines(capsys)] == list(STRINGS)


@pytest.mark.parametrize(("provider", "body"), BODIES.values(), ids=BODIES)
def test_callbacks_with_hostile_text_are_answered_and_logged_in_ascii(
    context: LambdaContext, capsys: pytest.CaptureFixture[str], provider: str, body: Callable[[str], Any]
) -> None:
    for number, text in enumerate(STRINGS):
        answer = receive_callback.handler(
            a_callback(body(text) | {"task_id": f"t{number}"}, provider=provider), context
        )
        assert answer["statusCode"] in (200, 422)
        assert not NOT_ASCII.search(answer["body"])

    assert len(log_lines(capsys)) >= 2 * len(STRINGS)


@pytest.mark.parametrize(
    "event",
    [
        lambda text: a_callback({"code": 501, "taskId": text}),
        lambda text: a_callback({"code": 501, "taskId": "t"}, provider=text),
        lambda text: a_callback({"code": 501, "taskId": "t"}, token=text),
        lambda text: a_callback({"code": 501, "taskId": "t"}, queryStringParameters={"ref": text, text: text}),
        lambda text: a_callback(text, headers={"content-type": text, "user-agent": text, "date": text, text: text}),
        lambda text: a_callback(json.dumps({text: text, "code": 501})),
    ],
    ids=["task id", "provider", "token", "reference", "headers", "names"],
)
def test_requests_with_hostile_text_in_other_parts_are_answered_and_logged_in_ascii(
    context: LambdaContext, capsys: pytest.CaptureFixture[str], event: Callable[[str], dict[str, Any]]
) -> None:
    for text in STRINGS:
        answer = receive_callback.handler(event(text), context)
        assert answer["statusCode"] in (200, 400, 401, 404, 422)
        assert not NOT_ASCII.search(answer["body"])

    assert len(log_lines(capsys)) >= len(STRINGS)


def test_poll_responses_with_hostile_text_are_recorded_and_logged_in_ascii(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def text_of(task_id: str) -> str:
        return STRINGS[int(task_id.removeprefix("t"))]

    def flux(request: httpx.Request) -> httpx.Response:
        text = text_of(request.url.params["taskId"])
        return record(request, successFlag=3, errorCode=text, errorMessage=text, paramJson=json.dumps({"prompt": text}))

    def market(request: httpx.Request) -> httpx.Response:
        text = text_of(request.url.params["taskId"])
        return httpx.Response(200, json={"code": 500, "msg": text})

    def ace(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            400, json={"error": {"code": STRINGS[0], "message": "".join(STRINGS)}, "trace_id": STRINGS[0]}
        )

    numbers = range(0, len(STRINGS), MAX_TASKS_PER_EXECUTION)
    with polling(monkeypatch) as providers:
        providers.answers = {FLUX_PATH: flux, MARKET_PATH: market, ACE_PATH: ace}
        for provider in ("flux-kontext", "kie-market", "acedata"):
            for first in numbers:
                tasks = [
                    f"{provider}#t{number}"
                    for number in range(first, min(first + MAX_TASKS_PER_EXECUTION, len(STRINGS)))
                ]
                store.register(*tasks)
                poll(*tasks, wait_seconds=120, waited_seconds=21_480)

    assert {item["status"] for item in store.items()} == {"FAILED", "TIMED_OUT"}
    assert len(log_lines(capsys)) > 2 * len(STRINGS)


class Bus:
    """An event bus that accepts all events and records their details."""

    def __init__(self) -> None:
        self.details: list[str] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - as boto3
        self.details += [entry["Detail"] for entry in Entries]
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"} for _ in Entries]}


def a_stream_record(item: dict[str, Any]) -> dict[str, Any]:
    change = {
        "ApproximateCreationDateTime": 1767658627,
        "Keys": {"task": item["task"]},
        "NewImage": item,
        "SequenceNumber": "10000000000000000000000",
    }
    return {"eventID": "1", "eventName": "INSERT", "eventSource": "aws:dynamodb", "dynamodb": change}


@pytest.mark.parametrize("kind", ["failure", "record", "market", "error", "image"])
def test_events_contain_hostile_text_as_json_strings(
    store: Store, context: LambdaContext, capsys: pytest.CaptureFixture[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, body = BODIES[kind]
    # All kinds of strings in one field, and some of each kind in the others.
    texts = STRINGS if kind == "failure" else STRINGS[::4]
    for number, text in enumerate(texts):
        receive_callback.handler(a_callback(body(text) | {"task_id": f"t{number}"}, provider=provider), context)
    items = store.client.scan(TableName=TABLE_NAME)["Items"]
    assert len(items) == len(texts)
    for item in items:
        if item["status"]["S"] == TaskStatus.SUCCEEDED:
            item["status"] = {"S": TaskStatus.INCOMPLETE.value}
            for image in item["images"]["L"]:
                image["M"]["state"] = {"S": "REJECTED"}
    bus = Bus()
    monkeypatch.setattr(publish_events.dependencies(), "events", bus)

    answer = publish_events.handler({"Records": [a_stream_record(item) for item in items]}, context)

    assert answer == {"batchItemFailures": []}
    assert len(bus.details) == len(items)
    for detail, item in zip(bus.details, items, strict=True):
        assert not re.search(r"[\x00-\x1f]", detail)
        event = json.loads(detail)
        assert event["task"] == item["task"]["S"]
        if "failure" in item:
            assert event["failure"]["message"] == item["failure"]["M"]["message"]["S"]
    assert log_lines(capsys)
