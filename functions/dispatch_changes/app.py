"""DispatchChanges: queues tasks for polling and archiving by reading the table's stream as an outbox.

An item that a user has written with its key and status only gets the attributes that put it into the indexes.

A new pending task is queued for its first poll, which StartPolling starts if its callback has not come until then. The
message of a task that may have a result already has no delay: the provider did not confirm a callback's result, a
callback reported a success without a result, or a failure while no execution polled for the task. Tasks that have just
succeeded are queued for archiving, and so are tasks without a result whose original has become known. Except for
repairs (reconcile, redrive), only the stream starts this work, so no crash between two writes can lose it.

While SQS is out, the function waits, and the event source tries again for as long as the stream keeps its records. Only
a record that cannot be read is put aside: into the dead-letter queue.
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

# A round of tries makes one call that fails for each kind of changes, and each takes up to 7 s without a response.
RESERVED_SECONDS = 40
# DynamoDB's error code for a write that no repetition makes possible.
_REFUSES_ITEM = "ValidationException"

logger = Logger(json_serializer=log_line)


class FollowUp(Enum):
    """What a change triggers."""

    ARCHIVE = auto()  # or, of a task without a result, download its original into quarantine
    POLL_LATER = auto()  # if the callback has not come after FirstPollAfterSeconds
    POLL_NOW = auto()  # the provider may have a result, whose URLs expire
    COMPLETE = auto()  # the item was written with its key and status only
    PUT_ASIDE = auto()  # the record could not be read


@dataclass(frozen=True, slots=True)
class Change:
    """A task's change, and what it triggers."""

    task: str  # empty if the record does not name it
    follow_up: FollowUp
    sequence_number: str
    status: TaskStatus = TaskStatus.PENDING  # of COMPLETE


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

    Lambda reads the stream again from that record on. Later records that were queued already are queued twice, which is
    harmless to the archiver and to StartPolling.
    """
    # Missing settings fail the whole batch here, instead of each change separately.
    dependencies()
    wait = OutageWait(ends_by=time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS)
    changes = list(read_changes(event["Records"]))
    failed = queue(changes, wait)
    logger.info("changes dispatched", records=len(event["Records"]), changes=len(changes), failed=len(failed))
    # `changes` has the order of the stream.
    return batch_item_failures([change.sequence_number for change in changes if change in failed][:1])


def read_changes(records: Iterable[dict[str, Any]]) -> Iterator[Change]:
    """Yields the changes among stream records, in their order; records that could not be read are to be put aside.

    The event source's filter excludes most records that trigger nothing.
    """
    for record in records:
        try:
            changes = list(read_record(record))
        except Exception as exc:  # noqa: BLE001 - reported and put aside: the record must not block the others
            number, task = record["dynamodb"]["SequenceNumber"], stream_task(record)
            report_failure(logger, "stream record not read, it is put aside", exc, task=task, sequence_number=number)
            yield Change(task or "", FollowUp.PUT_ASIDE, number)
        else:
            yield from changes


def read_record(record: dict[str, Any]) -> Iterator[Change]:
    """Yields what a stream record triggers: its changes, and that its item has to be completed."""
    changes = read_change(record)
    yield from changes
    if changes and not is_complete(item := record["dynamodb"]["NewImage"]):
        yield replace(changes[0], follow_up=FollowUp.COMPLETE, status=TaskStatus(item["status"]["S"]))


def read_change(record: dict[str, Any]) -> list[Change]:
    """Returns what a stream record triggers: one change, two of a hint with an original, or none.

    Raises:
        ValueError: the status is unknown. A user has written it: no search finds the item.
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
    # The execution that has noted a hint polls for the task already.
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
    """Returns what a change of a task triggers. `old_status` is None for a new task.

    `is_hinted`: a callback says that the provider has a result which the task lacks, or repeats an unconfirmed one.
    """
    match status:
        case TaskStatus.PENDING | TaskStatus.TIMED_OUT | TaskStatus.UNCONFIRMED if is_hinted:
            return FollowUp.POLL_NOW
        # Not every write to a task changes its status: the archiver and repeated callbacks write to it too.
        case TaskStatus.SUCCEEDED if old_status != status:
            return FollowUp.ARCHIVE
        case TaskStatus.PENDING if old_status != status:
            return FollowUp.POLL_NOW if old_status else FollowUp.POLL_LATER
        # An unconfirmed failure without a running execution. If the task was PENDING before, the message of its first
        # poll or the execution that polls for it checks the failure with the provider.
        # UNCONFIRMED: polls are to ask for the confirmation of a success.
        case TaskStatus.FAILED | TaskStatus.UNCONFIRMED if reported_by == Reporter.CALLBACK and old_status in (
            None,
            TaskStatus.TIMED_OUT,
            TaskStatus.SUCCEEDED,
        ):
            return FollowUp.POLL_NOW
        case _:
            return None


def queue(changes: Sequence[Change], wait: OutageWait) -> Sequence[Change]:
    """Carries out what changes trigger, again and again while AWS does not accept all of it and there is time.

    Returns the changes that are left.
    """
    while changes := [change for found in FollowUp for change in send_all(changes, found)]:
        if not wait.pause():
            break
    return changes


def send_all(changes: Iterable[Change], found: FollowUp) -> Iterator[Change]:
    """Carries out one kind of changes in batches. Yields the changes that failed.

    After a batch of which all failed, no further one is tried: during an outage each call takes seconds.
    """
    refuses = False
    for batch in batches((change for change in changes if change.follow_up is found), MAX_MESSAGES_PER_CALL):
        refused = batch if refuses else list(send(batch, found))
        refuses = len(refused) == len(batch)
        yield from refused


def send(changes: Sequence[Change], found: FollowUp) -> Iterator[Change]:
    """Carries out one batch of one kind of changes. Yields the changes that failed."""
    tasks = [change.task for change in changes]
    messages = [{"task": change.task, "change": change.sequence_number} for change in changes]
    try:
        match found:
            case FollowUp.ARCHIVE:
                dependencies().archive_queue.send([{"task": task} for task in tasks])
            case FollowUp.POLL_NOW | FollowUp.POLL_LATER:
                delay = dependencies().settings.first_poll_after_seconds if found is FollowUp.POLL_LATER else 0
                dependencies().poll_queue.send(messages, delay_seconds=delay)
            case FollowUp.COMPLETE:
                for change in changes:
                    complete(change)
            case FollowUp.PUT_ASIDE:
                dependencies().dead_letters.send(messages)
    except Exception as exc:  # noqa: BLE001 - reported, and the other changes must still be queued
        refused = exc.tasks if isinstance(exc, NotQueuedError) else tasks
        message = f"{found.name} failed, it is tried again for as long as the stream keeps the changes"
        report_failure(logger, message, exc, tasks=refused, reason=str(exc))
        yield from (change for change in changes if change.task in refused)


def complete(change: Change) -> None:
    """Completes a task's item.

    A write that DynamoDB refuses because of the item itself, for example because it would be too large, is reported and
    not tried again: it would hold up the stream, and the task is polled for or archived all the same.

    Raises:
        StoreUnavailableError: the call is to be tried again.
    """
    try:
        dependencies().registry.complete(change.task, change.status, now=utc_now())
    except StoreUnavailableError as exc:
        if not (isinstance(exc.__cause__, ClientError) and exc.__cause__.response["Error"]["Code"] == _REFUSES_ITEM):
            raise
        report_failure(logger, "the item is in no index, repair it by hand", exc, task=change.task)
