"""Archives a task's images: from the provider's URL into the bucket, once each."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from catchlight.archiving.bucket import ImageBucket, folder
from catchlight.archiving.confirmation import Confirmation, ConfirmationResult
from catchlight.archiving.priority_pool import PriorityThreadPool
from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.errors import (
    ImageGoneError,
    ImageRejectedError,
    ImageTasksError,
    ImageUnavailableError,
)
from catchlight.images.fetcher import ImageFetcher
from catchlight.models import Image, ImageState, Task, TaskStatus, by_place, split_task_key
from catchlight.providers import PROVIDERS
from catchlight.tasks.table import TasksTable

# One image ARCHIVED or REJECTED, or why it is to be tried again.
Result = Image | Exception


@dataclass(frozen=True, slots=True)
class ArchiveRun:
    """What one run made of a task."""

    task: Task  # as this run left it
    images: tuple[Image, ...] = ()  # those that this run finished
    failures: tuple[Exception, ...] = ()  # why the message is to come back
    renewed: int = 0  # images for which the provider had a fresh URL
    is_contradicted: bool = False  # a callback claimed a result that the provider does not have

    @property
    def urls_die_at(self) -> datetime | None:
        """When the first URL dies of those that are still to be archived."""
        pending = (image for image in self.task.images if image.state is ImageState.PENDING)
        return min((image.expires_at for image in pending), default=None)


class ImageArchive:
    """Copies images into the bucket and writes what became of them into the task. Thread-safe."""

    def __init__(
        self,
        table: TasksTable,
        confirmation: Confirmation,
        url_refresher: UrlRefresher,
        fetcher: ImageFetcher,
        bucket: ImageBucket,
        *,
        additional_hosts: Iterable[str],
        pool: PriorityThreadPool,
        now: Callable[[], datetime],
    ) -> None:
        self._table = table
        self._confirmation = confirmation
        self._url_refresher = url_refresher
        self._fetcher = fetcher
        self._bucket = bucket
        self._additional_hosts = tuple(additional_hosts)
        self._pool = pool
        self._now = now

    def archive(self, task_key: str, *, is_last_try: bool, deadline: float = float("inf")) -> ArchiveRun | None:
        """Archives every image of a task that is pending, side by side; of all tasks' images the one first that dies
        first.

        No image is begun after `deadline` (on the monotonic clock): what was not is left to the next message.
        Nothing is fetched before the provider has confirmed what came by callback, where it can be asked; and no image
        is EXPIRED before the provider was asked for a fresh URL.
        Returns None where there is nothing to do: the task is gone, or further than SUCCEEDED already.

        Raises:
            StoreUnavailableError: the message is to come back; objects that were written are recognised then.
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
            # Before the status says that everything is there.
            self._bucket.put_request(task)
        if settled or not failures:
            # One write for all images: a crash before it costs a repetition, in which S3 says what is there.
            task = self._table.save_images(task, settled, now=self._now(), known_request=checked.known_request)
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
            return ImageUnavailableError("there was no time left for it")
        provider = PROVIDERS.get(split_task_key(task.task)[0])
        allowed_hosts = (*(provider.image_hosts if provider else ()), *self._additional_hosts)
        try:
            with self._fetcher.fetch(image.url, allowed_hosts) as incoming:
                key = f"{key_stem}.{incoming.format.extension}"
                sha256 = self._bucket.put(key, incoming, task=task.task)
                facts, size = incoming.complete(), incoming.size
        except ImageUnavailableError as exc:
            return exc
        except ImageRejectedError as exc:
            return image.model_copy(update={"state": ImageState.REJECTED, "reason": str(exc)})
        except Exception as exc:  # noqa: BLE001 - a bug that one image meets must not cost the task its other images
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
                "archived_at": self._now(),
            }
        )
