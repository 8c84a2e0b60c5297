"""PublishEvents against EventBridge in memory, with a queue that receives the events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from boto3.dynamodb.types import TypeSerializer

from catchlight.aws import outages
from catchlight.errors import SettingsError
from catchlight.events import DETAIL_TYPES
from catchlight.models import TaskStatus, iso
from functions.publish_events import app
from tests.integration.fault_injection import OutageClock, counted, every_aws_fault, failing, install_clock, reported
from tests.integration.functions import an_event, metric_lines

BUS = "catchlight-tasks"

_serialize = TypeSerializer().serialize


@dataclass
class Subscriber:
    """A queue that a rule for all events on the bus sends to."""

    sqs: Any
    queue_url: str

    def received(self) -> list[dict[str, Any]]:
        """Returns the events received since the last call, in their order."""
        events = []
        while batch := self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
                events.append(json.loads(message["Body"]))
        return events

    def tasks(self) -> list[str]:
        """Returns the tasks of the events received since the last call."""
        return [event["detail"]["task"] for event in self.received()]


@pytest.fixture
def subscriber(aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subscriber]:
    events, sqs = boto3.client("events"), boto3.client("sqs")
    queue_url = sqs.create_queue(QueueName="subscriber")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name=BUS)
    events.put_rule(Name="everything", EventBusName=BUS, EventPattern='{"source": [{"prefix": ""}]}')
    events.put_targets(Rule="everything", EventBusName=BUS, Targets=[{"Id": "queue", "Arn": arn}])
    monkeypatch.setenv("EVENT_BUS", BUS)
    app.dependencies.cache_clear()
    yield Subscriber(sqs, queue_url)
    app.dependencies.cache_clear()


def a_record(number: int, new: str | None, old: str | None = None, **attributes: Any) -> dict[str, Any]:
    """Returns a stream record of a task that has changed from one status to another."""
    task = attributes.pop("task", f"flux-kontext#task{number}")
    keys = {"task": {"S": task}}
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": 1767658627,
        "Keys": keys,
        "SequenceNumber": f"1000000000{number:011}",
    }
    if new is not None:
        plain = {"status": new, "updatedAt": f"2026-01-06T00:17:07.{number:03}Z", **attributes}
        change["NewImage"] = keys | {name: _serialize(value) for name, value in plain.items() if value}
    if old is not None:
        change["OldImage"] = keys | ({"status": {"S": old}} if old else {})
    name = "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"
    return {"eventID": str(number), "eventName": name, "eventSource": "aws:dynamodb", "dynamodb": change}


def publish(records: list[dict[str, Any]], context: LambdaContext) -> list[str]:
    """Returns the sequence numbers from which the stream is read again."""
    answer = app.handler({"Records": records}, context)
    assert answer.keys() == {"batchItemFailures"}
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


# ------------------------------------------------------------------------------------------------ published events


def test_the_example_batch_is_published_as_the_example_events(subscriber: Subscriber, context: LambdaContext) -> None:
    assert publish(an_event("dynamodb_stream_ends.json")["Records"], context) == []

    received = subscriber.received()
    names = ("failed", "archived", "incomplete", "timed_out", "unconfirmed")
    expected = [an_event(f"task_events/{name}.json") for name in names]
    compared = ("source", "detail-type", "time", "detail")
    assert [[event[name] for name in compared] for event in received] == [
        [event[name] for name in compared] for event in expected
    ]


def test_statuses_that_are_not_final_have_no_event(subscriber: Subscriber, context: LambdaContext) -> None:
    assert publish(an_event("dynamodb_stream.json")["Records"], context) == []

    assert subscriber.received() == []


@pytest.mark.parametrize("status", DETAIL_TYPES)
def test_a_task_that_is_put_with_a_final_status_has_an_event(
    subscriber: Subscriber, context: LambdaContext, status: TaskStatus
) -> None:
    assert publish([a_record(1, status)], context) == []

    (event,) = subscriber.received()
    assert event["detail-type"] == DETAIL_TYPES[status]


@pytest.mark.parametrize("status", DETAIL_TYPES)
def test_a_write_without_a_change_of_the_final_status_has_no_event(
    subscriber: Subscriber, context: LambdaContext, status: TaskStatus
) -> None:
    assert publish([a_record(1, status, status), a_record(2, None, status)], context) == []

    assert subscriber.received() == []


def test_more_events_than_one_call_accepts_are_published_in_order(
    subscriber: Subscriber, context: LambdaContext
) -> None:
    assert publish([a_record(number, "ARCHIVED", "SUCCEEDED") for number in range(23)], context) == []

    assert subscriber.tasks() == [f"flux-kontext#task{number}" for number in range(23)]


@pytest.mark.parametrize("task", ["task1", "#task1", "flux-kontext#", "flux-kontext#a b", ""])
def test_an_item_that_is_not_a_task_does_not_stop_the_others(
    subscriber: Subscriber, context: LambdaContext, task: str
) -> None:
    assert publish([a_record(1, "FAILED", task=task), a_record(2, "FAILED")], context) == []

    assert subscriber.tasks() == ["flux-kontext#task2"]


def test_published_events_are_counted_by_provider(
    subscriber: Subscriber, context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [a_record(number, "FAILED") for number in range(2)] + [a_record(3, "FAILED", task="acedata#task3")]

    publish(records, context)

    counted = {line["provider"]: line["EventsPublished"] for line in metric_lines(capsys)}
    assert counted == {"flux-kontext": [2.0], "acedata": [1.0]}


# ------------------------------------------------------------------------------------------------ repetition


def test_a_repeated_batch_is_published_with_the_same_ids(subscriber: Subscriber, context: LambdaContext) -> None:
    records = an_event("dynamodb_stream_ends.json")["Records"]

    publish(records, context)
    first = subscriber.received()
    publish(records, context)
    second = subscriber.received()

    assert [event["detail"] for event in first] == [event["detail"] for event in second]
    assert {event["id"] for event in first}.isdisjoint(event["id"] for event in second)


def test_a_task_has_one_event_for_each_final_status(subscriber: Subscriber, context: LambdaContext) -> None:
    history = ["FAILED", "SUCCEEDED", "INCOMPLETE", "SUCCEEDED", "INCOMPLETE", "SUCCEEDED", "ARCHIVED"]
    records = [
        a_record(number, new, old, task="flux-kontext#task1")
        for number, (old, new) in enumerate(zip([None, *history], history, strict=False))
    ]

    assert publish(records, context) == []

    details = [event["detail"] for event in subscriber.received()]
    assert [detail["status"] for detail in details] == ["FAILED", "INCOMPLETE", "INCOMPLETE", "ARCHIVED"]
    assert len({detail["eventId"] for detail in details}) == len(details)
    changed_at = [detail["changedAt"] for detail in details]
    assert changed_at == sorted(changed_at)


# ------------------------------------------------------------------------------------------------ faults


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> OutageClock:
    return install_clock(monkeypatch, app, outages)


@every_aws_fault
def test_events_are_published_after_an_outage_of_the_bus(
    subscriber: Subscriber,
    context: LambdaContext,
    clock: OutageClock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
) -> None:
    records = [a_record(number, "ARCHIVED", "SUCCEEDED") for number in range(25)]

    def fail_for_a_while(**_: Any) -> None:
        if clock.now < 1030:
            raise fault

    app.dependencies().events.meta.events.register("before-call.events.PutEvents", fail_for_a_while)

    assert publish(records, context) == []
    assert clock.pauses == [1, 2, 4, 8, 15]
    assert reported(caplog.records, "flux-kontext#task0") == {type(fault).__name__}
    assert counted(capsys) == [type(fault).__name__] * 5
    assert subscriber.tasks() == [f"flux-kontext#task{number}" for number in range(25)]


@every_aws_fault
def test_the_stream_is_read_again_from_the_first_failed_call(
    subscriber: Subscriber, context: LambdaContext, clock: OutageClock, fault: Exception
) -> None:
    records = [a_record(number, "ARCHIVED", "SUCCEEDED") for number in range(25)]
    calls = []

    def fail_after_the_first(**_: Any) -> None:
        calls.append("PutEvents")
        if len(calls) > 1:
            raise fault

    app.dependencies().events.meta.events.register("before-call.events.PutEvents", fail_after_the_first)

    assert publish(records, context) == [records[10]["dynamodb"]["SequenceNumber"]]
    # The function has 60 s. It stops early enough for a last call.
    assert clock.pauses == [1, 2, 4, 8, 15, 15]
    # No event after the failed call is published.
    app.dependencies().events.meta.events.unregister("before-call.events.PutEvents", fail_after_the_first)
    assert subscriber.tasks() == [f"flux-kontext#task{number}" for number in range(10)]

    assert publish(records[10:], context) == []
    assert subscriber.tasks() == [f"flux-kontext#task{number}" for number in range(10, 25)]


def refuse_two_of_the_second_call(code: str) -> list[str]:
    """Makes EventBridge reject two entries of the second call. Returns the list of calls, which grows."""
    calls: list[str] = []

    def refuse(parsed: dict[str, Any], **_: Any) -> None:
        calls.append("PutEvents")
        if len(calls) == 2:
            for place in (3, 6):
                parsed["Entries"][place] = {"ErrorCode": code, "ErrorMessage": "no"}
            parsed["FailedEntryCount"] = 2

    app.dependencies().events.meta.events.register("after-call.events.PutEvents", refuse)
    return calls


def test_an_entry_with_a_temporary_error_is_put_again(
    subscriber: Subscriber, context: LambdaContext, clock: OutageClock
) -> None:
    records = [a_record(number, "FAILED") for number in range(25)]
    refuse_two_of_the_second_call("InternalFailure")

    assert publish(records, context) == []
    assert clock.pauses == [1]
    # Events of the second call after the first refused one are published twice.
    published = subscriber.tasks()
    assert published[:20] == [f"flux-kontext#task{number}" for number in range(20)]
    assert published[20:] == [f"flux-kontext#task{number}" for number in range(13, 25)]


def test_the_stream_is_read_again_from_an_entry_that_eventbridge_rejects(
    subscriber: Subscriber,
    context: LambdaContext,
    clock: OutageClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [a_record(number, "FAILED") for number in range(25)]
    calls = refuse_two_of_the_second_call("InvalidArgument")

    assert publish(records, context) == [records[13]["dynamodb"]["SequenceNumber"]]
    assert len(calls) == 2
    assert clock.pauses == []
    refused, line = metric_lines(capsys)
    assert (refused["reason"], refused["ProcessingErrors"]) == ("InvalidArgument", [1.0])
    assert line["EventsPublished"] == [13.0]

    # Events of the second call after the rejected entry are published twice.
    subscriber.received()
    assert publish(records[13:], context) == []
    assert subscriber.tasks() == [f"flux-kontext#task{number}" for number in range(13, 25)]


def test_an_item_that_cannot_become_an_event_fails_its_record_and_is_logged(
    subscriber: Subscriber, context: LambdaContext, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        a_record(1, "ARCHIVED", "SUCCEEDED"),
        a_record(2, "ARCHIVED", "SUCCEEDED", images="a note of the user"),
        a_record(3, "ARCHIVED", "SUCCEEDED"),
    ]

    # The event source repeats the record until its retries are used up, and then sends it to the dead-letter queue.
    assert publish(records, context) == [records[1]["dynamodb"]["SequenceNumber"]]
    assert publish(records[1:2], context) == [records[1]["dynamodb"]["SequenceNumber"]]
    assert publish(records[2:], context) == []

    assert subscriber.tasks() == ["flux-kontext#task1", "flux-kontext#task3"]
    errors = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert {error["task"] for error in errors} == {"flux-kontext#task2"}
    assert any("images" in error.get("reason", "") for error in errors)


def test_an_archived_task_with_an_image_that_is_not_archived_has_no_event(
    subscriber: Subscriber, context: LambdaContext
) -> None:
    image = {"kind": "result", "url": "https://a.example", "expiresAt": iso(datetime.now().astimezone())}
    record = a_record(1, "ARCHIVED", "SUCCEEDED", images=[image])

    assert publish([record], context) == [record["dynamodb"]["SequenceNumber"]]
    assert subscriber.received() == []


def test_a_bug_in_a_call_is_reported_and_not_retried(
    subscriber: Subscriber,
    context: LambdaContext,
    clock: OutageClock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [a_record(number, "FAILED") for number in range(12)]

    with failing("PutEvents", KeyError("bug"), when=lambda parameters: len(parameters["Entries"]) == 2):
        assert publish(records, context) == [records[10]["dynamodb"]["SequenceNumber"]]

    assert clock.pauses == []  # this error is permanent
    for task in ("flux-kontext#task10", "flux-kontext#task11"):
        assert reported(caplog.records, task) == {"KeyError"}
    assert counted(capsys) == ["KeyError"]
    assert subscriber.tasks() == [f"flux-kontext#task{number}" for number in range(10)]


@pytest.mark.parametrize(
    "broken",
    [
        {"Keys": {}},
        {"ApproximateCreationDateTime": "yesterday"},
        {"NewImage": {"status": "FAILED"}},
        {"NewImage": {"task": {"S": "flux-kontext#task1"}, "status": {"S": "FAILED"}, "images": {"X": "?"}}},
    ],
    ids=str,
)
def test_a_malformed_record_is_reported_and_the_records_before_it_are_published(
    subscriber: Subscriber,
    context: LambdaContext,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    broken: dict[str, Any],
) -> None:
    records = [a_record(number, "FAILED") for number in range(3)]
    records[1]["dynamodb"] |= broken

    assert publish(records, context) == [records[1]["dynamodb"]["SequenceNumber"]]

    assert subscriber.tasks() == ["flux-kontext#task0"]
    assert any(record.exc_info for record in caplog.records if record.levelname == "ERROR")
    assert len(counted(capsys)) == 1


def test_a_malformed_record_is_logged_with_its_sequence_number(
    subscriber: Subscriber, context: LambdaContext, caplog: pytest.LogCaptureFixture
) -> None:
    record = a_record(1, "FAILED")
    record["dynamodb"]["NewImage"] = {"status": "FAILED"}

    publish([record], context)

    (error,) = [vars(each) for each in caplog.records if each.message.startswith("no event can be made")]
    assert error["sequence_number"] == record["dynamodb"]["SequenceNumber"]


def test_missing_settings_fail_the_batch(
    subscriber: Subscriber,
    context: LambdaContext,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A response without failures would let the stream continue, and the events would be lost.
    monkeypatch.delenv("EVENT_BUS")

    with pytest.raises(SettingsError, match="EVENT_BUS"):
        publish([a_record(1, "FAILED")], context)
    assert reported(caplog.records, "flux-kontext#task1") == {"SettingsError"}
