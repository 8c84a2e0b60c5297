"""DispatchChanges: queues tasks for polling and archiving by reading the table's stream as an outbox.

If a user has written an item with its key and status only, the function adds the attributes that the indexes need.

A new pending task is queued for its first poll with a delay; StartPolling starts polling if no callback has come by
then. The message has no delay if the provider may have a result already: it did not confirm a callback's result, a
callback reported a success without a result, or a failure while no execution polled for the task. Tasks that have just
succeeded are queued for archiving, and so are tasks without a result whose original has become known. Except for
repairs (reconcile, redrive), only the stream starts this work, so no crash between two writes can lose it.

During an outage of SQS the function waits and retries, and the event source repeats the batch for as long as the stream
keeps its records. Only records that cannot be read are moved to the dead-letter queue.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from catchlight.aws.batches import MAX_MESSAGES_PER_CALL, batch_item_failures, batches
from catchlight.aws.clients import AwsClients
from catchlight.aws.outages import OutageWait
from catchlight.dispatch import TaskQueue
from catchlight.errors import NotQueuedError, StoreUnavailableError
from catchlight.models import PROBE_STATUS, Reporter, TaskStatus, is_task_key, utc_now
from catchlight.observability.failures import count_failure, report_failure, reports_failures, stream_task, stream_tasks
from catchlight.observability.log_lines import log_line
from catchlight.settings import DispatchChangesSettings
from catchlight.tasks.registration import Registry, is_complete
from catchlight.tasks.table import TasksTable

# During an outage, a round of tries makes one failing call for each of the five kinds of follow-ups. A call without a
# response takes up to 7 s.
RESERVED_SECONDS = 40
# DynamoDB's error code for a write that would fail again if it were repeated.
_INVALID_WRITE = "ValidationException"

logger = Logger(json_serializer=log_line)


class FollowUp(Enum):
    """The work that a change triggers."""

    ARCHIVE = auto()  # archive the images; of a task without a result: download its original into quarantine
    POLL_LATER = auto()  # start polling after FirstPollAfterSeconds, if no callback has come
    POLL_NOW = auto()  # start polling at once: the provider may have a result, whose URLs expire
    COMPLETE = auto()  # add attributes to an item that was written with its key and status only
    DEAD_LETTER = auto()  # put a record that could not be read into the dead-letter queue


@dataclass(frozen=True, slots=True)
class Change:
    """A task's change, and one follow-up that it triggers."""

    task: str  # empty if the record does not name a task
    follow_up: FollowUp
    sequence_number: str
    status: TaskStatus = TaskStatus.PENDING  # for COMPLETE: the item's status


class Dependencies:
    """Creates settings and clients on first use."""

    def __init__(self) -> None:
        self.settings = DispatchChangesSettings.from_environment()
        clients = AwsClients()
        sqs = clients.sqs()
        self.archive_queue = TaskQueue(sqs, self.settings.archive_queue_url)
        self.poll_queue = TaskQueue(sqs, self.settings.poll_queue_url)
        self.registry = Registry(TasksTable(self.settings.tasks_table, clients.dynamodb()))
        self.dead_letters = TaskQueue(sqs, self.settings.dispatch_dead_letters_url)


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, stream_tasks)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Dispatches a batch of stream records and returns the first record that failed, if any, as `batchItemFailures`.

    Lambda reads the stream again from that record on. Later records that were queued already are then queued twice;
    the archiver and StartPolling tolerate that.
    """
    # If settings are missing, the whole batch fails here, instead of each change separately.
    dependencies()
    wait = OutageWait(ends_by=time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS)
    changes = list(read_changes(event["Records"]))
    failed = queue(changes, wait)
    logger.info("changes dispatched", records=len(event["Records"]), changes=len(changes), failed=len(failed))
    # `changes` has the order of the stream.
    return batch_item_failures([change.sequence_number for change in changes if change in failed][:1])


def read_changes(records: Iterable[dict[str, Any]]) -> Iterator[Change]:
    """Yields the changes in stream records, in their order. A record that cannot be read becomes a DEAD_LETTER.

    The event source's filter excludes most records that trigger nothing.
    """
    for record in records:
        try:
            changes = list(read_record(record))
        except Exception as exc:  # noqa: BLE001 - reported, and the record must not block the others
            number, task = record["dynamodb"]["SequenceNumber"], stream_task(record)
            message = "stream record not read, it is put into the dead-letter queue"
            report_failure(logger, message, exc, task=task, sequence_number=number)
            yield Change(task or "", FollowUp.DEAD_LETTER, number)
        else:
            yield from changes


def read_record(record: dict[str, Any]) -> Iterator[Change]:
    """Yields the changes of a stream record, and one more if attributes have to be added to its item."""
    changes = read_change(record)
    yield from changes
    if changes and not is_complete(item := record["dynamodb"]["NewImage"]):
        yield replace(changes[0], follow_up=FollowUp.COMPLETE, status=TaskStatus(item["status"]["S"]))


def read_change(record: dict[str, Any]) -> list[Change]:
    """Returns the changes of a stream record: one, two if it is a hint with an original, or none.

    Raises:
        ValueError: the status is unknown, because a user has written the item by hand.
    """
    new, old = record["dynamodb"].get("NewImage"), record["dynamodb"].get("OldImage", {})
    if new is None:
        return []
    task = record["dynamodb"]["Keys"]["task"]["S"]
    status = new.get("status", {}).get("S")
    if status not in (None, PROBE_STATUS):
        TaskStatus(status)
    old_status = old.get("status", {}).get("S")
    reported_by = new.get("reportedBy", {}).get("S")
    # A poll writes `hintedAt` without `deliveries`; its execution goes on polling for the task.
    is_hinted = all(name in new and new[name] != old.get(name) for name in ("hintedAt", "deliveries"))
    found = [follow_up(status, old_status, reported_by, is_hinted=is_hinted)]
    is_without_result = status in (TaskStatus.PENDING, TaskStatus.TIMED_OUT) and "hintedAt" in new
    if is_without_result and "images" in new and "images" not in old:
        found.append(FollowUp.ARCHIVE)
    triggered = [each for each in found if each]
    if triggered and not is_task_key(task):
        # A retry would not help: an item with an invalid key was written by hand and cannot be polled or archived.
        logger.error("not a task key, expected provider#taskId: the item triggers nothing", task=task)
        count_failure("InvalidTaskKey")
        return []
    return [Change(task, each, record["dynamodb"]["SequenceNumber"]) for each in triggered]


def follow_up(
    status: str | None, old_status: str | None, reported_by: str | None, *, is_hinted: bool
) -> FollowUp | None:
    """Returns the follow-up of a change from `old_status` (None for a new task) to `status`; None if there is none.

    `is_hinted`: a callback has reported a success without a result, or has repeated an unconfirmed success.
    """
    match status:
        case TaskStatus.PENDING | TaskStatus.TIMED_OUT | TaskStatus.UNCONFIRMED if is_hinted:
            return FollowUp.POLL_NOW
        # Not every write to a task changes its status: the archiver and repeated callbacks write to it too.
        case TaskStatus.SUCCEEDED if old_status != status:
            return FollowUp.ARCHIVE
        case TaskStatus.PENDING if old_status != status:
            return FollowUp.POLL_NOW if old_status else FollowUp.POLL_LATER
        # FAILED: no execution polls for the task, so one is started to confirm the failure. If the task was PENDING
        # before, the message of its first poll or the execution that polls for it leads to the confirmation.
        # UNCONFIRMED: polls request the confirmation of a success.
        case TaskStatus.FAILED | TaskStatus.UNCONFIRMED if reported_by == Reporter.CALLBACK and old_status in (
            None,
            TaskStatus.TIMED_OUT,
            TaskStatus.SUCCEEDED,
        ):
            return FollowUp.POLL_NOW
        case _:
            return None


def queue(changes: Sequence[Change], wait: OutageWait) -> Sequence[Change]:
    """Carries out the follow-ups of changes. Retries those that failed while there is time.

    Returns the changes whose follow-ups failed.
    """
    while changes := [change for kind in FollowUp for change in send_all(changes, kind)]:
        if not wait.pause():
            break
    return changes


def send_all(changes: Iterable[Change], kind: FollowUp) -> Iterator[Change]:
    """Carries out one kind of follow-ups in batches. Yields the changes that failed.

    If all changes of a batch failed, the other batches are not tried: during an outage each call takes seconds.
    """
    is_outage = False
    for batch in batches((change for change in changes if change.follow_up is kind), MAX_MESSAGES_PER_CALL):
        failed = batch if is_outage else list(send(batch, kind))
        is_outage = len(failed) == len(batch)
        yield from failed


def send(changes: Sequence[Change], kind: FollowUp) -> Iterator[Change]:
    """Carries out one batch of one kind of follow-ups. Yields the changes that failed."""
    tasks = [change.task for change in changes]
    messages = [{"task": change.task, "change": change.sequence_number} for change in changes]
    try:
        match kind:
            case FollowUp.ARCHIVE:
                dependencies().archive_queue.send([{"task": task} for task in tasks])
            case FollowUp.POLL_NOW | FollowUp.POLL_LATER:
                delay = dependencies().settings.first_poll_after_seconds if kind is FollowUp.POLL_LATER else 0
                dependencies().poll_queue.send(messages, delay_seconds=delay)
            case FollowUp.COMPLETE:
                for change in changes:
                    complete(change)
            case FollowUp.DEAD_LETTER:
                dependencies().dead_letters.send(messages)
    except Exception as exc:  # noqa: BLE001 - reported, and the other changes must still be queued
        refused = exc.tasks if isinstance(exc, NotQueuedError) else tasks
        message = f"{kind.name} failed, it is tried again for as long as the stream keeps the changes"
        report_failure(logger, message, exc, tasks=refused, reason=str(exc))
        yield from (change for change in changes if change.task in refused)


def complete(change: Change) -> None:
    """Adds the attributes that the indexes need to a task's item.

    If DynamoDB refuses the write because of the item itself, for example because it would be too large, the failure is
    reported and not retried. Retries would block the stream, and the task is polled for or archived all the same.

    Raises:
        StoreUnavailableError: the call is to be tried again.
    """
    try:
        dependencies().registry.complete(change.task, change.status, now=utc_now())
    except StoreUnavailableError as exc:
        if not (isinstance(exc.__cause__, ClientError) and exc.__cause__.response["Error"]["Code"] == _INVALID_WRITE):
            raise
        report_failure(logger, "the item is in no index, repair it by hand", exc, task=change.task)
