"""Converts items of the tasks table into response models of the tasks API."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from catchlight.api.presigned_urls import PresignedLinks
from catchlight.api.queries import Page
from catchlight.api.response_models import FINAL_STATUSES, ImageResponse, TaskPage, TaskResponse
from catchlight.aws.dynamodb import malformed_attributes
from catchlight.errors import ImageTasksError
from catchlight.models import Image, ImageKind, by_place, split_task_key
from catchlight.tasks.task import Task

# Lambda limits a response to 6 MB. It sends the body as a JSON string in UTF-8, in which quotes and backslashes take
# two bytes each. A task with the usual two images has 5 KB in this form, including links; the largest item (400 KB)
# has less than 3 MB.
MAX_PAGE_BYTES = 4 * 1024 * 1024


class UnreadableItemError(ImageTasksError):
    """The item is not a valid task, because it was edited by hand. The message names the malformed attributes."""


class StoredTask(Task):
    """A task, with the attributes that only the tasks API reads."""

    idempotency_key: str | None = None
    arrived_at: str | None = None


def stored_task(item: Mapping[str, Any]) -> StoredTask:
    """Validates an item of the tasks table and returns it as a task.

    Raises:
        UnreadableItemError: the item is not a valid task.
    """
    try:
        task = StoredTask.model_validate(item)
        split_task_key(task.task)
    except ValidationError as exc:
        raise UnreadableItemError(malformed_attributes(exc)) from exc
    except ValueError as exc:
        raise UnreadableItemError("task") from exc
    return task


def task_answer(task: StoredTask, links: PresignedLinks) -> TaskResponse:
    """Converts a task into its response model, with links to its archived images."""
    provider, task_id = split_task_key(task.task)
    return TaskResponse.model_validate(
        {
            **task.model_dump(exclude={"images"}, by_alias=True, exclude_none=True),
            "provider": provider,
            "taskId": task_id,
            "done": task.status in FINAL_STATUSES,
            "images": [
                _image_answer(image, kind, index, links) for (kind, index), image in by_place(task.images).items()
            ],
        }
    )


def _image_answer(image: Image, kind: ImageKind, index: int, links: PresignedLinks) -> ImageResponse:
    link = links.link(image)
    return ImageResponse.model_validate(
        {
            **image.model_dump(),
            "kind": kind,
            "index": index,
            "link": link,
            "link_expires_at": links.expire_at if link else None,
        }
    )


def page_answer(page: Page, links: PresignedLinks) -> TaskPage:
    """Converts a page into its response model. It has fewer tasks if it would otherwise exceed MAX_PAGE_BYTES."""
    tasks: list[TaskResponse] = []
    unreadable: dict[str, str] = {}
    size = 0
    cursor = None
    for row in page.rows:
        try:
            answer = task_answer(stored_task(row.item), links)
        except UnreadableItemError as exc:
            unreadable[row.task] = str(exc)
        else:
            size += len(to_json(answer.model_dump_json(by_alias=True, exclude_none=True)))
            if size > MAX_PAGE_BYTES and tasks:
                break
            tasks.append(answer)
        cursor = row.cursor
    else:
        cursor = page.cursor
    return TaskPage(
        tasks=tuple(tasks), cursor=cursor, unreadable=tuple(unreadable), malformed_attributes=unreadable or None
    )
