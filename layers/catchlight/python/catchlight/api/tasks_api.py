"""Implements the tasks API without submissions and independent of HTTP: registers, lists and looks up tasks."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from catchlight.api.presigned_urls import PresignedLinks
from catchlight.api.problems import (
    IMAGE_NOT_ARCHIVED,
    NO_SUCH_IMAGE,
    NO_SUCH_TASK,
    UNREADABLE_ITEM,
    APIError,
)
from catchlight.api.queries import TaskQueries
from catchlight.api.request_models import ImageQuery, PageQuery, Registration, TaskQuery
from catchlight.api.response_models import FINAL_STATUSES, NewTask, RegisteredTasks, TaskPage, TaskResponse
from catchlight.api.routes import StoredTask, UnreadableItemError, page_answer, stored_task, task_answer
from catchlight.api.wait_slots import WaitSlots
from catchlight.models import Image, ImageKind, ImageState, TaskStatus, by_place, is_task_key, task_key
from catchlight.tasks.registration import Registry

IMAGE_PATTERN = r"^(origin|result)-(0|[1-9][0-9]?)$"
# Retry-After of requests for an image that is not archived yet: archiving usually takes a few seconds.
NOT_ARCHIVED_RETRY_SECONDS = 5
# Retry-After of requests that cannot wait because too many others do: 250 such callers make 50 requests a second, the
# API's limit.
BUSY_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class AwaitedTask:
    """A task, and the seconds after which to repeat the request if it could not wait for the task."""

    task: TaskResponse
    retry_after_seconds: int | None


@dataclass(frozen=True, slots=True)
class TasksApi:
    """Registers, lists and looks up tasks, and signs links to their images.

    Every method raises APIError if it refuses the request, and StoreUnavailableError if a DynamoDB call fails.
    """

    queries: TaskQueries
    registry: Registry
    wait_slots: WaitSlots
    links: Callable[[int], PresignedLinks]  # called with the lifetime of the links in seconds
    now: Callable[[], datetime]

    def register(self, registration: Registration) -> RegisteredTasks:
        """Registers tasks. If an id occurs twice in a request, the outcome of its second occurrence is `known`."""
        ids = list(dict.fromkeys(registration.task_ids))
        are_new = self.registry.register(
            registration.provider, ids, now=self.now(), metadata=registration.metadata, ref=registration.ref
        )
        is_new = dict(zip(ids, are_new, strict=True))
        return RegisteredTasks(
            tasks=tuple(
                NewTask(
                    task=task_key(registration.provider, task_id),
                    provider=registration.provider,
                    task_id=task_id,
                    outcome="registered" if is_new.pop(task_id, False) else "known",
                )
                for task_id in registration.task_ids
            )
        )

    def page(self, query: PageQuery) -> TaskPage:
        """Returns one page of tasks, newest first."""
        return page_answer(self.queries.page(query), self.links(query.link_seconds))

    def task(self, provider_id: str, task_id: str, query: TaskQuery, *, max_wait_seconds: float) -> AwaitedTask:
        """Returns one task. Waits until its status is final, for `query.wait` or `max_wait_seconds` at most.

        Does not wait if too many other requests are waiting.
        """
        task = self._find(provider_id, task_id)
        wait_seconds = min(query.wait, max_wait_seconds)
        retry_after_seconds = None
        if wait_seconds > 0 and task.status not in FINAL_STATUSES:
            with self.wait_slots.slot() as may_wait:
                if may_wait:
                    task = self._find(provider_id, task_id, wait_seconds=wait_seconds)
                else:
                    retry_after_seconds = BUSY_RETRY_SECONDS
        return AwaitedTask(task_answer(task, self.links(query.link_seconds)), retry_after_seconds)

    def image_link(self, provider_id: str, task_id: str, image: str, query: ImageQuery) -> str:
        """Returns a link to an archived image, or to its bytes in quarantine. `image` has the form `{kind}-{index}`."""
        match = re.fullmatch(IMAGE_PATTERN, image)
        if match is None:
            raise _no_such_image("expected {kind}-{index}, such as result-0", "Use an image in the task's `images`.")
        task = self._find(provider_id, task_id)
        found = by_place(task.images).get((ImageKind(match[1]), int(match[2])))
        links = self.links(query.link_seconds)
        if query.quarantined:
            return _quarantine_link(links, found, image)
        link = links.link(found) if found else None
        if link is None:
            raise _no_link(task, found, image)
        return link

    def _find(self, provider_id: str, task_id: str, *, wait_seconds: float = 0) -> StoredTask:
        task = task_key(provider_id, task_id)
        item = self.queries.item(task, wait_seconds=wait_seconds) if is_task_key(task) else None
        if item is None:
            # The id is in the message for callers that look up many tasks.
            raise no_such_task(f"{provider_id}/{task_id}" if is_task_key(task) else "such a task")
        try:
            return stored_task(item)
        except UnreadableItemError as exc:
            raise APIError(
                UNREADABLE_ITEM,
                f"the task's item in the table is malformed: {exc}",
                advice="The item was edited by hand: correct it, or delete it and register the task.",
            ) from exc


def no_such_task(named: str) -> APIError:
    """Returns the error for a task that is not in the table."""
    return APIError(
        NO_SUCH_TASK,
        f"{named} is not registered, and no callback for it has arrived",
        advice="Check the provider and the task id. If the provider has the task, register it: POST /tasks "
        '{"provider": "...", "taskIds": ["..."]}.',
    )


def _no_link(task: StoredTask, image: Image | None, name: str) -> APIError:
    """Returns the error for an image that is not archived in the stack's bucket."""
    if image is None:
        if task.status is TaskStatus.PENDING:
            return _not_yet("the task is PENDING, it has no images yet")
        if task.status.rank < TaskStatus.SUCCEEDED.rank:
            return _no_such_image(
                f"the task is {task.status}, it has no images", "See its `failure`: GET /tasks/{provider}/{taskId}."
            )
        return _no_such_image(f"the task has no {name}", "See GET /tasks/{provider}/{taskId} for the images it has.")
    if task.status is TaskStatus.UNCONFIRMED and image.state is ImageState.PENDING:
        return _no_such_image(
            f"{name} is in quarantine: the provider has not confirmed the callback", "See the task's `failure`."
        )
    if image.state is ImageState.PENDING:
        return _not_yet(f"{name} is being archived")
    if image.state is ImageState.ARCHIVED:
        return _no_such_image(f"{name} is archived in another bucket", "See its `bucket` and `key`.")
    return _no_such_image(f"{name} could not be archived: {image.reason or image.state}", "See the task's `images`.")


def _quarantine_link(links: PresignedLinks, image: Image | None, name: str) -> str:
    if image is None or image.quarantine is None:
        raise _no_such_image(f"nothing is in quarantine for {name}", "See the task's `images`.")
    return links.link_to(image.quarantine.key)


def _not_yet(detail: str) -> APIError:
    return APIError(
        IMAGE_NOT_ARCHIVED,
        detail,
        advice="Repeat GET /tasks/{provider}/{taskId}?wait=20 until the task is `done`.",
        retry_after_seconds=NOT_ARCHIVED_RETRY_SECONDS,
    )


def _no_such_image(detail: str, advice: str) -> APIError:
    return APIError(NO_SUCH_IMAGE, detail, advice=advice)
