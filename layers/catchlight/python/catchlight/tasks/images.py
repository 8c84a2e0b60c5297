"""Writes the states and the URLs of tasks' images, and the status of a task that follows from its images."""

from collections.abc import Mapping
from datetime import datetime

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import GenerationRequest, Image, ImageKind, ImageState, Originals, Task, TaskStatus, iso
from catchlight.tasks.table import TasksTable, complete_request, document, is_as_read, set_status


class TaskImages:
    """Writes images of tasks.

    Every method takes a task as it was read, and a mapping from positions in the task's list to images. It raises
    StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(self, table: TasksTable, *, originals: Originals = Originals.BEST_EFFORT) -> None:
        self._table = table
        self._originals = originals

    def ignores(self, image: Image) -> bool:
        """Decides whether an image is not to be archived."""
        return self._originals is Originals.IGNORED and image.kind is ImageKind.ORIGIN

    def is_needed(self, task: Task, image: Image) -> bool:
        """Decides whether a task without this image is INCOMPLETE."""
        if image.kind is ImageKind.RESULT or self._originals is Originals.REQUIRED:
            return True
        had_expired = image.state is ImageState.EXPIRED and _is_older_than_report(task, image)
        return not (self.ignores(image) or had_expired)

    def keep(self, task: Task, images: Mapping[int, Image]) -> Task:
        """Writes where the bytes of images lie in quarantine. The status and the time of its last change stay.

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

        `known_request` has the request's parameters that the item contained before the provider was asked; missing ones
        are added. Returns the updated task: ARCHIVED or INCOMPLETE if no image is pending, else with an unchanged
        status. A task without a result image is INCOMPLETE, also if its original is archived.
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


def _is_older_than_report(task: Task, image: Image) -> bool:
    """Decides whether an image's URL had expired before its task was reported."""
    return task.reported_time is not None and image.expires_at <= task.reported_time


def _set_images(update: UpdateExpression, images: Mapping[int, Image]) -> None:
    for index, image in images.items():
        update.set(f"images[{index}]", document(image))
