"""DispatchChanges: the table's stream is the outbox.

Polled for is a task that is new and pending, one that is pending again because its provider did not confirm what a
callback said, and one whose failure a callback has claimed while nobody polled. Archived is one that has just
succeeded. All of it is driven from here and from nowhere else, so there is no moment at which a crash between two
writes loses what follows.
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

# SendMessageBatch takes no more.
MAX_MESSAGES_PER_CALL = 10

logger = Logger()


@dataclass(frozen=True, slots=True)
class Change:
    """A task's arrival at a status from which something follows."""

    task: str
    status: TaskStatus  # SUCCEEDED: to be archived; PENDING, FAILED: to be polled for
    sequence_number: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stream record that could not be read."""

    sequence_number: str


class Dependencies:
    """Settings and clients, made when the first batch needs them."""

    def __init__(self) -> None:
        self.settings = DispatchChangesSettings.from_environment()
        clients = AwsClients()
        self.sqs = clients.sqs()
        self.step_functions = clients.step_functions()


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, stream_tasks)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a batch of the stream; answers with the first record that could not be dispatched, if any.

    The stream is read again from that record on. What comes after it and was queued already is queued twice, which the
    archiver does not mind; executions are only started for what lies before it.
    """
    # Settings that are missing fail the whole batch, not one change after the other.
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
    """What follows from stream records, in their order. The event source's filter lets few others through."""
    for record in records:
        try:
            change = read_change(record)
        except Exception as exc:  # noqa: BLE001 - reported, and read again alone: it must not keep back its neighbours
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
    """What follows from a stream record, if anything does."""
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
        # Trying again would change nothing: somebody put an item that no provider can be asked about.
        logger.error("not a task key, expected provider#taskId: nothing follows from this item", task=task)
        count_failure("InvalidTaskKey")
        return None
    return Change(task, TaskStatus(status), record["dynamodb"]["SequenceNumber"])


def follows(status: str | None, old_status: str | None, reported_by: str | None) -> bool:
    """Whether something follows from a task's having come to a status, from another one or from nowhere."""
    match status:
        # Not every write to a task changes its status: the archiver and repeated callbacks write to it too.
        case TaskStatus.PENDING | TaskStatus.SUCCEEDED:
            return status != old_status
        # A claim that nobody polls for. Of one that was pending before, the running execution hears by itself.
        case TaskStatus.FAILED:
            return reported_by == Reporter.CALLBACK and old_status in (None, TaskStatus.TIMED_OUT)
        case _:
            return False


def queue_archiving(changes: Sequence[Change]) -> set[Change]:
    """Queues tasks whose images are to be archived. Returns those that SQS did not take."""
    failed: set[Change] = set()
    for batch in _batches(changes, MAX_MESSAGES_PER_CALL):
        entries = [{"Id": str(i), "MessageBody": json.dumps({"task": change.task})} for i, change in enumerate(batch)]
        try:
            answer = dependencies().sqs.send_message_batch(
                QueueUrl=dependencies().settings.archive_queue_url,
                Entries=entries,  # type: ignore[arg-type] # a TypedDict of the stubs, which Lambda does not have
            )
        except Exception as exc:  # noqa: BLE001 - reported, and polling must start all the same for what lies before it
            report_failure(
                logger,
                "archiving not queued, the stream will be read again from here",
                exc,
                tasks=[change.task for change in batch],
            )
            failed.update(batch)
        else:
            # Not those that are named as failed: of an answer that breaks off, botocore makes an empty one.
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
    """Starts executions of the state machine, each for as many tasks as it takes. Returns the tasks left without."""
    failed: set[Change] = set()
    for batch in _batches(changes, MAX_TASKS_PER_EXECUTION):
        # Named after its stream records: the same batch read twice is one execution, a task registered anew is another.
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
        except Exception as exc:  # noqa: BLE001 - reported, and the other batches must be started all the same
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
