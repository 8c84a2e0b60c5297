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
from botocore.exceptions import BotoCoreError, ClientError

from image_tasks.aws_clients import AwsClients
from image_tasks.models import MAX_TASKS_PER_EXECUTION, PollState, Reporter, TaskStatus, split_task_key
from image_tasks.settings import DispatchChangesSettings

# SendMessageBatch takes no more.
MAX_MESSAGES_PER_CALL = 10

logger = Logger()


@dataclass(frozen=True, slots=True)
class Change:
    """A task's arrival at a status from which something follows."""

    task: str
    status: TaskStatus  # SUCCEEDED: to be archived; PENDING, FAILED: to be polled for
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
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a batch of the stream; answers with the first record that could not be dispatched, if any.

    The stream is read again from that record on. What comes after it and was queued already is queued twice, which the
    archiver does not mind; executions are only started for what lies before it.
    """
    changes = list(read_changes(event["Records"]))
    unqueued = queue_archiving([change for change in changes if change.status is TaskStatus.SUCCEEDED])
    settled = list(takewhile(lambda change: change not in unqueued, changes))
    unstarted = start_polling([change for change in settled if change.status is not TaskStatus.SUCCEEDED])
    failed = unqueued | unstarted
    logger.info("changes dispatched", records=len(event["Records"]), changes=len(changes), failed=len(failed))
    first_failed = next((change for change in changes if change in failed), None)
    failures = [{"itemIdentifier": first_failed.sequence_number}] if first_failed else []
    return {"batchItemFailures": failures}


def read_changes(records: Iterable[dict[str, Any]]) -> Iterator[Change]:
    """What follows from stream records, in their order. The event source's filter lets few others through."""
    for record in records:
        new = record["dynamodb"].get("NewImage")
        if new is None:
            continue
        task = record["dynamodb"]["Keys"]["task"]["S"]
        status = new.get("status", {}).get("S")
        old_status = record["dynamodb"].get("OldImage", {}).get("status", {}).get("S")
        reported_by = new.get("reportedBy", {}).get("S")
        if not follows(status, old_status, reported_by):
            continue
        try:
            split_task_key(task)
        except ValueError:
            # Trying again would change nothing: somebody put an item that no provider can be asked about.
            logger.error("not a task key, expected provider#taskId", task=task)
            continue
        yield Change(task, TaskStatus(status), record["dynamodb"]["SequenceNumber"])


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
        except (ClientError, BotoCoreError):
            logger.exception("archiving not queued, the stream will be read again from here")
            failed.update(batch)
        else:
            # Not those that are named as failed: of an answer that breaks off, botocore makes an empty one.
            taken = {int(entry["Id"]) for entry in answer.get("Successful", [])}
            failed.update(change for i, change in enumerate(batch) if i not in taken)
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
            logger.info("polling was started before", tasks=len(batch))
        except (ClientError, BotoCoreError):
            logger.exception("polling not started, the stream will be read again from here")
            failed.update(batch)
    return failed


def _batches(changes: Sequence[Change], size: int) -> Iterator[Sequence[Change]]:
    for start in range(0, len(changes), size):
        yield changes[start : start + size]
