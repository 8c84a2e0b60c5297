"""DispatchChanges against SQS in memory: the follow-ups of changes, and faults of SQS and DynamoDB."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError
from moto.sqs.models import sqs_backends

from catchlight.aws import outages
from catchlight.errors import SettingsError
from catchlight.models import TaskStatus
from catchlight.tasks.by_status import TasksByStatus
from functions.dispatch_changes import app
from local.account import ACCOUNT_ID, REGION
from tests.conftest import FakeLambdaContext
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.fault_injection import (
    AWS_FAULTS,
    OutageClock,
    counted,
    every_aws_fault,
    every_fault,
    failing,
    install_clock,
    reported,
)
from tests.integration.functions import an_event
from tests.unit.template.expanded import FUNCTIONS

FIRST_POLL_AFTER_SECONDS = 60
# Attributes that every item has if the stack has written it.
COMPLETE = dict.fromkeys(["provider", "taskId", "rank", "updatedAt", "feed", "arrivedAt"], "x")


@dataclass
class Outbox:
    """The queues of the follow-ups, and the dead-letter queue."""

    sqs: Any
    queue_url: str

    def messages(self) -> list[str]:
        """Returns the tasks queued for archiving since the last call, in their order."""
        queued = []
        while batch := self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages"):
            queued += [json.loads(message["Body"])["task"] for message in batch]
        return queued

    def dead_letters(self) -> list[dict[str, str]]:
        """Returns the messages moved to the dead-letter queue since the last call."""
        queue = sqs_backends[ACCOUNT_ID][REGION].get_queue("dead")
        found, queue._messages[:] = [json.loads(message.body) for message in queue._messages], []
        return found

    def polls(self) -> list[tuple[str, int]]:
        """Returns the tasks queued for polling since the last call, in their order, with their delay in seconds."""
        queue = sqs_backends[ACCOUNT_ID][REGION].get_queue("poll")
        found, queue._messages[:] = list(queue._messages), []
        return [
            (
                json.loads(message.body)["task"],
                round((message.delayed_until - message.sent_timestamp) / 1000) if message.delayed_until else 0,
            )
            for message in found
        ]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> OutageClock:
    return install_clock(monkeypatch, app, outages)


@pytest.fixture
def outbox(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    sqs = boto3.client("sqs")
    queue_url = sqs.create_queue(QueueName="archive")["QueueUrl"]
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("ARCHIVE_QUEUE_URL", queue_url)
    monkeypatch.setenv("POLL_QUEUE_URL", sqs.create_queue(QueueName="poll")["QueueUrl"])
    monkeypatch.setenv("DISPATCH_DEAD_LETTERS_URL", sqs.create_queue(QueueName="dead")["QueueUrl"])
    monkeypatch.setenv("FIRST_POLL_AFTER_SECONDS", str(FIRST_POLL_AFTER_SECONDS))
    app.dependencies.cache_clear()
    yield Outbox(sqs, queue_url)
    app.dependencies.cache_clear()


def a_record(
    number: int,
    new: str | None,
    old: str | None = None,
    *,
    event: str = "",
    task: str = "",
    reported_by: str = "",
) -> dict[str, Any]:
    """Returns a stream record of a task that has changed from one status to another."""
    change: dict[str, Any] = {
        "Keys": {"task": {"S": task or f"flux-kontext#task{number}"}},
        "SequenceNumber": f"1000000000{number:011}",
    }
    if new is not None:
        attributes = {"status": new, "reportedBy": reported_by, **COMPLETE}
        change["NewImage"] = change["Keys"] | {name: {"S": value} for name, value in attributes.items() if value}
    if old is not None:
        change["OldImage"] = change["Keys"] | ({"status": {"S": old}} if old else {})
    name = event or ("INSERT" if old is None else "REMOVE" if new is None else "MODIFY")
    return {"eventID": str(number), "eventName": name, "eventSource": "aws:dynamodb", "dynamodb": change}


def dispatch(records: list[dict[str, Any]], context: LambdaContext) -> list[str]:
    """Handles records. Returns the sequence number from which the stream is read again, if any."""
    answer = app.handler({"Records": records}, context)
    assert answer.keys() == {"batchItemFailures"}
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


# ------------------------------------------------------------------------------------------------ follow-ups


def test_the_example_batch_is_dispatched(outbox: Outbox, context: LambdaContext) -> None:
    event = an_event("dynamodb_stream.json")
    changes = [
        (record["dynamodb"]["Keys"]["task"]["S"], record["eventName"], record["dynamodb"]["NewImage"]["status"]["S"])
        for record in event["Records"]
        if "NewImage" in record["dynamodb"]
    ]
    assert dispatch(event["Records"], context) == []

    new = [task for task, name, status in changes if (name, status) == ("INSERT", "PENDING")]
    assert new
    assert outbox.polls() == [(task, FIRST_POLL_AFTER_SECONDS) for task in new]
    succeeded = outbox.messages()
    assert succeeded
    assert set(succeeded) <= {task for task, _, status in changes if status == "SUCCEEDED"}


@pytest.mark.parametrize("old", [None, "PENDING", "TIMED_OUT"])
def test_a_hint_of_a_callback_starts_a_poll_at_once(outbox: Outbox, context: LambdaContext, old: str | None) -> None:
    hint, other = a_record(1, old or "PENDING", old), a_record(2, "PENDING")
    hint["dynamodb"]["NewImage"] |= {"hintedAt": {"S": "2026-01-31T12:00:00.000Z"}, "deliveries": {"N": "1"}}
    repeated = a_record(3, "PENDING", "PENDING")
    for image in ("OldImage", "NewImage"):
        repeated["dynamodb"][image]["hintedAt"] = {"S": "2026-01-31T12:00:00.000Z"}

    assert dispatch([hint, other, repeated], context) == []

    assert dict(outbox.polls()) == {"flux-kontext#task1": 0, "flux-kontext#task2": FIRST_POLL_AFTER_SECONDS}


@pytest.mark.parametrize("old", [None, "PENDING", "TIMED_OUT"])
def test_the_original_of_a_task_without_a_result_is_queued_for_download(
    outbox: Outbox, context: LambdaContext, old: str | None
) -> None:
    with_original = {"hintedAt": {"S": "2026-01-31T12:00:00.000Z"}, "images": {"L": []}}
    by_callback, by_poll = a_record(1, old or "PENDING", old), a_record(2, "PENDING", "PENDING")
    by_callback["dynamodb"]["NewImage"] |= with_original | {"deliveries": {"N": "1"}}
    by_poll["dynamodb"]["NewImage"] |= with_original
    unchanged = a_record(3, "PENDING", "PENDING")
    for image in ("OldImage", "NewImage"):
        unchanged["dynamodb"][image] |= with_original

    assert dispatch([by_callback, by_poll, unchanged], context) == []

    assert outbox.messages() == ["flux-kontext#task1", "flux-kontext#task2"]
    # The second task needs no message: the execution that found its original continues to poll it.
    assert outbox.polls() == [("flux-kontext#task1", 0)]


def test_a_repeated_callback_of_an_unconfirmed_task_starts_a_poll(outbox: Outbox, context: LambdaContext) -> None:
    repeated = a_record(1, "UNCONFIRMED", "UNCONFIRMED", reported_by="callback")
    repeated["dynamodb"]["NewImage"] |= {"hintedAt": {"S": "2026-01-31T12:00:00.000Z"}, "deliveries": {"N": "2"}}

    assert dispatch([repeated, a_record(2, "UNCONFIRMED", "UNCONFIRMED", reported_by="callback")], context) == []

    assert (outbox.polls(), outbox.messages()) == ([("flux-kontext#task1", 0)], [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, "SUCCEEDED"),
        ("PENDING", "SUCCEEDED"),
        ("TIMED_OUT", "SUCCEEDED"),
        ("FAILED", "SUCCEEDED"),
        ("", "SUCCEEDED"),
    ],
)
def test_a_task_that_has_just_succeeded_is_archived(
    outbox: Outbox, context: LambdaContext, old: str | None, new: str
) -> None:
    assert dispatch([a_record(1, new, old)], context) == []

    assert outbox.messages() == ["flux-kontext#task1"]
    assert outbox.polls() == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SUCCEEDED", "SUCCEEDED"),  # a delivery was counted, or an image archived
        ("SUCCEEDED", "ARCHIVED"),
        ("SUCCEEDED", "INCOMPLETE"),
        ("PENDING", "PENDING"),
        ("PENDING", "FAILED"),
        ("PENDING", "TIMED_OUT"),
        ("TIMED_OUT", "FAILED"),
        ("SUCCEEDED", None),
        ("PENDING", None),
        (None, "FAILED"),
        (None, "ARCHIVED"),
        (None, "NEW"),
        (None, ""),
    ],
)
def test_other_changes_start_nothing(outbox: Outbox, context: LambdaContext, old: str | None, new: str | None) -> None:
    assert dispatch([a_record(1, new, old)], context) == []

    assert outbox.messages() == []
    assert outbox.polls() == []


@pytest.mark.parametrize(
    ("old", "new", "reported_by"),
    [
        ("SUCCEEDED", "PENDING", ""),  # the provider did not confirm the report of a callback
        ("FAILED", "PENDING", ""),
        (None, "FAILED", "callback"),  # never registered
        ("TIMED_OUT", "FAILED", "callback"),  # polling gave up
    ],
)
def test_a_task_without_an_execution_is_polled_at_once(
    outbox: Outbox, context: LambdaContext, old: str | None, new: str, reported_by: str
) -> None:
    assert dispatch([a_record(1, new, old, reported_by=reported_by)], context) == []

    assert outbox.polls() == [("flux-kontext#task1", 0)]
    assert outbox.messages() == []


@pytest.mark.parametrize(
    ("old", "reported_by"),
    [
        (None, "poll"),
        ("TIMED_OUT", "poll"),
        ("PENDING", "callback"),  # the message of its first poll, or its running execution, confirms it
        ("SUCCEEDED", "poll"),
        ("FAILED", "callback"),  # confirmed just now, or counted
    ],
)
def test_a_failure_that_is_confirmed_or_already_polled_starts_no_poll(
    outbox: Outbox, context: LambdaContext, old: str | None, reported_by: str
) -> None:
    assert dispatch([a_record(1, "FAILED", old, reported_by=reported_by)], context) == []

    assert (outbox.messages(), outbox.polls()) == ([], [])


def test_each_task_has_a_message_of_its_own(outbox: Outbox, context: LambdaContext) -> None:
    records = [a_record(number, "PENDING") for number in range(23)]

    assert dispatch(records, context) == []

    assert outbox.polls() == [(f"flux-kontext#task{number}", FIRST_POLL_AFTER_SECONDS) for number in range(23)]


def test_more_messages_than_one_call_accepts_are_queued_in_order(outbox: Outbox, context: LambdaContext) -> None:
    assert dispatch([a_record(number, "SUCCEEDED", "PENDING") for number in range(23)], context) == []

    assert outbox.messages() == [f"flux-kontext#task{number}" for number in range(23)]


@pytest.mark.parametrize("task", ["task1", "#task1", "flux-kontext#", "flux-kontext#a b", ""])
@pytest.mark.parametrize("status", ["PENDING", "SUCCEEDED"])
def test_an_invalid_key_does_not_stop_the_others(
    outbox: Outbox, context: LambdaContext, task: str, status: str
) -> None:
    malformed = a_record(1, status)
    malformed["dynamodb"]["Keys"]["task"]["S"] = task

    assert dispatch([malformed, a_record(2, "PENDING"), a_record(3, "SUCCEEDED")], context) == []

    assert outbox.polls() == [("flux-kontext#task2", FIRST_POLL_AFTER_SECONDS)]
    assert outbox.messages() == ["flux-kontext#task3"]


@pytest.mark.parametrize(("status", "rank"), [("PENDING", 0), ("SUCCEEDED", 30)])
def test_an_item_with_key_and_status_only_gets_the_attributes_of_the_indexes(
    store: Store, outbox: Outbox, context: LambdaContext, status: str, rank: int
) -> None:
    store.put("flux-kontext#task1", status=status)
    record = a_record(1, status)
    for name in COMPLETE:
        del record["dynamodb"]["NewImage"][name]

    assert dispatch([record], context) == []

    (task,) = TasksByStatus(TABLE_NAME, store.client).tasks(TaskStatus(status))
    assert (task.task, task.rank) == ("flux-kontext#task1", rank)
    item = store.item("flux-kontext#task1") or {}
    assert (item["provider"], item["taskId"], item["feed"]) == ("flux-kontext", "task1", "tasks")
    assert item["arrivedAt"] == item["updatedAt"]
    assert outbox.polls() + [(task, 0) for task in outbox.messages()] == [
        ("flux-kontext#task1", FIRST_POLL_AFTER_SECONDS if status == "PENDING" else 0)
    ]

    # Existing attributes are not overwritten. An item that was deleted or has another status is not written.
    before = store.item("flux-kontext#task1")
    store.put("flux-kontext#task3", status="FAILED")
    deleted, changed = a_record(2, status), a_record(3, status)
    for image in (deleted["dynamodb"]["NewImage"], changed["dynamodb"]["NewImage"]):
        for name in COMPLETE:
            del image[name]
    assert dispatch([record, deleted, changed], context) == []
    assert store.item("flux-kontext#task1") == before
    assert store.item("flux-kontext#task2") is None
    assert store.item("flux-kontext#task3") == {"task": "flux-kontext#task3", "status": "FAILED"}


@every_aws_fault
def test_the_record_of_an_item_that_cannot_be_completed_is_read_again(
    store: Store, outbox: Outbox, context: LambdaContext, fault: Exception
) -> None:
    store.put("flux-kontext#task1", status="PENDING")
    record = a_record(1, "PENDING")
    del record["dynamodb"]["NewImage"]["updatedAt"]

    with failing("UpdateItem", fault):
        assert dispatch([record], context) == [record["dynamodb"]["SequenceNumber"]]

    assert len(outbox.polls()) == 1  # queued once, although the record is read again


def test_an_item_that_dynamodb_rejects_is_reported_and_does_not_stop_the_batch(
    store: Store, outbox: Outbox, context: LambdaContext, caplog: pytest.LogCaptureFixture
) -> None:
    too_large = ClientError({"Error": {"Code": "ValidationException", "Message": "too large"}}, "UpdateItem")
    records = [a_record(number, "PENDING") for number in (1, 2)]
    for number, record in enumerate(records, 1):
        store.put(f"flux-kontext#task{number}", status="PENDING")
        del record["dynamodb"]["NewImage"]["updatedAt"]

    with failing("UpdateItem", too_large, when=lambda parameters: parameters["Key"]["task"]["S"].endswith("1")):
        assert dispatch(records, context) == []

    assert len(outbox.polls()) == 2
    assert reported(caplog.records, "flux-kontext#task1") == {"StoreUnavailableError"}
    assert "updatedAt" in (store.item("flux-kontext#task2") or {})


# ------------------------------------------------------------------------------------------------ faults


@every_aws_fault
def test_messages_are_queued_after_an_outage_of_sqs(
    outbox: Outbox, context: LambdaContext, clock: OutageClock, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    records = [a_record(1, "PENDING"), *(a_record(number, "SUCCEEDED") for number in range(2, 27))]
    calls = []

    def fail_for_a_while(**_: Any) -> None:
        calls.append("SendMessageBatch")
        if clock.now < 1015:
            raise fault

    app.dependencies().archive_queue._sqs.meta.events.register("before-call.sqs.SendMessageBatch", fail_for_a_while)

    assert dispatch(records, context) == []

    assert clock.pauses == [1, 2, 4, 8]
    # Each of 4 failing rounds makes one call per queue. The last round queues all messages with 3 calls and 1 call.
    assert len(calls) == 4 * 2 + 4
    assert reported(caplog.records, "flux-kontext#task1") == {"NotQueuedError"}
    assert outbox.polls() == [("flux-kontext#task1", FIRST_POLL_AFTER_SECONDS)]
    assert outbox.messages() == [f"flux-kontext#task{number}" for number in range(2, 27)]
    assert outbox.dead_letters() == []


def test_no_task_is_lost_in_five_minutes_without_sqs(outbox: Outbox, clock: OutageClock) -> None:
    """The URL of an original expires after 600 s. The event source repeats the records that were not queued."""
    records = [a_record(number, "SUCCEEDED") for number in range(3)]
    begun, seconds = clock.now, 300

    def fail_during_the_outage(**_: Any) -> None:
        clock.now += 7  # the duration of all tries of a call without a response
        if clock.now < begun + seconds:
            raise AWS_FAULTS["unanswered"]

    app.dependencies().archive_queue._sqs.meta.events.register(
        "before-call.sqs.SendMessageBatch", fail_during_the_outage
    )
    left = records
    while failed := dispatch(left, FakeLambdaContext(FUNCTIONS["DispatchChangesFunction"]["Timeout"])):
        left = records[[record["dynamodb"]["SequenceNumber"] for record in records].index(failed[0]) :]

    assert clock.now - begun - seconds <= max(outages.PAUSES_SECONDS) + 7
    assert outbox.messages() == [f"flux-kontext#task{number}" for number in range(3)]
    assert outbox.dead_letters() == []


def test_messages_that_sqs_has_accepted_are_not_sent_again_while_others_wait(
    outbox: Outbox, context: LambdaContext, clock: OutageClock
) -> None:
    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["QueueUrl"].endswith("poll") and clock.now < 1005:
            raise KeyError("refused")

    app.dependencies().archive_queue._sqs.meta.events.register("provide-client-params.sqs.SendMessageBatch", refuse)

    assert dispatch([a_record(1, "PENDING"), a_record(2, "SUCCEEDED")], context) == []

    assert clock.pauses == [1, 2, 4]
    assert (outbox.messages(), len(outbox.polls())) == (["flux-kontext#task2"], 1)


@every_fault
def test_the_stream_is_read_again_from_the_first_task_that_was_not_queued(
    outbox: Outbox,
    context: LambdaContext,
    clock: OutageClock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
) -> None:
    records = [
        a_record(0, "FAILED", "PENDING"),
        a_record(1, "PENDING"),
        a_record(2, "SUCCEEDED"),
        a_record(3, "PENDING", "SUCCEEDED"),
    ]
    with failing("SendMessageBatch", fault):
        assert dispatch(records, context) == [records[1]["dynamodb"]["SequenceNumber"]]
    error = type(fault).__name__ if isinstance(fault, KeyError) else "NotQueuedError"
    for number in (1, 2, 3):
        assert reported(caplog.records, f"flux-kontext#task{number}") == {error}
    # One call for each queue and delay, at once and after each of the four pauses.
    assert clock.pauses == [1, 2, 4, 8]
    assert counted(capsys) == [error] * 3 * 5
    assert outbox.dead_letters() == []
    assert (outbox.polls(), outbox.messages()) == ([], [])

    assert dispatch(records[1:], context) == []
    assert dict(outbox.polls()) == {"flux-kontext#task1": FIRST_POLL_AFTER_SECONDS, "flux-kontext#task3": 0}
    assert outbox.messages() == ["flux-kontext#task2"]


@pytest.mark.parametrize("queue", ["archive", "poll"])
def test_a_queue_that_refuses_messages_does_not_delay_the_other_queue(
    outbox: Outbox, context: LambdaContext, queue: str
) -> None:
    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["QueueUrl"].endswith(queue):
            raise KeyError("refused")

    app.dependencies().archive_queue._sqs.meta.events.register("provide-client-params.sqs.SendMessageBatch", refuse)
    records = [a_record(1, "PENDING"), a_record(2, "SUCCEEDED")]
    failed = records[queue == "archive"]["dynamodb"]["SequenceNumber"]

    assert dispatch(records, context) == [failed]

    assert (len(outbox.messages()), len(outbox.polls())) == (queue == "poll", queue == "archive")


def test_single_messages_that_sqs_refuses_are_sent_again(
    outbox: Outbox, context: LambdaContext, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [a_record(number, "SUCCEEDED") for number in range(12)]
    sent = []

    def refuse_the_second_of_the_second_call(parsed: dict[str, Any], **_: Any) -> None:
        sent.append(len(parsed["Successful"]))
        if sent == [10, 2]:
            refused = parsed["Successful"].pop()
            parsed["Failed"] = [{"Id": refused["Id"], "SenderFault": False, "Code": "InternalError"}]

    app.dependencies().archive_queue._sqs.meta.events.register(
        "after-call.sqs.SendMessageBatch", refuse_the_second_of_the_second_call
    )

    assert dispatch(records, context) == []
    assert sent == [10, 2, 1]
    (error,) = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert error["tasks"] == ["flux-kontext#task11"]
    assert error["reason"] == "SQS did not accept 1 of 2 messages: InternalError"
    assert counted(capsys) == ["NotQueuedError"]


def test_messages_missing_from_the_response_of_sqs_count_as_not_queued(
    outbox: Outbox, context: LambdaContext, caplog: pytest.LogCaptureFixture
) -> None:
    def break_off(parsed: dict[str, Any], **_: Any) -> None:
        parsed.clear()  # botocore parses truncated JSON as an empty response

    app.dependencies().archive_queue._sqs.meta.events.register("after-call.sqs.SendMessageBatch", break_off)
    records = [a_record(number, "SUCCEEDED") for number in range(3)]

    assert dispatch(records, context) == [records[0]["dynamodb"]["SequenceNumber"]]
    error, *_ = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert error["tasks"] == [f"flux-kontext#task{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("broken", "task"),
    [({"Keys": {}}, ""), ({"Keys": None}, ""), ({"NewImage": {"status": "SUCCEEDED"}}, "flux-kontext#task1")],
    ids=str,
)
def test_a_malformed_record_is_moved_to_the_dead_letters_and_does_not_delay_the_others(
    outbox: Outbox,
    context: LambdaContext,
    clock: OutageClock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    broken: dict[str, Any],
    task: str,
) -> None:
    records = [a_record(number, "SUCCEEDED") for number in range(3)]
    records[1]["dynamodb"] |= broken
    number = records[1]["dynamodb"]["SequenceNumber"]

    assert dispatch(records, context) == []

    assert outbox.messages() == ["flux-kontext#task0", "flux-kontext#task2"]
    assert outbox.dead_letters() == [{"task": task, "change": number}]
    assert clock.pauses == []
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert vars(error)["sequence_number"] == number
    assert counted(capsys) == [error.exc_info[0].__name__ if error.exc_info and error.exc_info[0] else None]


@pytest.mark.parametrize("status", ["done", "pending"])
def test_an_item_with_an_unknown_status_is_moved_to_the_dead_letters(
    outbox: Outbox, context: LambdaContext, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    assert dispatch([a_record(1, status)], context) == []

    assert [dead_letter["task"] for dead_letter in outbox.dead_letters()] == ["flux-kontext#task1"]
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert vars(error)["task"] == "flux-kontext#task1"


def test_a_record_that_cannot_be_moved_to_the_dead_letters_is_read_again(
    outbox: Outbox, context: LambdaContext
) -> None:
    broken = a_record(1, "SUCCEEDED")
    broken["dynamodb"]["Keys"] = {}

    with failing("SendMessageBatch", AWS_FAULTS["unreachable"]):
        assert dispatch([broken], context) == [broken["dynamodb"]["SequenceNumber"]]


def test_missing_settings_fail_the_batch(
    outbox: Outbox, context: LambdaContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A response without failures would let the stream continue, and the changes would be lost.
    monkeypatch.delenv("ARCHIVE_QUEUE_URL")

    with pytest.raises(SettingsError, match="ARCHIVE_QUEUE_URL"):
        dispatch([a_record(1, "SUCCEEDED")], context)


def test_an_error_that_ends_an_invocation_is_reported_with_all_its_tasks(
    outbox: Outbox, context: LambdaContext, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARCHIVE_QUEUE_URL")

    with pytest.raises(SettingsError, match="ARCHIVE_QUEUE_URL"):
        dispatch([a_record(1, "SUCCEEDED"), a_record(2, "PENDING")], context)

    for task in ("flux-kontext#task1", "flux-kontext#task2"):
        assert reported(caplog.records, task) == {"SettingsError"}
