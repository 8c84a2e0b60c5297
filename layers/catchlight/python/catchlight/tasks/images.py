"""Writes the states and the URLs of tasks' images, and the status of a task that follows from its images."""

from collections.abc import Mapping
from datetime import datetime

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import GenerationRequest, Image, ImageState, Task, TaskStatus, iso
from catchlight.tasks.table import TasksTable, complete_request, document, is_as_read, set_status


class TaskImages:
    """Writes images of tasks.

    Every method takes a task as it was read, and a mapping from positions in the task's list to images. It raises
    StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(self, table: TasksTable) -> None:
        self._table = table

    def save(
        self,
        task: Task,
        images: Mapping[int, Image],
        *,
        now: datetime,
        known_request: GenerationRequest | None = None,
    ) -> Task:
        """Writes the archiving results of some of a task's images and the resulting status of the task.

        `known_request` has the request's parameters that the item contained before the provider was asked; missing ones
        are added. Returns the updated task: ARCHIVED or INCOMPLETE if no image is pending, else with an unchanged
        status. A task without images, whose outputs were all skipped, is INCOMPLETE.
        """
        all_images = tuple(images.get(index, image) for index, image in enumerate(task.images))
        states = {image.state for image in all_images}
        if ImageState.PENDING in states:
            status = task.status
        else:
            status = TaskStatus.ARCHIVED if states == {ImageState.ARCHIVED} else TaskStatus.INCOMPLETE
        is_final = status.rank > TaskStatus.SUCCEEDED.rank
        update = UpdateExpression()
        _set_images(update, images)
        set_status(update, status, now)
        if task.confirmed_at:
            update.set_once("confirmedAt", task.confirmed_at)
            if task.provider_record:  # completed by the answer that confirmed the task
                update.set("providerRecord", document(task.provider_record))
        complete_request(update, task.request, known_request)
        if is_final:
            update.set("archivedAt", iso(now))
            # Another invocation may have made the task UNCONFIRMED meanwhile, with this as the reason.
            update.remove("failure")
            self._table.set_delete_after(update, status, now)
        # Two invocations may archive the same task concurrently. They store the same objects; the higher rank stays.
        ranks_no_higher = "#rank <= :rank"
        # A correction may have appended images to the list: these must not be skipped by a final status.
        has_no_more_images = update.equals(f"images[{len(task.images)}]", None)
        conditions = [ranks_no_higher, has_no_more_images]
        for index, image in enumerate(task.images):
            if index in images:
                # An image that was replaced or corrected meanwhile has another URL and a queue message of its own.
                conditions.append(update.equals(f"images[{index}].url", image.url))
            is_archived = index in images and images[index].state is ImageState.ARCHIVED
            if not is_archived and (index in images or is_final):
                # An image that another invocation has archived stays ARCHIVED. A final status is only correct if the
                # images that this call does not write still have the states that were read.
                conditions.append(update.equals(f"images[{index}].state", image.state.value))
        self._table.update(task.task, update, condition=" AND ".join(conditions))
        return task.model_copy(update={"status": status, "rank": status.rank, "images": all_images})

    def replace(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> bool:
        """Replaces some of a task's images, so that they are archived (again).

        The task's status becomes SUCCEEDED. If it was INCOMPLETE, the stream's change of status starts the archiver.
        Returns False, without writing, if the task has changed since it was read.
        """
        update = UpdateExpression()
        _set_images(update, images)
        set_status(update, TaskStatus.SUCCEEDED, now)
        update.remove("archivedAt")
        self._table.set_delete_after(update, TaskStatus.SUCCEEDED, now)
        return self._table.update(task.task, update, condition=is_as_read(task, update)).is_applied


def _set_images(update: UpdateExpression, images: Mapping[int, Image]) -> None:
    for index, image in images.items():
        update.set(f"images[{index}]", document(image))
