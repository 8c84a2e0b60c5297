"""Starts polling and archiving of tasks: after changes in the table's stream, and when stopped work is restarted.

Both are safe to repeat: polling skips tasks that already have a result, and the archiver skips archived tasks.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field, NonNegativeInt

from catchlight.errors import NotQueuedError, StoreUnavailableError
from catchlight.models import Model, iso

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_stepfunctions.client import SFNClient

# Ace Data accepts this many task ids in one status request; one BatchGetItem accepts twice as many keys.
MAX_TASKS_PER_EXECUTION = 50


class PollState(Model):
    """Input and output of the polling state machine: the tasks without a result, the next wait, past waits and polls.

    `polling_since` is the start time of the execution, as the tasks' items have it. If an item has a later time,
    another execution polls for its task. Executions that an operator or ReconcileTasks starts have no `polling_since`
    and poll for all of their tasks.

    `waited_seconds` is the sum of the planned waits, not the elapsed time: tests can scale the clock, and an execution
    that starts late still polls for the full time. Executions that an earlier version started have no `polls`: the
    count starts at 0.
    """

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS_PER_EXECUTION)]
    wait_seconds: NonNegativeInt
    waited_seconds: NonNegativeInt = 0
    polls: NonNegativeInt = 0
    polling_since: str | None = None


class TaskQueue:
    """Sends messages about tasks to one SQS queue. Thread-safe."""

    def __init__(self, sqs: "SQSClient", url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, messages: Sequence[Mapping[str, str]], *, delay_seconds: int = 0) -> None:
        """Sends at most `MAX_MESSAGES_PER_CALL` messages, each with a task's key as `task`.

        Consumers receive them after `delay_seconds`; SQS accepts at most 900.

        Raises:
            NotQueuedError: SQS did not accept all messages.
        """
        entries = [
            {"Id": str(number), "MessageBody": json.dumps(message), "DelaySeconds": delay_seconds}
            for number, message in enumerate(messages)
        ]
        try:
            answer = self._sqs.send_message_batch(
                QueueUrl=self._url,
                Entries=entries,  # type: ignore[arg-type] # a TypedDict of the stubs, which Lambda does not have
            )
        except (ClientError, BotoCoreError) as exc:
            tasks = [message["task"] for message in messages]
            raise NotQueuedError(f"SQS did not accept messages: {_code(exc)}", tasks) from exc
        # Failures are the entries missing in `Successful`, not those in `Failed`: botocore parses a truncated response
        # as an empty one.
        accepted = {entry["Id"] for entry in answer.get("Successful", [])}
        refused = [message["task"] for number, message in enumerate(messages) if str(number) not in accepted]
        if refused:
            codes = {entry["Code"] for entry in answer.get("Failed", [])}
            reason = ", ".join(sorted(codes)) or "they are missing from its response"
            raise NotQueuedError(f"SQS did not accept {len(refused)} of {len(messages)} messages: {reason}", refused)


class PollingExecutions:
    """Starts executions of the polling state machine. Thread-safe."""

    def __init__(self, step_functions: "SFNClient", state_machine: str) -> None:
        self._step_functions = step_functions
        self._state_machine = state_machine

    def start(self, tasks: Sequence[str], *, name: str, waited_seconds: int = 0, since: datetime | None = None) -> bool:
        """Starts an execution for at most `MAX_TASKS_PER_EXECUTION` tasks. Its first poll is immediate.

        `waited_seconds`: how long the tasks have waited for their callbacks; counted as polling time. `since`: the
        start time that the caller writes to the tasks' items. A task is polled only by the execution that started last.
        Returns False if an execution with this name exists already: then no second one is started.

        Raises:
            StoreUnavailableError: Step Functions did not start it.
        """
        polling_since = None if since is None else iso(since)
        state = PollState(
            tasks=tuple(tasks), wait_seconds=0, waited_seconds=waited_seconds, polling_since=polling_since
        )
        document = state.model_dump_json(by_alias=True, exclude_none=True)
        try:
            self._step_functions.start_execution(stateMachineArn=self._state_machine, name=name, input=document)
        except self._step_functions.exceptions.ExecutionAlreadyExists:
            return False
        except (ClientError, BotoCoreError) as exc:
            raise StoreUnavailableError(f"Step Functions did not start an execution: {_code(exc)}") from exc
        return True


class Dispatcher:
    """Restarts polling and archiving of tasks whose processing has stopped. Thread-safe.

    Every method raises StoreUnavailableError when a call to AWS fails.
    """

    def __init__(
        self, sqs: "SQSClient", step_functions: "SFNClient", *, archive_queue_url: str, state_machine: str
    ) -> None:
        self._archive_queue = TaskQueue(sqs, archive_queue_url)
        self._executions = PollingExecutions(step_functions, state_machine)

    def queue_archiving(self, tasks: Sequence[str], *, nonce: str) -> None:
        """Sends one message per task to the archive queue, for at most `MAX_MESSAGES_PER_CALL` tasks.

        The nonce makes the body of each message unique, so that no consumer that compares bodies takes it for a
        duplicate of an earlier message.

        Raises:
            NotQueuedError: SQS did not accept all messages.
        """
        self._archive_queue.send([{"task": task, "nonce": nonce} for task in tasks])

    def start_polling(self, tasks: Sequence[str], *, name: str) -> bool:
        """Starts an execution for at most `MAX_TASKS_PER_EXECUTION` tasks, as `PollingExecutions.start` does."""
        return self._executions.start(tasks, name=name)


def execution_name(kind: str, parts: Iterable[str]) -> str:
    """Returns an execution's name that depends only on `kind` and `parts`, so that a repeated start has no effect.

    Step Functions refuses a second execution with the same name for 90 days.
    """
    return f"{kind}-{hashlib.sha256(','.join(parts).encode()).hexdigest()[:40]}"


def _code(exc: ClientError | BotoCoreError) -> str:
    return exc.response["Error"]["Code"] if isinstance(exc, ClientError) else type(exc).__name__
