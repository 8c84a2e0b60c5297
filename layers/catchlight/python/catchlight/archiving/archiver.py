"""Archives the images of a task: copies each from the provider's URL into the bucket once."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from catchlight.archiving.bucket import ImageBucket, folder
from catchlight.archiving.confirmation import CallbackConfirmation
from catchlight.archiving.priority_pool import PriorityThreadPool
from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.errors import (
    ImageGoneError,
    ImageRejectedError,
    ImageTasksError,
    ImageUnavailableError,
)
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.url_policy import ANY_HOST
from catchlight.models import Image, ImageState, Task, TaskStatus, by_place, split_task_key
from catchlight.providers import PROVIDERS
from catchlight.tasks.confirmations import ConfirmationResult
from catchlight.tasks.images import TaskImages
from catchlight.tasks.table import TasksTable

# An image that is ARCHIVED or REJECTED now, or the error after which it is to be retried.
Result = Image | Exception


@dataclass(frozen=True, slots=True)
class ArchiveRun:
    """The result of one archiving run of a task."""

    task: Task  # as after this run
    images: tuple[Image, ...] = ()  # the images that this run settled
    failures: tuple[Exception, ...] = ()  # why the message is to be received again
    renewed: int = 0  # images for which the provider returned a fresh URL
    is_contradicted: bool = False  # the provider contradicts the result that a callback reported

    @property
    def urls_expire_at(self) -> datetime | None:
        """The time when the first URL of the images still to be archived expires; None if there are none."""
        pending = (image for image in self.task.images if image.state is ImageState.PENDING)
        return min((image.expires_at for image in pending), default=None)


class ImageArchive:
    """Copies images into the bucket and writes their new states to the task. Thread-safe."""

    def __init__(
        self,
        table: TasksTable,
        images: TaskImages,
        confirmation: CallbackConfirmation,
        url_refresher: UrlRefresher,
        fetcher: ImageFetcher,
        bucket: ImageBucket,
        *,
        additional_hosts: Iterable[str],
        trusts_confirmed_hosts: bool,
        pool: PriorityThreadPool,
        now: Callable[[], datetime],
    ) -> None:
        self._table = table
        self._images = images
        self._confirmation = confirmation
        self._url_refresher = url_refresher
        self._fetcher = fetcher
        self._bucket = bucket
        self._additional_hosts = tuple(additional_hosts)
        self._trusts_confirmed_hosts = trusts_confirmed_hosts
        self._pool = pool
        self._now = now

    def archive(self, task_key: str, *, is_last_try: bool, deadline: float = float("inf")) -> ArchiveRun | None:
        """Archives all pending images of a task in parallel.

        Among the images of all tasks, those whose URLs expire first are copied first. No copy starts after `deadline`
        (on the monotonic clock): the remaining images are left to the next message.
        If the provider can be queried, images are downloaded only after it has confirmed the callback's result, and an
        image becomes EXPIRED only after a fresh URL was requested.
        Returns None if there is nothing to do: the task does not exist, or its status is not SUCCEEDED (any more).

        Raises:
            StoreUnavailableError: the message is to be received again. Objects written already are recognised then.
        """
        found = self._table.get(task_key)
        if found is None or found.status is not TaskStatus.SUCCEEDED:
            return None
        try:
            checked = self._confirmation.check(found, is_last_try=is_last_try)
        except ImageTasksError as exc:
            return ArchiveRun(found, failures=(exc,))
        if checked.task.status is not TaskStatus.SUCCEEDED:
            return ArchiveRun(checked.task, is_contradicted=checked.is_contradicted)
        return self._archive_images(checked, is_last_try, deadline)

    def _archive_images(self, checked: ConfirmationResult, is_last_try: bool, deadline: float) -> ArchiveRun:
        task, was_asked = checked.task, checked.was_asked
        pending = [index for index, image in enumerate(task.images) if image.state is ImageState.PENDING]
        results = self._copy_all(task, pending, deadline)
        failures: list[Exception] = []
        renewed: list[int] = []
        gone = [index for index, result in results.items() if isinstance(result, ImageGoneError)]
        if gone and not was_asked:
            try:
                task = self._url_refresher.renew(task, gone)
            except ImageTasksError as exc:
                failures.append(exc)
            else:
                was_asked = True
                renewed = [index for index in gone if task.images[index] != checked.task.images[index]]
                results |= self._copy_all(task, renewed, deadline)
        settled = {index: result for index, result in results.items() if isinstance(result, Image)}
        for index, result in results.items():
            if isinstance(result, ImageGoneError) and is_last_try and was_asked:
                settled[index] = task.images[index].model_copy(
                    update={"state": ImageState.EXPIRED, "reason": str(result)}
                )
            elif isinstance(result, Exception):
                failures.append(result)
        if not failures:
            # Before the final status is written: from then on consumers may rely on request.json.
            self._bucket.put_request(task)
        if settled or not failures:
            # One write for all images. After a crash before this write, the next run repeats the copies and S3 reports
            # the objects that exist already.
            task = self._images.save(task, settled, now=self._now(), known_request=checked.known_request)
        return ArchiveRun(task, tuple(settled.values()), tuple(failures), len(renewed), checked.is_contradicted)

    def _copy_all(self, task: Task, indices: Iterable[int], deadline: float) -> dict[int, Result]:
        places = list(by_place(task.images))
        copies = {}
        for index in sorted(indices, key=lambda index: task.images[index].expires_at):
            kind, number = places[index]
            stem = f"{folder(task.task)}/{kind}-{number}"
            image = task.images[index]
            copies[index] = self._pool.submit(image.expires_at, partial(self._copy, task, image, stem, deadline))
        return {index: copy.result() for index, copy in copies.items()}

    def _copy(self, task: Task, image: Image, key_stem: str, deadline: float) -> Result:
        if time.monotonic() > deadline:
            return ImageUnavailableError("no time was left to download it")
        try:
            with self._fetcher.fetch(image.url, self._allowed_hosts(task)) as incoming:
                key = f"{key_stem}.{incoming.format.extension}"
                sha256 = self._bucket.put(key, incoming, task=task.task)
                facts, size = incoming.complete(), incoming.size
        except ImageUnavailableError as exc:
            return exc
        except ImageRejectedError as exc:
            return image.model_copy(update={"state": ImageState.REJECTED, "reason": str(exc)})
        except Exception as exc:  # noqa: BLE001 - a bug met with one image must not stop the task's other images
            return exc
        return image.model_copy(
            update={
                "state": ImageState.ARCHIVED,
                "bucket": self._bucket.name,
                "key": key,
                "bytes": size,
                "sha256": sha256,
                "content_type": facts.content_type,
                "width": facts.width,
                "height": facts.height,
                "orientation": facts.orientation,
                "trailing_bytes": facts.trailing_bytes or None,
                "archived_at": self._now(),
            }
        )

    def _allowed_hosts(self, task: Task) -> tuple[str, ...]:
        if task.is_confirmed and self._trusts_confirmed_hosts:
            return (ANY_HOST,)
        provider = PROVIDERS.get(split_task_key(task.task)[0])
        return (*(provider.image_hosts if provider else ()), *self._additional_hosts)
