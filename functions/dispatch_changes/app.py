"""DispatchChanges: starts polling and archiving of tasks by reading the table's stream as an outbox.

Polling starts for new pending tasks, for tasks that are pending again because the provider did not confirm a callback's
result, and for tasks whose failure was reported by a callback while no execution polled for them. It starts at once for
tasks of which a callback has reported a success without a URL. Tasks that have just succeeded are queued for archiving.
Except for repairs (reconcile, redrive), only the stream starts this work, so no crash between two writes can lose it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.aws.batches import MAX_MESSAGES_PER_CALL, batch_item_failures, batches
from catchlight.aws.clients import AwsClients
from catchlight.dispatch import Dispatcher
from catchlight.errors import NotQueuedError
from catchlight.models import MAX_TASKS_PER_EXECUTION, Reporter, TaskStatus, is_task_key
from catchlight.observability.failures import count_failure, report_failure, reports_failures, stream_task, stream_tasks
from catchlight.observability.log_lines import log_line
from catchlight.settings import DispatchChangesSettings

logger = Logger(json_serializer=log_line)


@dataclass(frozen=True, slots=True)
class Change:
    """A task's change to a status that triggers polling or archiving."""

    task: str
    status: TaskStatus  # SUCCEEDED triggers archiving; the others trigger polling
    sequence_number: str
    is_hinted: bool = False  # a callback says that the provider has a result: polling starts at once


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stream record that could not be read."""

    sequence_number: str


class Dependencies:
    """Creates settings and clients on first use."""

    def __init__(self) -> None:
        self.settings = DispatchChangesSettings.from_environment()
        clients = AwsClients()
        self.dispatcher = Dispatcher(
            clients.sqs(),
            clients.step_functions(),
            archive_queue_url=self.settings.archive_queue_url,
            state_machine=self.settings.poll_tasks_state_machine,
        )


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, stream_tasks)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Dispatches a batch of stream records and returns the first record that failed, if any, as `batchItemFailures`.

    Lambda reads the stream again from that record on. Later records that were queued already are queued twice, which is
    harmless to the archiver; executions are started only for records before it.
    """
    # Missing settings fail the whole batch here, instead of each change separately.
    dependencies()
    found = list(read_changes(event["Records"]))
    changes = [change for change in found if isinstance(change, Change)]
    unqueued = queue_archiving([change for change in changes if change.status is TaskStatus.SUCCEEDED])
    settled = takewhile(lambda change: isinstance(change, Change) and change not in unqueued, found)
    unstarted = start_polling(
        [change for change in settled if isinstance(change, Change) and change.status is not TaskStatus.SUCCEEDED]
    )
    failed = {*unqueued, *unstarted, *(record for record in found if isinstance(record, Unreadable))}
    logger.info("changes dispatched", records=len(event["Records"]), changes=len(changes), failed=len(failed))
    first_failed = next((change for change in found if change in failed), None)
    return batch_item_failures([first_failed.sequence_number] if first_failed else [])


def read_changes(records: Iterable[dict[str, Any]]) -> Iterator[Change | Unreadable]:
    """Yields the changes among stream records, in their order; records that could not be read as Unreadable.

    The event source's filter excludes most records that trigger nothing.
    """
    for record in records:
        try:
            change = read_change(record)
        except Exception as exc:  # noqa: BLE001 - reported, and read again separately: it must not block the others
            number = record["dynamodb"]["SequenceNumber"]
            report_failure(
                logger,
                "stream record not read, it will be read again",
                exc,
                task=stream_task(record),
                sequence_number=number,
            )
            yield Unreadable(number)
        else:
            if change:
                yield change


def read_change(record: dict[str, Any]) -> Change | None:
    """Returns the change in a stream record, None if the record triggers nothing."""
    new = record["dynamodb"].get("NewImage")
    if new is None:
        return None
    task = record["dynamodb"]["Keys"]["task"]["S"]
    status = new.get("status", {}).get("S")
    old_status = record["dynamodb"].get("OldImage", {}).get("status", {}).get("S")
    reported_by = new.get("reportedBy", {}).get("S")
    is_hinted = "hintedAt" in new and new["hintedAt"] != record["dynamodb"].get("OldImage", {}).get("hintedAt")
    is_hinted = is_hinted and status in (TaskStatus.PENDING, TaskStatus.TIMED_OUT)
    if not (is_hinted or follows(status, old_status, reported_by)):
        return None
    if not is_task_key(task):
        # A retry would not help: an item with an invalid key was written by hand and cannot be polled or archived.
        logger.error("not a task key, expected provider#taskId: the item triggers nothing", task=task)
        count_failure("InvalidTaskKey")
        return None
    return Change(task, TaskStatus(status), record["dynamodb"]["SequenceNumber"], is_hinted)


def follows(status: str | None, old_status: str | None, reported_by: str | None) -> bool:
    """Returns whether a change of status triggers polling or archiving. `old_status` is None for a new task."""
    match status:
        # Not every write to a task changes its status: the archiver and repeated callbacks write to it too.
        case TaskStatus.PENDING | TaskStatus.SUCCEEDED:
            return status != old_status
        # An unconfirmed failure without a running execution. If the task was PENDING before, the execution that polls
        # for it checks the failure with the provider.
        case TaskStatus.FAILED:
            return reported_by == Reporter.CALLBACK and old_status in (None, TaskStatus.TIMED_OUT)
        case _:
            return False


def queue_archiving(changes: Sequence[Change]) -> set[Change]:
    """Queues tasks for archiving. Returns the changes whose messages were not accepted."""
    failed: set[Change] = set()
    for batch in batches(changes, MAX_MESSAGES_PER_CALL):
        tasks = [change.task for change in batch]
        try:
            dependencies().dispatcher.queue_archiving(tasks)
        except Exception as exc:  # noqa: BLE001 - reported, and polling must still start for the records before it
            refused = exc.tasks if isinstance(exc, NotQueuedError) else tasks
            message = "archiving not queued, the stream will be read again from here"
            report_failure(logger, message, exc, tasks=refused, reason=str(exc))
            failed.update(change for change in batch if change.task in refused)
    return failed


def start_polling(changes: Sequence[Change]) -> set[Change]:
    """Starts executions of the state machine, each for up to MAX_TASKS_PER_EXECUTION tasks.

    Returns the changes for which no execution could be started.
    """
    first_poll = dependencies().settings.first_poll_after_seconds
    failed: set[Change] = set()
    for is_hinted, wait_seconds in ((True, 0), (False, first_poll)):
        group = [change for change in changes if change.is_hinted is is_hinted]
        for batch in batches(group, MAX_TASKS_PER_EXECUTION):
            failed.update(start_execution(batch, wait_seconds))
    return failed


def start_execution(changes: Sequence[Change], wait_seconds: int) -> Sequence[Change]:
    """Starts one execution, and returns its changes if it could not be started."""
    # The name is derived from the stream records: a batch that is read twice starts one execution, and a task that is
    # registered again starts a new one.
    digest = hashlib.sha256(",".join(change.sequence_number for change in changes).encode()).hexdigest()
    tasks = [change.task for change in changes]
    try:
        is_new = dependencies().dispatcher.start_polling(tasks, name=f"tasks-{digest[:40]}", wait_seconds=wait_seconds)
    except Exception as exc:  # noqa: BLE001 - reported, and the other batches must still be started
        message = "polling not started, the stream will be read again from here"
        report_failure(logger, message, exc, tasks=tasks, reason=str(exc))
        return changes
    if not is_new:
        logger.info("polling was started before", tasks=tasks)
    return ()
