"""Retries single tasks whose processing has stopped, on an operator's request.

Unlike `Reports.record`, which writes the reports of callbacks and polls, a redrive also changes tasks with a final
status (INCOMPLETE, TIMED_OUT), because an operator requested it. Every write has the condition that the task has not
changed since it was read.
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.dispatch import Dispatcher, execution_name
from catchlight.errors import ImageTasksError, ProviderError, UnconfirmedError
from catchlight.models import Image, ImageKind, ImageState, Model, TaskStatus, is_task_key
from catchlight.tasks.images import TaskImages
from catchlight.tasks.restarts import Restarts
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task


class Step(StrEnum):
    """The step that retries a task."""

    ARCHIVE = "archive"  # queue the task for archiving
    REOPEN = "reopen"  # make EXPIRED and REJECTED images PENDING; DispatchChanges then queues the task for archiving
    POLL = "poll"  # start polling
    RESTART = "restart"  # make the task PENDING; DispatchChanges then starts polling
    NOTHING = "nothing"  # no retry is needed or possible


class Redriven(Model):
    """The result of redriving one task."""

    task: str
    status: TaskStatus | None  # before the redrive; None: there is no such task
    step: Step
    fresh_urls: int = 0  # images for which the provider returned another URL
    detail: str = ""  # for the operator
    is_failed: bool = False  # the step failed; the redrive can be repeated


class Redrive:
    """Chooses the step that retries a task by the task's status, and carries it out. Thread-safe."""

    def __init__(
        self, table: TasksTable, url_refresher: UrlRefresher, dispatcher: Dispatcher, *, now: Callable[[], datetime]
    ) -> None:
        self._table = table
        self._images = TaskImages(table)
        self._restarts = Restarts(table)
        self._url_refresher = url_refresher
        self._dispatcher = dispatcher
        self._now = now

    def plan(self, task_key: str) -> Redriven:
        """Returns the step that `redrive` would take at this moment. Sends no provider request and writes nothing.

        Raises:
            StoreUnavailableError: the task could not be read.
        """
        return _plan(task_key, self._read(task_key))

    def redrive(self, task_key: str, *, nonce: str) -> Redriven:
        """Retries the task and returns the result.

        `nonce` identifies the run: messages and executions of a repeated run are identical, those of another run are
        not. Errors are returned in the result (`is_failed`, `detail`), so that the caller continues with other tasks.
        """
        planned = Redriven(task=task_key, status=None, step=Step.NOTHING)
        try:
            task = self._read(task_key)
            planned = _plan(task_key, task)
            return planned if task is None else self._take_step(task, planned, nonce)
        except ImageTasksError as exc:
            return planned.model_copy(update={"is_failed": True, "detail": str(exc)})

    def _read(self, task_key: str) -> Task | None:
        return self._table.get(task_key) if is_task_key(task_key) else None

    def _take_step(self, task: Task, planned: Redriven, nonce: str) -> Redriven:
        match planned.step:
            case Step.ARCHIVE:
                redriven = self._retry_images(task, planned)
                self._dispatcher.queue_archiving([task.task], nonce=nonce)
                return redriven
            case Step.REOPEN:
                return self._retry_images(task, planned)
            case Step.RESTART:
                if not self._restarts.reopen(task, now=self._now()):
                    raise UnconfirmedError("the task has changed meanwhile")
            case Step.POLL:
                if task.not_found_at and not self._restarts.search_again(task):
                    raise UnconfirmedError("the task has changed meanwhile")
                self._dispatcher.start_polling([task.task], name=execution_name("redrive", (task.task, nonce)))
        return planned

    def _retry_images(self, task: Task, planned: Redriven) -> Redriven:
        """Makes all images that are not archived PENDING, with a fresh URL if the provider returns one."""
        missing = [index for index, image in enumerate(task.images) if image.state is not ImageState.ARCHIVED]
        detail = planned.detail
        images = {
            index: _pending(task.images[index]) for index in missing if task.images[index].state in _FAILED_STATES
        }
        fresh: dict[int, Image] = {}
        try:
            fresh = self._url_refresher.find(task, missing)
        except ProviderError as exc:
            # The archiver requests fresh URLs itself if it needs them.
            detail = f"fresh URLs could not be requested: {exc}"
        images |= fresh
        if images and not self._images.replace(task, images, now=self._now()):
            raise UnconfirmedError("the task has changed meanwhile")
        return planned.model_copy(update={"fresh_urls": len(fresh), "detail": detail})


_FAILED_STATES = (ImageState.EXPIRED, ImageState.REJECTED)


def _pending(image: Image) -> Image:
    # Without its quarantine, the image is downloaded again: its URL may return other bytes now.
    return image.model_copy(update={"state": ImageState.PENDING, "reason": None, "quarantine": None})


def _plan(task_key: str, task: Task | None) -> Redriven:
    step, detail = (
        _step_for(task) if is_task_key(task_key) else (Step.NOTHING, "not a task key: expected provider#taskId")
    )
    return Redriven(task=task_key, status=task.status if task else None, step=step, detail=detail)


def _step_for(task: Task | None) -> tuple[Step, str]:
    if task is None:
        return Step.NOTHING, "the task no longer exists"
    match task.status:
        case TaskStatus.SUCCEEDED:
            return Step.ARCHIVE, ""
        case TaskStatus.INCOMPLETE if task.skipped and not task.images:
            return Step.NOTHING, "the provider returned no image"
        case TaskStatus.INCOMPLETE if task.images and all(image.kind is ImageKind.ORIGIN for image in task.images):
            return Step.RESTART, "its provider has reported no result"
        case TaskStatus.INCOMPLETE:
            return Step.REOPEN, ""
        case TaskStatus.TIMED_OUT:
            return Step.RESTART, ""
        case TaskStatus.PENDING:
            return Step.POLL, ""
        case TaskStatus.UNCONFIRMED:
            return Step.POLL, "its success is unconfirmed"
        case TaskStatus.FAILED if task.is_unconfirmed:
            return Step.POLL, "its failure is unconfirmed"
        case TaskStatus.FAILED:
            return Step.NOTHING, "the provider confirmed the failure"
        case TaskStatus.ARCHIVED:
            return Step.NOTHING, "all images are archived"
