"""Accepts the results of callbacks that their providers have not confirmed, on an operator's request."""

from collections.abc import Callable
from datetime import datetime

from catchlight.errors import ImageTasksError, UnconfirmedError
from catchlight.models import Model, TaskStatus, is_task_key
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task


class Accepted(Model):
    """The result of accepting one task."""

    task: str
    status: TaskStatus | None  # before; None: there is no such task
    images: int = 0  # number of images in quarantine, from where the archiver copies them
    missing_images: int = 0  # number of the others, which the archiver downloads from their URLs
    reason: str | None = None  # why the task was not accepted


class Acceptance:
    """Makes UNCONFIRMED tasks SUCCEEDED. The archiver then validates their images and copies them from quarantine."""

    def __init__(self, table: TasksTable, *, now: Callable[[], datetime]) -> None:
        self._table = table
        self._confirmations = Confirmations(table)
        self._now = now

    def plan(self, task_key: str) -> Accepted:
        """Returns what `accept` would do at this moment. Writes nothing.

        Raises:
            StoreUnavailableError: the task could not be read.
        """
        return _plan(task_key, self._read(task_key))

    def accept(self, task_key: str) -> Accepted:
        """Accepts the task and returns the result.

        Errors are returned as its `reason`, so that the caller continues with other tasks.
        """
        planned = Accepted(task=task_key, status=None)
        try:
            task = self._read(task_key)
            planned = _plan(task_key, task)
            if task and planned.reason is None and not self._confirmations.accept(task, now=self._now()):
                raise UnconfirmedError("the task has changed meanwhile")
        except ImageTasksError as exc:
            return planned.model_copy(update={"reason": str(exc)})
        return planned

    def _read(self, task_key: str) -> Task | None:
        return self._table.get(task_key) if is_task_key(task_key) else None


def _plan(task_key: str, task: Task | None) -> Accepted:
    if task is None:
        return Accepted(task=task_key, status=None, reason="there is no such task")
    quarantined = sum(image.quarantine is not None for image in task.images)
    return Accepted(
        task=task_key,
        status=task.status,
        images=quarantined,
        missing_images=len(task.images) - quarantined,
        reason=_refusal(task, quarantined),
    )


def _refusal(task: Task, quarantined: int) -> str | None:
    """Returns why a task cannot be accepted; None if it can."""
    if task.status is TaskStatus.ARCHIVED:
        return "its images are archived already"
    if task.status is not TaskStatus.UNCONFIRMED or not task.is_unconfirmed:
        return "it has no unconfirmed result of a callback"
    return None if quarantined else "none of its images is in quarantine"
