"""Starts polling and archiving of tasks, for changes in the table's stream and for repairs.

Both are safe to repeat: polling skips tasks that have a result already, and the archiver skips tasks that are archived.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from catchlight.errors import NotQueuedError, StoreUnavailableError
from catchlight.models import PollState, iso

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_stepfunctions.client import SFNClient


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
            reason = ", ".join(sorted(codes)) or "they are missing in its response"
            raise NotQueuedError(f"SQS did not accept {len(refused)} of {len(messages)} messages: {reason}", refused)


class PollingExecutions:
    """Starts executions of the polling state machine. Thread-safe."""

    def __init__(self, step_functions: "SFNClient", state_machine: str) -> None:
        self._step_functions = step_functions
        self._state_machine = state_machine

    def start(self, tasks: Sequence[str], *, name: str, waited_seconds: int = 0, since: datetime | None = None) -> bool:
        """Starts an execution for at most `MAX_TASKS_PER_EXECUTION` tasks, which are polled at once.

        `waited_seconds`: the time that the tasks have waited for their callbacks, counted as time of polling. `since`:
        the start that the caller notes in the tasks' items, so that a later execution takes over the tasks that both
        have. Returns False if an execution of this name exists already: then no second one is started.

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
    """Repeats the dispatch of tasks whose processing has stopped. Thread-safe.

    Every method raises StoreUnavailableError when a call to AWS fails.
    """

    def __init__(
        self, sqs: "SQSClient", step_functions: "SFNClient", *, archive_queue_url: str, state_machine: str
    ) -> None:
        self._archive_queue = TaskQueue(sqs, archive_queue_url)
        self._executions = PollingExecutions(step_functions, state_machine)

    def queue_archiving(self, tasks: Sequence[str], *, nonce: str) -> None:
        """Sends one message per task to the archive queue, for at most `MAX_MESSAGES_PER_CALL` tasks.

        The nonce makes each message body unique: a consumer that compares bodies could take an identical message for a
        duplicate of an earlier one.

        Raises:
            NotQueuedError: SQS did not accept all messages.
        """
        self._archive_queue.send([{"task": task, "nonce": nonce} for task in tasks])

    def start_polling(self, tasks: Sequence[str], *, name: str) -> bool:
        """Starts an execution for at most `MAX_TASKS_PER_EXECUTION` tasks; see `PollingExecutions.start`."""
        return self._executions.start(tasks, name=name)


def execution_name(kind: str, parts: Iterable[str]) -> str:
    """Derives an execution's name from what it is started for: repeated with the same parts, it is not started again.

    Step Functions refuses a second execution of the same name for 90 days.
    """
    return f"{kind}-{hashlib.sha256(','.join(parts).encode()).hexdigest()[:40]}"


def _code(exc: ClientError | BotoCoreError) -> str:
    return exc.response["Error"]["Code"] if isinstance(exc, ClientError) else type(exc).__name__
