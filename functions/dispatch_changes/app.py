"""DispatchChanges: starts polling and archiving of tasks by reading the table's stream as an outbox.

Polling starts for new pending tasks, for tasks that are pending again because the provider did not confirm a callback's
result, and for tasks whose failure was reported by a callback while no execution polled for them. Tasks that have just
succeeded are queued for archiving. Except for repairs (reconcile, redrive), only the stream starts this work, so no
crash between two writes can lose it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.aws.clients import AwsClients
from catchlight.models import MAX_TASKS_PER_EXECUTION, PollState, Reporter, TaskStatus, is_task_key
from catchlight.observability.failures import count_failure, report_failure, reports_failures, stream_task, stream_tasks
from catchlight.settings import DispatchChangesSettings

# The limit of SendMessageBatch.
MAX_MESSAGES_PER_CALL = 10

logger = Logger()


@dataclass(frozen=True, slots=True)
class Change:
    """A task's change to a status that triggers polling or archiving."""

    task: str
    status: TaskStatus  # SUCCEEDED triggers archiving; PENDING and FAILED trigger polling
    sequence_number: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stream record that could not be read."""

    sequence_number: str


class Dependencies:
    """Creates settings and clients on first use."""

    def __init__(self) -> None:
        self.settings = DispatchChangesSettings.from_environment()
        clients = AwsClients()
        self.sqs = clients.sqs()
        self.step_functions = clients.step_functions()


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
    failures = [{"itemIdentifier": first_failed.sequence_number}] if first_failed else []
    return {"batchItemFailures": failures}


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
    if not follows(status, old_status, reported_by):
        return None
    if not is_task_key(task):
        # A retry would not help: an item with an invalid key was written by hand and cannot be polled or archived.
        logger.error("not a task key, expected provider#taskId: nothing follows from this item", task=task)
        count_failure("InvalidTaskKey")
        return None
    return Change(task, TaskStatus(status), record["dynamodb"]["SequenceNumber"])


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
    """Queues tasks for archiving. Returns the changes that SQS did not accept."""
    failed: set[Change] = set()
    for batch in _batches(changes, MAX_MESSAGES_PER_CALL):
        entries = [{"Id": str(i), "MessageBody": json.dumps({"task": change.task})} for i, change in enumerate(batch)]
        try:
            answer = dependencies().sqs.send_message_batch(
                QueueUrl=dependencies().settings.archive_queue_url,
                Entries=entries,  # type: ignore[arg-type] # a TypedDict of the stubs, which Lambda does not have
            )
        except Exception as exc:  # noqa: BLE001 - reported, and polling must still start for the records before it
            report_failure(
                logger,
                "archiving not queued, the stream will be read again from here",
                exc,
                tasks=[change.task for change in batch],
            )
            failed.update(batch)
        else:
            # Failures are the entries missing in `Successful`, not those in `Failed`: botocore turns a truncated
            # response into an empty one.
            taken = {entry["Id"] for entry in answer.get("Successful", [])}
            codes = {entry["Id"]: entry.get("Code") for entry in answer.get("Failed", [])}
            for entry, change in zip(entries, batch, strict=True):
                if entry["Id"] not in taken:
                    failed.add(change)
                    code = codes.get(entry["Id"]) or "NotNamedInTheAnswer"
                    logger.error("SQS did not take a message, it will be sent again", task=change.task, code=code)
                    count_failure(code)
    return failed


def start_polling(changes: Sequence[Change]) -> set[Change]:
    """Starts executions of the state machine, each for up to MAX_TASKS_PER_EXECUTION tasks.

    Returns the changes for which no execution could be started.
    """
    failed: set[Change] = set()
    for batch in _batches(changes, MAX_TASKS_PER_EXECUTION):
        # The name is derived from the stream records: a batch that is read twice starts one execution, and a task that
        # is registered again starts a new one.
        digest = hashlib.sha256(",".join(change.sequence_number for change in batch).encode()).hexdigest()
        state = PollState(
            tasks=tuple(change.task for change in batch),
            wait_seconds=dependencies().settings.first_poll_after_seconds,
        )
        try:
            dependencies().step_functions.start_execution(
                stateMachineArn=dependencies().settings.poll_tasks_state_machine,
                name=f"tasks-{digest[:40]}",
                input=state.model_dump_json(by_alias=True),
            )
        except dependencies().step_functions.exceptions.ExecutionAlreadyExists:
            logger.info("polling was started before", tasks=[change.task for change in batch])
        except Exception as exc:  # noqa: BLE001 - reported, and the other batches must still be started
            report_failure(
                logger,
                "polling not started, the stream will be read again from here",
                exc,
                tasks=[change.task for change in batch],
            )
            failed.update(batch)
    return failed


def _batches(changes: Sequence[Change], size: int) -> Iterator[Sequence[Change]]:
    for start in range(0, len(changes), size):
        yield changes[start : start + size]
