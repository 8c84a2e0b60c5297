"""Confirms a callback's result with the provider itself.

Every client that knows the callback token can post a callback, and a provider's signature covers only the task id and
the time. So the result of a callback is unconfirmed until a status request with the user's own API key returns the
same result.
"""

from dataclasses import dataclass

from catchlight.errors import UnconfirmedError
from catchlight.models import GenerationRequest, Task, TaskStatus, iso
from catchlight.polling.status_lookup import StatusLookup
from catchlight.tasks.table import TasksTable


@dataclass(frozen=True, slots=True)
class ConfirmationResult:
    """A task after its unconfirmed result was checked, as it is in the table now."""

    task: Task
    is_contradicted: bool = False  # the provider reports another result: the callback's is kept as evidence
    was_asked: bool = False  # the provider was queried: the URLs are its current ones
    known_request: GenerationRequest | None = None  # as in the item; `task.request` is completed from the provider


class Confirmation:
    """Confirms or corrects single tasks. Thread-safe."""

    def __init__(self, table: TasksTable, status_lookup: StatusLookup) -> None:
        self._table = table
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
        if task.says_the_same_as(answer):
            # The provider's record has more of the request than the callback, and the seeds, which a submission lacks.
            request = task.request.completed_by(answer.request) if task.request else answer.request
            learned = {"confirmed_at": iso(answer.reported_at), "request": request}
            return ConfirmationResult(task.model_copy(update=learned), was_asked=True, known_request=task.request)
        if not self._table.correct(task, answer):
            raise UnconfirmedError("the task has changed while its provider was asked")
        corrected = self._table.get(task.task)
        # The task may be unconfirmed again: another callback arrived in between, which this check did not cover.
        if corrected is None or corrected.is_unconfirmed:
            raise UnconfirmedError("the task has changed after its correction")
        return ConfirmationResult(corrected, is_contradicted=task.is_contradicted_by(answer), was_asked=True)
