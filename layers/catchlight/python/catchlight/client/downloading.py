"""Archived images into a folder, checked against what was archived."""

import hashlib
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import httpx

from catchlight.api.schemas import MAX_TASKS_PER_PAGE, ImageResponse, TaskResponse
from catchlight.client.errors import DownloadError, TasksApiError
from catchlight.client.tasks_client import TasksClient
from catchlight.models import ImageKind, ImageState, Model

# What a home's line and one session of S3 take; more only makes each of them slower.
SIDE_BY_SIDE = 4
# A link that dies sooner is not begun with.
_LINK_MARGIN = timedelta(seconds=30)
_EXTENSIONS = frozenset({"jpg", "png", "webp", "gif", "avif"})
_MAX_NAME_CHARACTERS = 180


class Download(Model):
    """What became of one image."""

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
) -> Iterator[Download]:
    """Saves the images of tasks, some at a time, and tells of each as it is done.

    What is there already is left alone; what was broken off goes on where it ended; no other file is overwritten.
    Tasks are taken a page at a time, as they are needed.

    Raises:
        TasksApiError: the next tasks cannot be had. What fails for one image is told in its Download.
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    seen: set[str] = set()
    remaining = iter(tasks)
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="download") as pool:
        try:
            while page := list(islice(remaining, MAX_TASKS_PER_PAGE)):
                savers = [
                    _ImageSaver(api, task, image, folder, stop)
                    for task in _not_seen(page, seen)
                    for image in task.images
                    if image.kind in kinds
                ]
                for future in as_completed([pool.submit(saver.save) for saver in savers]):
                    yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _not_seen(tasks: Iterable[TaskResponse], seen: set[str]) -> Iterator[TaskResponse]:
    """A task that changes while pages are read may be met twice."""
    for task in tasks:
        if task.task not in seen:
            seen.add(task.task)
            yield task


class _ImageSaver:
    """One image on its way into the folder."""

    def __init__(
        self, api: TasksClient, task: TaskResponse, image: ImageResponse, folder: Path, stop: threading.Event
    ) -> None:
        self._api = api
        self._task = task
        self._image = image
        self._stop = stop
        self._target = folder / file_name(task, image)
        self._partial = self._target.with_name(f".{self._target.name}.part")
        self._link = image.link if _is_alive(image) else None

    def save(self) -> Download:
        if self._image.state is not ImageState.ARCHIVED:
            return self._told("missing", reason=self._image.reason or "it is not archived yet")
        try:
            outcome = self._save()
        except (TasksApiError, OSError) as exc:
            return self._told("failed", reason=str(exc))
        return self._told(outcome, path=str(self._target), bytes=self._target.stat().st_size)

    def _told(self, outcome: str, **what: object) -> Download:
        name = f"{self._image.kind}-{self._image.index}"
        return Download.model_validate(
            {"provider": self._task.provider, "task_id": self._task.task_id, "image": name, "outcome": outcome, **what}
        )

    def _save(self) -> Literal["downloaded", "present"]:
        if self._is_present():
            return "present"
        with self._partial_to_itself():
            if self._is_present():  # somebody else was faster
                self._partial.unlink()
                return "present"
            self._complete_partial()
            if self._is_present():
                self._partial.unlink()
            else:
                self._partial.rename(self._target)
        return "downloaded"

    @contextmanager
    def _partial_to_itself(self) -> Iterator[None]:
        """Keeps other runs, on this machine, from adding to the file that is checked and renamed here."""
        with self._partial.open("ab") as file:
            if not self._is_locked(file):
                raise DownloadError("Another download is saving it at this moment. Try again when that is done.")
            try:
                yield
            finally:
                if not os.fstat(file.fileno()).st_size:  # nothing came
                    self._partial.unlink(missing_ok=True)

    def _is_locked(self, file: IO[bytes]) -> bool:
        try:
            import fcntl  # which Windows does not have

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(file.fileno()), self._partial.stat())
        except (BlockingIOError, FileNotFoundError):  # the latter: renamed since it was opened
            return False
        except (OSError, ImportError):  # there are no locks here: whoever runs it twice has to take care
            return True

    def _complete_partial(self) -> None:
        is_resumed = self._partial.stat().st_size > 0
        self._fetch_all()
        if not self._is_right(self._partial) and is_resumed:
            # The part that was there may have been another image's, or cut off in the middle of a write.
            os.truncate(self._partial, 0)
            self._fetch_all()
        if not self._is_right(self._partial):
            self._partial.unlink()
            raise DownloadError("What came is not what was archived: its SHA-256 differs. Try again.")

    def _is_present(self) -> bool:
        if not os.path.lexists(self._target):
            return False
        if self._target.is_file() and self._is_right(self._target):
            return True
        raise DownloadError(
            f"{self._target} is there already and is something else: move it away, or download into another folder."
        )

    def _is_right(self, path: Path) -> bool:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self._image.sha256

    def _fetch_all(self) -> None:
        self._api.patience.send(self._fetch_rest)

    def _fetch_rest(self) -> None:
        """Adds to the partial file what it lacks; a second call goes on where the first one broke off."""
        have = self._partial.stat().st_size
        if have and have == self._image.bytes:
            return
        if self._image.bytes is not None and have > self._image.bytes:
            have = 0  # begun anew: the answer to a request without a range is written from the start
        if self._link is None:
            self._link = self._api.image_link(
                self._task.provider, self._task.task_id, self._image.kind, self._image.index
            )
        link, self._link = self._link, None  # the next try gets a fresh one
        with self._api.open_link(link, from_byte=have) as response:
            goes_on = response.status_code == HTTPStatus.PARTIAL_CONTENT
            with self._partial.open("ab" if goes_on else "wb") as file:
                self._write(response, file.write)

    def _write(self, response: httpx.Response, write: Callable[[bytes], object]) -> None:
        # As it comes: what is gathered first is lost when the connection is.
        for chunk in response.iter_bytes():
            if self._stop.is_set():
                raise DownloadError("It was broken off.")
            write(chunk)


def _is_alive(image: ImageResponse) -> bool:
    if not (image.link and image.link_expires_at):
        return False
    try:
        return datetime.fromisoformat(image.link_expires_at) > datetime.now(UTC) + _LINK_MARGIN
    except (ValueError, TypeError):
        return False


def file_name(task: TaskResponse, image: ImageResponse) -> str:
    """`{provider}_{taskId}_{kind}-{index}.{ext}`: one folder's worth of names, safe on every file system."""
    suffix = PurePosixPath(image.key or "").suffix.lstrip(".")
    extension = suffix if suffix in _EXTENSIONS else "image"
    stem = f"{task.provider}_{task.task_id}_{image.kind}-{image.index}"
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
    if safe != stem or len(safe) > _MAX_NAME_CHARACTERS:
        # Others may read the same once their letters are gone.
        safe = f"{safe[:_MAX_NAME_CHARACTERS]}-{hashlib.sha256(stem.encode()).hexdigest()[:12]}"
    return f"{safe}.{extension}"
