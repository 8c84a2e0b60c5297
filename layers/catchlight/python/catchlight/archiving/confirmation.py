"""Holds a callback's claim against what the provider itself says.

Whoever knows the token can post a callback, and where a provider signs, the signature covers id and time only. So a
result that came by callback is a claim until the provider, asked with our own key, says the same.
"""

from dataclasses import dataclass

from catchlight.errors import UnconfirmedError
from catchlight.models import GenerationRequest, Task, TaskStatus, iso
from catchlight.polling.status_lookup import StatusLookup
from catchlight.tasks.table import TasksTable


@dataclass(frozen=True, slots=True)
class ConfirmationResult:
    """A task after its claim was checked, as it is in the table now."""

    task: Task
    is_contradicted: bool = False  # the provider says something else: the claim is kept as evidence
    was_asked: bool = False  # the URLs are the provider's own of this moment
    known_request: GenerationRequest | None = None  # what the item says; the task has what the provider says besides


class Confirmation:
    """Confirms or corrects single tasks. Thread-safe."""

    def __init__(self, table: TasksTable, status_lookup: StatusLookup) -> None:
        self._table = table
        self._status_lookup = status_lookup

    def check(self, task: Task, *, is_last_try: bool) -> ConfirmationResult:
        """The task with URLs and status as the provider has them.

        A task that a poll brought, or whose provider has no API key here, comes back as it is. "Still running" is not
        the opposite of a success at once: a record may lag behind its callback. On the last try it is.

        Raises:
            ProviderError: the provider could not be asked.
            UnconfirmedError: it does not know of a result yet, or the task has changed meanwhile. Try again.
            StoreUnavailableError: what it says could not be written.
        """
        answer = self._status_lookup.ask(task.task) if task.is_unconfirmed else None
        if answer is None:
            return ConfirmationResult(task)
        if answer.status is TaskStatus.PENDING and not is_last_try:
            raise UnconfirmedError("the provider does not confirm the callback's result yet")
        if task.says_the_same_as(answer):
            # A callback tells less of it than the provider's record, and who has submitted the task knows no seeds.
            request = task.request.completed_by(answer.request) if task.request else answer.request
            learned = {"confirmed_at": iso(answer.reported_at), "request": request}
            return ConfirmationResult(task.model_copy(update=learned), was_asked=True, known_request=task.request)
        if not self._table.correct(task, answer):
            raise UnconfirmedError("the task has changed while its provider was asked")
        corrected = self._table.get(task.task)
        # It may be a claim again: one that came in between, and is not what was checked.
        if corrected is None or corrected.is_unconfirmed:
            raise UnconfirmedError("the task has changed after its correction")
        return ConfirmationResult(corrected, is_contradicted=task.is_contradicted_by(answer), was_asked=True)
