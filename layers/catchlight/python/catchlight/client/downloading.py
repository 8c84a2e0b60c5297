"""Downloads archived images into a folder and verifies their SHA-256 checksums."""

import hashlib
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from catchlight.api.schemas import MAX_TASKS_PER_PAGE, ImageResponse, TaskResponse
from catchlight.client.errors import DownloadError, TasksApiError
from catchlight.client.tasks_client import TasksClient
from catchlight.models import ImageKind, ImageState, Model

# Four parallel downloads use the whole bandwidth of a home connection; more would only slow each other down.
MAX_PARALLEL_DOWNLOADS = 4
# A link that expires sooner is replaced before its first use.
_LINK_MARGIN = timedelta(seconds=30)
_EXTENSIONS = frozenset({"jpg", "png", "webp", "gif", "avif"})
_MAX_NAME_CHARACTERS = 180


class Download(Model):
    """The outcome for one image."""

    provider: str
    task_id: str
    image: str  # `result-0`
    outcome: Literal["downloaded", "present", "missing", "failed"]
    path: str | None = None
    bytes: int | None = None
    reason: str | None = None  # why it is missing or failed


def download(
    api: TasksClient,
    tasks: Iterable[TaskResponse],
    folder: Path,
    *,
    kinds: Collection[ImageKind] = tuple(ImageKind),
    quarantined: bool = False,
) -> Iterator[Download]:
    """Saves the images of tasks into a folder, MAX_PARALLEL_DOWNLOADS at a time, and yields the outcome of each image.

    Images that were saved before are skipped, interrupted downloads are resumed, and other files are never
    overwritten. Tasks are taken from `tasks` a page at a time, as they are needed.
    With `quarantined`, the bytes that were kept instead of archived images are saved, as files that end in
    `.quarantined`. They come from servers that are not trusted.

    Raises:
        TasksApiError: the next tasks could not be read. The failure of one image is reported in its Download instead.
        OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    seen: set[str] = set()
    remaining = iter(tasks)
    with ThreadPoolExecutor(MAX_PARALLEL_DOWNLOADS, thread_name_prefix="download") as pool:
        try:
            while page := list(islice(remaining, MAX_TASKS_PER_PAGE)):
                savers = [
                    _ImageSaver(api, task, image, folder, stop, quarantined=quarantined)
                    for task in _deduplicated(page, seen)
                    for image in images_to_save(task, kinds, quarantined=quarantined)
                ]
                for future in as_completed([pool.submit(saver.save) for saver in savers]):
                    yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def images_to_save(task: TaskResponse, kinds: Collection[ImageKind], *, quarantined: bool) -> list[ImageResponse]:
    """Returns the images that `download` tries to save: with `quarantined`, those with bytes in quarantine."""
    return [image for image in task.images if image.kind in kinds and (image.quarantine or not quarantined)]


def _deduplicated(tasks: Iterable[TaskResponse], seen: set[str]) -> Iterator[TaskResponse]:
    """Yields each task once: a task that changes while pages are read may be on two of them."""
    for task in tasks:
        if task.task not in seen:
            seen.add(task.task)
            yield task


class _ImageSaver:
    """Downloads one image into a partial file, verifies it, and renames it to its final name."""

    def __init__(
        self,
        api: TasksClient,
        task: TaskResponse,
        image: ImageResponse,
        folder: Path,
        stop: threading.Event,
        *,
        quarantined: bool,
    ) -> None:
        self._api = api
        self._task = task
        self._image = image
        self._stop = stop
        self._object = image.quarantine if quarantined and image.quarantine else image
        self._quarantined = quarantined
        self._target = folder / file_name(task, image, quarantined=quarantined)
        self._partial = self._target.with_name(f".{self._target.name}.part")
        self._link = image.link if _is_valid_link(image) and not quarantined else None

    def save(self) -> Download:
        if self._image.state is not ImageState.ARCHIVED and not self._quarantined:
            return self._result("missing", reason=self._image.reason or "not archived yet")
        try:
            outcome = self._save()
        except (TasksApiError, OSError) as exc:
            return self._result("failed", reason=str(exc))
        return self._result(outcome, path=str(self._target), bytes=self._target.stat().st_size)

    def _result(self, outcome: str, **details: object) -> Download:
        name = f"{self._image.kind}-{self._image.index}"
        return Download.model_validate(
            {
                "provider": self._task.provider,
                "task_id": self._task.task_id,
                "image": name,
                "outcome": outcome,
                **details,
            }
        )

    def _save(self) -> Literal["downloaded", "present"]:
        if self._is_present():
            return "present"
        with self._partial_locked():
            if self._is_present():  # another process has saved it meanwhile
                self._partial.unlink()
                return "present"
            self._complete_partial()
            if self._is_present():
                self._partial.unlink()
            else:
                self._partial.rename(self._target)
        return "downloaded"

    @contextmanager
    def _partial_locked(self) -> Iterator[None]:
        """Locks the partial file against other processes on this machine until it is verified and renamed."""
        with self._partial.open("ab") as file:
            if not self._is_locked(file):
                raise DownloadError("Another process is downloading it. Try again when that process has ended.")
            try:
                yield
            finally:
                if not os.fstat(file.fileno()).st_size:  # nothing was downloaded
                    self._partial.unlink(missing_ok=True)

    def _is_locked(self, file: IO[bytes]) -> bool:
        try:
            import fcntl  # not available on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(file.fileno()), self._partial.stat())
        except (BlockingIOError, FileNotFoundError):  # FileNotFoundError: renamed since it was opened
            return False
        except (OSError, ImportError):  # no file locks on this system: parallel runs are not prevented
            return True

    def _complete_partial(self) -> None:
        is_resumed = self._partial.stat().st_size > 0
        self._api.retry_policy.call(self._fetch)
        if not self._is_verified(self._partial) and is_resumed:
            # The partial file of an earlier run may belong to another image, or end with an incomplete write.
            os.truncate(self._partial, 0)
            self._api.retry_policy.call(self._fetch)
        if not self._is_verified(self._partial):
            self._partial.unlink()
            raise DownloadError(
                "The SHA-256 of the downloaded bytes differs from that of the stored object. Try again."
            )

    def _is_present(self) -> bool:
        if not os.path.lexists(self._target):
            return False
        if self._target.is_file() and self._is_verified(self._target):
            return True
        raise DownloadError(
            f"{self._target} exists and is another file. Move it away, or download into another folder."
        )

    def _is_verified(self, path: Path) -> bool:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self._object.sha256

    def _fetch(self) -> None:
        """Downloads the bytes that the partial file lacks; a second call resumes where the first one ended."""
        size = self._partial.stat().st_size
        if size and size == self._object.bytes:
            return
        if self._object.bytes is not None and size > self._object.bytes:
            size = 0  # the response to a request without a range overwrites the file from its start
        if self._link is None:
            self._link = self._api.image_link(
                self._task.provider,
                self._task.task_id,
                self._image.kind,
                self._image.index,
                quarantined=self._quarantined,
            )
        link, self._link = self._link, None  # a retry requests a new link
        with self._api.open_link(link, from_byte=size) as response:
            is_resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
            with self._partial.open("ab" if is_resumed else "wb") as file:
                # Written chunk by chunk: if the connection is lost, the bytes received so far are kept.
                for chunk in response.iter_bytes():
                    if self._stop.is_set():
                        raise DownloadError("The download was cancelled.")
                    file.write(chunk)


def _is_valid_link(image: ImageResponse) -> bool:
    if not (image.link and image.link_expires_at):
        return False
    try:
        return datetime.fromisoformat(image.link_expires_at) > datetime.now(UTC) + _LINK_MARGIN
    except (ValueError, TypeError):
        return False


def file_name(task: TaskResponse, image: ImageResponse, *, quarantined: bool = False) -> str:
    """Returns a unique file name, `{provider}_{taskId}_{kind}-{index}.{ext}`, valid on every file system."""
    suffix = PurePosixPath(image.key or "").suffix.lstrip(".")
    # No program opens a file of this extension by a double click.
    extension = "quarantined" if quarantined else suffix if suffix in _EXTENSIONS else "image"
    stem = f"{task.provider}_{task.task_id}_{image.kind}-{image.index}"
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
    if safe != stem or len(safe) > _MAX_NAME_CHARACTERS:
        # Different names may become equal when characters are replaced or cut: a hash keeps them apart.
        safe = f"{safe[:_MAX_NAME_CHARACTERS]}-{hashlib.sha256(stem.encode()).hexdigest()[:12]}"
    return f"{safe}.{extension}"
