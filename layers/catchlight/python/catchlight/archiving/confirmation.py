"""Compares the results that callbacks reported with the providers' own records."""

from datetime import datetime

from catchlight.errors import (
    ImageTasksError,
    ProviderError,
    RequestRefusedError,
    UnconfirmedError,
    UnknownTaskError,
)
from catchlight.models import LastAnswer, TaskReport, TaskStatus
from catchlight.polling.no_result import describe, unconfirmed_failure
from catchlight.polling.status_lookup import StatusLookup
from catchlight.tasks.confirmations import ConfirmationResult, Confirmations
from catchlight.tasks.task import Task


class CallbackConfirmation:
    """Confirms or corrects the result of one task at a time. Thread-safe."""

    def __init__(self, confirmations: Confirmations, status_lookup: StatusLookup) -> None:
        self._confirmations = confirmations
        self._status_lookup = status_lookup

    def request_status(self, task: Task) -> TaskReport | None:
        """Requests the status and URLs of an unconfirmed task from its provider.

        Returns None if no request is sent: the task is not unconfirmed, or no API key is configured for its provider.

        Raises:
            ProviderError: the status request failed.
            UnconfirmedError: the provider reports no result yet. It may update its record after it has sent the
                callback.
            SettingsError, StoreUnavailableError: the provider's API key could not be read.
        """
        report = self._status_lookup.request_status(task.task) if task.is_unconfirmed else None
        if report and report.status is TaskStatus.PENDING:
            error = UnknownTaskError if report.answer is LastAnswer.NOT_FOUND else UnconfirmedError
            raise error(describe(report.answer))
        return report

    @staticmethod
    def is_unknown(task: Task, error: ImageTasksError) -> bool:
        """Decides whether a task is known from callbacks only: it is not registered, and its provider does not have it.

        `error`: the error that `request_status` has raised.
        """
        return task.is_unregistered and isinstance(error, UnknownTaskError | RequestRefusedError)

    def mark_unconfirmed(self, task: Task, error: ImageTasksError, *, now: datetime) -> Task | None:
        """Makes the task UNCONFIRMED if `error`, which `request_status` has raised, comes from its provider.

        Returns None if nothing was written: the error is one of this stack, or the task has changed meanwhile.

        Raises:
            StoreUnavailableError: the status could not be written.
        """
        if not isinstance(error, UnconfirmedError | ProviderError):
            return None
        # Such a task is polled for by one execution only: if it was started already, no other one follows.
        is_unknown = self.is_unknown(task, error) and task.polling_since is not None
        return self._confirmations.mark_unconfirmed(task, unconfirmed_failure(error), is_unknown=is_unknown, now=now)

    def settle(self, task: Task, report: TaskReport | None) -> ConfirmationResult:
        """Confirms or corrects a task by its provider's report. Without a report, the task is returned unchanged.

        Raises:
            UnconfirmedError: the task has changed since it was read. Try again.
            StoreUnavailableError: the provider's report could not be written.
        """
        if report is None:
            return ConfirmationResult(task)
        result = self._confirmations.settle(task, report)
        if result is None:
            raise UnconfirmedError("the task has changed during the request to its provider")
        return result
