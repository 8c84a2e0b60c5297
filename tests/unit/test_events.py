"""The files under events/: each one is used, and has the format of the real event."""

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer

from catchlight.dispatch import PollState
from catchlight.models import split_task_key
from catchlight.providers import PROVIDERS
from catchlight.providers.kie import verify_signature
from catchlight.providers.payloads import decode_json
from catchlight.tasks.task import Task
from tests.canary_secrets import CALLBACK_TOKEN as TOKEN
from tests.unit.providers.cases import EVENTS, body_of, load
from tests.unit.providers.expected_callbacks import CALLBACKS
from tests.unit.providers.expected_polls import POLLS

FROM_AWS = ("dynamodb_stream.json", "dynamodb_stream_ends.json", "sqs_archive.json", "poll_tasks_input.json")
# The final statuses in the stream's batch, in their order.
TASK_EVENTS = (
    *("task_events/failed.json", "task_events/archived.json"),
    *("task_events/incomplete.json", "task_events/timed_out.json", "task_events/unconfirmed.json"),
)
STREAMS = ("dynamodb_stream.json", "dynamodb_stream_ends.json")
ROUTE = "POST /callbacks/{provider}/{token+}"


def test_every_file_has_an_expectation_and_every_expectation_a_file() -> None:
    files = {path.relative_to(EVENTS).as_posix() for path in EVENTS.rglob("*.json")}
    assert files == {*CALLBACKS, *POLLS, *FROM_AWS, *TASK_EVENTS}


def test_the_readme_lists_every_file() -> None:
    rows = re.findall(r"^\| (\S+\.json) \|", (EVENTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [*CALLBACKS, *POLLS, *FROM_AWS, *TASK_EVENTS]


@pytest.mark.parametrize("path", CALLBACKS)
def test_a_callback_is_an_event_of_payload_format_2_0(path: str) -> None:
    event = load(path)
    _, provider, _ = path.split("/")
    assert set(event) == {
        *("version", "routeKey", "rawPath", "rawQueryString", "headers", "requestContext"),
        *("pathParameters", "body", "isBase64Encoded"),
    }
    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["routeKey"] == ROUTE
    assert event["pathParameters"]["provider"] == provider
    assert event["pathParameters"]["token"].removesuffix("/") == TOKEN
    parameters = event["pathParameters"]
    assert event["rawPath"] == f"/callbacks/{parameters['provider']}/{parameters['token']}"
    http = event["requestContext"]["http"]
    assert (http["method"], http["path"], http["protocol"]) == ("POST", event["rawPath"], "HTTP/1.1")
    assert all(name == name.lower() and isinstance(value, str) for name, value in event["headers"].items())
    assert http["userAgent"] == event["headers"]["user-agent"]
    assert http["sourceIp"] == event["headers"]["x-forwarded-for"]
    assert event["requestContext"]["domainName"] == event["headers"]["host"]
    sent_at = datetime.fromtimestamp(event["requestContext"]["timeEpoch"] / 1000, UTC)
    assert event["requestContext"]["time"] == sent_at.strftime("%d/%b/%Y:%H:%M:%S +0000")


@pytest.mark.parametrize("path", CALLBACKS)
def test_a_callback_has_strict_json_of_the_declared_length(path: str) -> None:
    event = load(path)
    body = base64.b64decode(event["body"], validate=True) if event["isBase64Encoded"] else event["body"].encode()
    assert event["headers"]["content-length"] == str(len(body))
    assert decode_json(body) == body_of(event)


def test_one_callback_is_base64_encoded() -> None:
    event = load("callbacks/flux-kontext/base64.json")
    assert event["isBase64Encoded"]
    assert body_of(event) == body_of(load("callbacks/flux-kontext/success.json"))


def test_one_callback_is_signed() -> None:
    headers = load("callbacks/flux-kontext/signed.json")["headers"]
    digest = hmac.new(b"k3y", b"task12345.1700000000", hashlib.sha256).digest()
    assert headers["x-webhook-signature"] == base64.b64encode(digest).decode()
    verify_signature(headers, "task12345", ["k3y"], now=datetime.fromtimestamp(1700000000, UTC))


def _items(record: dict[str, Any]) -> tuple[Task | None, Task | None]:
    """Returns the task before and after a stream record."""
    deserialize = TypeDeserializer().deserialize
    images = (record["dynamodb"].get(name) for name in ("OldImage", "NewImage"))
    old, new = (
        Task.model_validate({name: deserialize(value) for name, value in image.items()}) if image else None
        for image in images
    )
    return old, new


def test_the_stream_contains_one_record_of_each_kind() -> None:
    records = load("dynamodb_stream.json")["Records"]
    changes = []
    for record in records:
        old, new = _items(record)
        changes.append((record["eventName"], old and old.status.value, new and new.status.value))
    assert changes == [
        ("INSERT", None, "PENDING"),
        ("INSERT", None, "SUCCEEDED"),
        ("MODIFY", "PENDING", "SUCCEEDED"),
        ("MODIFY", "SUCCEEDED", "SUCCEEDED"),
        ("REMOVE", "PENDING", None),
    ]


def test_the_other_stream_contains_every_final_status() -> None:
    changes = []
    for record in load("dynamodb_stream_ends.json")["Records"]:
        old, new = _items(record)
        changes.append((record["eventName"], old and old.status.value, new and new.status.value))
    assert changes == [
        ("INSERT", None, "FAILED"),
        ("MODIFY", "SUCCEEDED", "ARCHIVED"),
        ("MODIFY", "ARCHIVED", "ARCHIVED"),
        ("MODIFY", "SUCCEEDED", "INCOMPLETE"),
        ("MODIFY", "PENDING", "TIMED_OUT"),
        ("MODIFY", "SUCCEEDED", "UNCONFIRMED"),
    ]


@pytest.mark.parametrize("stream", STREAMS)
def test_stream_records_have_the_format_of_aws(stream: str) -> None:
    records = load(stream)["Records"]
    for record in records:
        old, new = _items(record)
        assert (record["eventVersion"], record["eventSource"]) == ("1.1", "aws:dynamodb")
        assert record["dynamodb"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"
        assert {record["dynamodb"]["Keys"]["task"]["S"]} == {task.task for task in (old, new) if task}
    sequence_numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
    assert sequence_numbers == sorted(set(sequence_numbers), key=int)
    assert len({record["eventID"] for record in records}) == len(records)


def test_the_image_state_is_all_that_changes_in_the_last_modification() -> None:
    (record,) = (
        record
        for record in load("dynamodb_stream.json")["Records"]
        if record["eventName"] == "MODIFY" and record["dynamodb"]["OldImage"]["status"]["S"] == "SUCCEEDED"
    )
    old, new = _items(record)
    assert old
    assert new
    assert [image.state for image in old.images] == ["PENDING", "PENDING"]
    assert [image.state for image in new.images] == ["ARCHIVED", "PENDING"]


def test_each_queue_message_names_one_task() -> None:
    records = load("sqs_archive.json")["Records"]
    assert [json.loads(record["body"]) for record in records] == [
        {"task": "flux-kontext#task12345"},
        {"task": "nanobanana#9e4286b7b27960dfeb8e1d279b50b28d"},
    ]
    for record in records:
        assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()
        assert record["eventSource"] == "aws:sqs"


def test_the_state_machine_starts_with_tasks_of_every_provider() -> None:
    state = PollState.model_validate(load("poll_tasks_input.json"))
    assert {split_task_key(task)[0] for task in state.tasks} == set(PROVIDERS)
    assert (state.wait_seconds, state.waited_seconds) == (0, 120)
