"""Asks providers whether the results of callbacks are true."""

from datetime import datetime

from catchlight.errors import (
    ImageTasksError,
    ProviderError,
    RequestRefusedError,
    UnconfirmedError,
    UnknownTaskError,
)
from catchlight.models import LastAnswer, Task, TaskReport, TaskStatus
from catchlight.polling.giving_up import describe, not_confirmed
from catchlight.polling.status_lookup import StatusLookup
from catchlight.tasks.confirmations import ConfirmationResult, Confirmations


class CallbackConfirmation:
    """Confirms or corrects single tasks. Thread-safe."""

    def __init__(self, confirmations: Confirmations, status_lookup: StatusLookup) -> None:
        self._confirmations = confirmations
        self._status_lookup = status_lookup

    def ask(self, task: Task) -> TaskReport | None:
        """Asks an unconfirmed task's provider for its status and URLs.

        Returns None if there is nothing to ask: the task was reported by a poll or is confirmed already, or its
        provider has no API key here.

        Raises:
            ProviderError: the status request failed.
            UnconfirmedError: the provider reports no result yet. Its record may be updated after its callback was sent.
            SettingsError, StoreUnavailableError: the provider's API key could not be read.
        """
        answer = self._status_lookup.ask(task.task) if task.is_unconfirmed else None
        if answer and answer.status is TaskStatus.PENDING:
            error = UnknownTaskError if answer.answer is LastAnswer.NOT_FOUND else UnconfirmedError
            raise error(describe(answer.answer))
        return answer

    @staticmethod
    def is_unknown(task: Task, error: ImageTasksError) -> bool:
        """Decides whether only callbacks name the task: it is not registered, and its provider has no such task.

        `error`: what `ask` has raised.
        """
        return task.is_unregistered and isinstance(error, UnknownTaskError | RequestRefusedError)

    def give_up(self, task: Task, error: ImageTasksError, *, now: datetime) -> Task | None:
        """Makes the task UNCONFIRMED, if `error` of the last try says that its provider has not confirmed it.

        Returns None if nothing was written: the error is one of this stack, or the task has changed meanwhile.

        Raises:
            StoreUnavailableError: the status could not be written.
        """
        if not isinstance(error, UnconfirmedError | ProviderError):
            return None
        # One execution that polls for such a task is enough.
        is_unknown = self.is_unknown(task, error) and task.polling_since is not None
        return self._confirmations.give_up(task, not_confirmed(error), is_unknown=is_unknown, now=now)

    def settle(self, task: Task, answer: TaskReport | None) -> ConfirmationResult:
        """Confirms or corrects a task by its provider's answer, if there is one.

        Raises:
            UnconfirmedError: the task has changed while its provider was asked. Try again.
            StoreUnavailableError: the provider's report could not be written.
        """
        if answer is None:
            return ConfirmationResult(task)
        result = self._confirmations.settle(task, answer)
        if result is None:
            raise UnconfirmedError("the task has changed while its provider was asked")
        return result
