"""Gives a task that has come to a standstill another try, on an operator's word.

Not a way for news: what a callback or a poll says goes through `TasksTable.record`. Here somebody decides that what was
final shall be tried again, INCOMPLETE and TIMED_OUT included, and every write is conditional on the task's being as it
was read.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.dispatch import Dispatcher
from catchlight.errors import ImageTasksError, ProviderError, UnconfirmedError
from catchlight.models import Image, ImageState, Model, Task, TaskStatus, is_task_key
from catchlight.tasks.table import TasksTable


class Step(StrEnum):
    """What a task is given another try with."""

    ARCHIVE = "archive"  # it is queued for archiving
    REOPEN = "reopen"  # images that were given up are PENDING again, and the stream queues it for archiving
    POLL = "poll"  # polling starts
    REGISTER_ANEW = "register anew"  # it is PENDING again, and the stream starts polling
    NOTHING = "nothing"  # it needs nothing


class Redriven(Model):
    """What became of one task."""

    task: str
    status: TaskStatus | None  # before; None: there is no such task
    step: Step
    url_refresher: int = 0  # images for which the provider had another URL
    remark: str = ""  # for people
    is_failed: bool = False  # nothing was done: it can be tried again


class Redrive:
    """Decides by a task's status what it is given another try with, and does it. Thread-safe."""

    def __init__(
        self, table: TasksTable, url_refresher: UrlRefresher, dispatcher: Dispatcher, *, now: Callable[[], datetime]
    ) -> None:
        self._table = table
        self._url_refresher = url_refresher
        self._dispatcher = dispatcher
        self._now = now

    def plan(self, task_key: str) -> Redriven:
        """What `redrive` would do at this moment. Nobody is asked, nothing is written.

        Raises:
            StoreUnavailableError: the task could not be read.
        """
        return _plan(task_key, self._read(task_key))

    def redrive(self, task_key: str, *, nonce: str) -> Redriven:
        """Gives the task another try.

        The nonce is the run's: messages and executions of another run are others, those of a repeated one the same.
        What goes wrong is told in the answer; a task that fails must not keep the others from their turn.
        """
        planned = Redriven(task=task_key, status=None, step=Step.NOTHING)
        try:
            task = self._read(task_key)
            planned = _plan(task_key, task)
            return planned if task is None else self._do(task, planned, nonce)
        except ImageTasksError as exc:
            return planned.model_copy(update={"is_failed": True, "remark": str(exc)})

    def _read(self, task_key: str) -> Task | None:
        return self._table.get(task_key) if is_task_key(task_key) else None

    def _do(self, task: Task, planned: Redriven, nonce: str) -> Redriven:
        match planned.step:
            case Step.ARCHIVE:
                return self._archive(task, planned, nonce)
            case Step.REOPEN:
                return self._try_images_again(task, planned)
            case Step.REGISTER_ANEW:
                if not self._table.restart(task, now=self._now()):
                    raise UnconfirmedError("the task has changed meanwhile")
            case Step.POLL:
                digest = hashlib.sha256(f"{task.task} {nonce}".encode()).hexdigest()
                self._dispatcher.start_polling([task.task], name=f"redrive-{digest[:40]}", wait_seconds=0)
        return planned

    def _archive(self, task: Task, planned: Redriven, nonce: str) -> Redriven:
        done = self._try_images_again(task, planned)
        self._dispatcher.queue_archiving([task.task], nonce=nonce)
        return done

    def _try_images_again(self, task: Task, planned: Redriven) -> Redriven:
        """Whatever is not archived is PENDING, with a fresh URL where there is one."""
        missing = [index for index, image in enumerate(task.images) if image.state is not ImageState.ARCHIVED]
        remark = planned.remark
        images = {index: _once_more(task.images[index]) for index in missing if task.images[index].state in _GIVEN_UP}
        fresh: dict[int, Image] = {}
        try:
            fresh = self._url_refresher.find(task, missing)
        except ProviderError as exc:
            # The archiver asks again by itself if it has to.
            remark = f"the provider could not be asked for fresh URLs: {exc}"
        images |= fresh
        if images and not self._table.renew(task, images, now=self._now()):
            raise UnconfirmedError("the task has changed meanwhile")
        return planned.model_copy(update={"url_refresher": len(fresh), "remark": remark})


_GIVEN_UP = (ImageState.EXPIRED, ImageState.REJECTED)


def _once_more(image: Image) -> Image:
    return image.model_copy(update={"state": ImageState.PENDING, "reason": None})


def _plan(task_key: str, task: Task | None) -> Redriven:
    step, remark = _step_for(task) if is_task_key(task_key) else (Step.NOTHING, "no task key: provider#taskId")
    return Redriven(task=task_key, status=task.status if task else None, step=step, remark=remark)


def _step_for(task: Task | None) -> tuple[Step, str]:
    if task is None:
        return Step.NOTHING, "there is no such task any more"
    match task.status:
        case TaskStatus.SUCCEEDED:
            return Step.ARCHIVE, ""
        case TaskStatus.INCOMPLETE:
            return Step.REOPEN, ""
        case TaskStatus.TIMED_OUT:
            return Step.REGISTER_ANEW, ""
        case TaskStatus.PENDING:
            return Step.POLL, ""
        case TaskStatus.FAILED if task.is_unconfirmed:
            return Step.POLL, "its failure rests on a callback alone"
        case TaskStatus.FAILED:
            return Step.NOTHING, "the provider says that it failed"
        case TaskStatus.ARCHIVED:
            return Step.NOTHING, "all its images are archived"
