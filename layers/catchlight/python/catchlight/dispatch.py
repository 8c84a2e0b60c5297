"""Starts polling and archiving of tasks, for changes in the table's stream and for repairs.

Both are safe to repeat: polling skips tasks that have a result already, and the archiver skips tasks that are archived.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from catchlight.errors import NotQueuedError, StoreUnavailableError
from catchlight.models import PollState

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_stepfunctions.client import SFNClient


class Dispatcher:
    """Sends tasks to the archive queue and starts the polling state machine. Thread-safe.

    Every method raises StoreUnavailableError when a call to AWS fails.
    """

    def __init__(
        self, sqs: "SQSClient", step_functions: "SFNClient", *, archive_queue_url: str, state_machine: str
    ) -> None:
        self._sqs = sqs
        self._step_functions = step_functions
        self._archive_queue_url = archive_queue_url
        self._state_machine = state_machine

    def queue_archiving(self, tasks: Sequence[str], *, nonce: str | None = None) -> None:
        """Sends one message per task to the archive queue, for at most `MAX_MESSAGES_PER_CALL` tasks.

        A nonce makes each message body unique: a consumer that compares bodies could take an identical message for a
        duplicate of an earlier one.

        Raises:
            NotQueuedError: SQS did not accept all messages.
        """
        run = {"nonce": nonce} if nonce else {}
        bodies = [json.dumps({"task": task, **run}) for task in tasks]
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        try:
            answer = self._sqs.send_message_batch(
                QueueUrl=self._archive_queue_url,
                Entries=entries,  # type: ignore[arg-type] # a TypedDict of the stubs, which Lambda does not have
            )
        except (ClientError, BotoCoreError) as exc:
            raise NotQueuedError(f"SQS did not accept messages: {_code(exc)}", tasks) from exc
        # Failures are the entries missing in `Successful`, not those in `Failed`: botocore parses a truncated response
        # as an empty one.
        accepted = {entry["Id"] for entry in answer.get("Successful", [])}
        refused = [task for task, entry in zip(tasks, entries, strict=True) if entry["Id"] not in accepted]
        if refused:
            codes = {entry["Code"] for entry in answer.get("Failed", [])}
            reason = ", ".join(sorted(codes)) or "they are missing in its response"
            raise NotQueuedError(f"SQS did not accept {len(refused)} of {len(tasks)} messages: {reason}", refused)

    def start_polling(self, tasks: Sequence[str], *, name: str, wait_seconds: int) -> bool:
        """Starts an execution of the polling state machine for at most `MAX_TASKS_PER_EXECUTION` tasks.

        Returns False if an execution of this name exists already: then no second one is started.
        """
        state = PollState(tasks=tuple(tasks), wait_seconds=wait_seconds)
        try:
            self._step_functions.start_execution(
                stateMachineArn=self._state_machine, name=name, input=state.model_dump_json(by_alias=True)
            )
        except self._step_functions.exceptions.ExecutionAlreadyExists:
            return False
        except (ClientError, BotoCoreError) as exc:
            raise StoreUnavailableError(f"Step Functions did not start an execution: {_code(exc)}") from exc
        return True


def _code(exc: ClientError | BotoCoreError) -> str:
    return exc.response["Error"]["Code"] if isinstance(exc, ClientError) else type(exc).__name__
