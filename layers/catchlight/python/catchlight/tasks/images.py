"""Writes the states and the URLs of tasks' images, and the status of a task that results from them."""

from collections.abc import Mapping
from datetime import datetime

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import GenerationRequest, Image, ImageKind, ImageState, Originals, TaskStatus, iso
from catchlight.tasks.table import TasksTable, complete_request, document, is_as_read, set_status
from catchlight.tasks.task import Task


class TaskImages:
    """Writes images of tasks.

    The arguments of the writing methods are a task as it was read, and images by their position in the task's list
    `images`. These methods raise StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(self, table: TasksTable, *, originals: Originals = Originals.BEST_EFFORT) -> None:
        self._table = table
        self._originals = originals

    def ignores(self, image: Image) -> bool:
        """Decides whether an image is not archived, because the stack ignores originals."""
        return self._originals is Originals.IGNORED and image.kind is ImageKind.ORIGIN

    def is_needed(self, task: Task, image: Image) -> bool:
        """Decides whether the task is INCOMPLETE if this image is not archived."""
        if image.kind is ImageKind.RESULT or self._originals is Originals.REQUIRED:
            return True
        had_expired = image.state is ImageState.EXPIRED and _is_older_than_report(task, image)
        return not (self.ignores(image) or had_expired)

    def save_quarantined(self, task: Task, images: Mapping[int, Image]) -> Task:
        """Writes images whose bytes are in quarantine. The task's status and `updatedAt` do not change.

        Nothing is written if the status or one of these images has changed since the task was read.
        """
        update = UpdateExpression()
        _set_images(update, images)
        conditions = [update.equals("status", task.status.value)]
        for index in images:
            conditions.append(update.equals(f"images[{index}].url", task.images[index].url))
            conditions.append(update.equals(f"images[{index}].state", task.images[index].state.value))
        self._table.update(task.task, update, condition=" AND ".join(conditions))
        all_images = tuple(images.get(index, image) for index, image in enumerate(task.images))
        return task.model_copy(update={"images": all_images})

    def save(
        self,
        task: Task,
        images: Mapping[int, Image],
        *,
        now: datetime,
        known_request: GenerationRequest | None = None,
    ) -> Task:
        """Writes the archiving results of some of a task's images and the resulting status of the task.

        `known_request`: the request's parameters that the item has already; the other ones in `task.request` are added.
        Returns the updated task: ARCHIVED or INCOMPLETE if no image is pending, otherwise with an unchanged status. A
        task without a result image is INCOMPLETE even if its original is archived.
        """
        all_images = tuple(images.get(index, image) for index, image in enumerate(task.images))
        needed = [image for image in all_images if self.is_needed(task, image)]
        if any(image.state is ImageState.PENDING for image in all_images):
            status = task.status
        elif any(image.kind is ImageKind.RESULT for image in needed) and all(
            image.state is ImageState.ARCHIVED for image in needed
        ):
            status = TaskStatus.ARCHIVED
        else:
            status = TaskStatus.INCOMPLETE
        is_final = status.rank > TaskStatus.SUCCEEDED.rank
        update = UpdateExpression()
        _set_images(update, images)
        set_status(update, status, now)
        if task.confirmed_at:
            update.set_once("confirmedAt", task.confirmed_at)
            if task.provider_record:  # updated with the answer that confirmed the task
                update.set("providerRecord", document(task.provider_record))
        complete_request(update, task.request, known_request)
        if is_final:
            update.set("archivedAt", iso(now))
            # Another invocation may have made the task UNCONFIRMED meanwhile, which sets `failure`.
            update.remove("failure")
            self._table.set_delete_after(update, status, now)
        # Two invocations may archive the same task concurrently. They store the same objects; the higher rank remains.
        has_no_higher_rank = "#rank <= :rank"
        # A correction may have appended images to the list: with a final status, these would not be archived.
        has_no_more_images = update.equals(f"images[{len(task.images)}]", None)
        conditions = [has_no_higher_rank, has_no_more_images]
        for index, image in enumerate(task.images):
            if index in images:
                # An image that was replaced or corrected meanwhile has another URL, and its own message in the queue.
                conditions.append(update.equals(f"images[{index}].url", image.url))
            is_archived = index in images and images[index].state is ImageState.ARCHIVED
            if not is_archived and (index in images or is_final):
                # An image that another invocation has archived remains ARCHIVED. A final status is correct only if the
                # images that this call does not write still have the states that were read.
                conditions.append(update.equals(f"images[{index}].state", image.state.value))
        self._table.update(task.task, update, condition=" AND ".join(conditions))
        return task.model_copy(update={"status": status, "rank": status.rank, "images": all_images})

    def replace(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> bool:
        """Replaces some of a task's images, so that they are archived (again).

        The task's status becomes SUCCEEDED. If it was INCOMPLETE, the change of status in the table's stream starts
        archiving. Returns False, without writing, if the task has changed since it was read.
        """
        update = UpdateExpression()
        _set_images(update, images)
        set_status(update, TaskStatus.SUCCEEDED, now)
        update.remove("archivedAt")
        self._table.set_delete_after(update, TaskStatus.SUCCEEDED, now)
        return self._table.update(task.task, update, condition=is_as_read(task, update)).is_applied


def _is_older_than_report(task: Task, image: Image) -> bool:
    """Decides whether an image's URL had expired before the report of its task was received."""
    return task.reported_time is not None and image.expires_at <= task.reported_time


def _set_images(update: UpdateExpression, images: Mapping[int, Image]) -> None:
    for index, image in images.items():
        update.set(f"images[{index}]", document(image))
