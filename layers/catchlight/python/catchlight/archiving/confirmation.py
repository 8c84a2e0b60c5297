"""Asks providers whether the results of callbacks are true."""

from catchlight.errors import UnconfirmedError
from catchlight.models import Task, TaskStatus
from catchlight.polling.status_lookup import StatusLookup
from catchlight.tasks.confirmations import ConfirmationResult, Confirmations


class CallbackConfirmation:
    """Confirms or corrects single tasks. Thread-safe."""

    def __init__(self, confirmations: Confirmations, status_lookup: StatusLookup) -> None:
        self._confirmations = confirmations
        self._status_lookup = status_lookup

    def check(self, task: Task, *, is_last_try: bool) -> ConfirmationResult:
        """Checks an unconfirmed task with its provider and returns it with the provider's status and URLs.

        A task that was reported by a poll or is confirmed already, or whose provider has no API key here, is returned
        unchanged. If the provider reports "still running", this contradicts a success only on the last try: the
        provider's record may be updated after its callback was sent.

        Raises:
            ProviderError: the status request failed.
            UnconfirmedError: the provider reports no result yet, or the task has changed meanwhile. Try again.
            StoreUnavailableError: the provider's report could not be written.
        """
        answer = self._status_lookup.ask(task.task) if task.is_unconfirmed else None
        if answer is None:
            return ConfirmationResult(task)
        if answer.status is TaskStatus.PENDING and not is_last_try:
            raise UnconfirmedError("the provider does not confirm the callback's result yet")
        result = self._confirmations.settle(task, answer)
        if result is None:
            raise UnconfirmedError("the task has changed while its provider was asked")
        return result
