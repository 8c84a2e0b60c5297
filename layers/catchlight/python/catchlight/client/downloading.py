"""Downloads archived images into a folder and verifies their SHA-256 checksums."""

import errno
import functools
import hashlib
import os
import re
import shutil
import stat
import threading
from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from io import BufferedRandom
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from catchlight.api.request_models import MAX_TASKS_PER_PAGE
from catchlight.api.response_models import ImageResponse, TaskResponse
from catchlight.client.errors import DownloadError, TasksApiError
from catchlight.client.tasks_client import TasksClient
from catchlight.models import ImageKind, ImageState, Model

# Four parallel downloads use the whole bandwidth of a home connection; more would only slow each other down.
MAX_PARALLEL_DOWNLOADS = 4
# A link that expires sooner is replaced before its first use.
_LINK_MARGIN = timedelta(seconds=30)
_EXTENSIONS = frozenset({"jpg", "png", "webp", "gif", "avif"})
_MAX_NAME_CHARACTERS = 180
_IS_WINDOWS = os.name == "nt"


class Download(Model):
    """The outcome of the download of one image."""

    provider: str
    task_id: str
    image: str  # `result-0`
    outcome: Literal["downloaded", "present", "missing", "failed"]
    path: str | None = None
    bytes: int | None = None
    reason: str | None = None  # why the image is not archived, or its download failed


def download(
    api: TasksClient,
    tasks: Iterable[TaskResponse],
    folder: Path,
    *,
    kinds: Collection[ImageKind] = tuple(ImageKind),
    quarantined: bool = False,
) -> Generator[Download, None, None]:
    """Saves the images of tasks into a folder, MAX_PARALLEL_DOWNLOADS at a time, and yields the outcome of each image.

    Images that were saved before are skipped, interrupted downloads are resumed, and other files are never
    overwritten. `tasks` is read in batches of MAX_TASKS_PER_PAGE, each when it is needed.
    With `quarantined`, the bytes in quarantine are saved instead, as files that end in `.quarantined`. They come from
    servers that are not trusted.

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
    """Returns the images of these kinds that `download` tries to save; with `quarantined`, those in quarantine."""
    return [image for image in task.images if image.kind in kinds and (image.quarantine or not quarantined)]


def _deduplicated(tasks: Iterable[TaskResponse], seen: set[str]) -> Iterator[TaskResponse]:
    """Yields each task once. A task that changes while pages are read may be on two pages."""
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
        self._result = functools.partial(
            Download, provider=task.provider, task_id=task.task_id, image=f"{image.kind}-{image.index}"
        )
        self._link = image.link if _is_valid_link(image) and not quarantined else None

    def save(self) -> Download:
        if self._image.state is not ImageState.ARCHIVED and not self._quarantined:
            return self._result(outcome="missing", reason=self._image.reason or "not archived yet")
        try:
            outcome = self._save()
        except (TasksApiError, OSError) as exc:
            return self._result(outcome="failed", reason=str(exc))
        return self._result(outcome=outcome, path=str(self._target), bytes=self._target.stat().st_size)

    def _save(self) -> Literal["downloaded", "present"]:
        if self._is_present():
            return "present"
        with self._partial_locked() as partial:
            if self._is_present():  # another process has saved it meanwhile
                return "present"
            self._complete(partial)
            self._publish(partial)
        return "downloaded"

    @contextmanager
    def _partial_locked(self) -> Iterator[BufferedRandom]:
        """Opens the partial file and locks it against other processes on this machine.

        Afterwards the file is removed if the image was published or no byte has arrived. Otherwise the next run resumes
        the download.
        """
        with _opened(self._partial, os.O_RDWR | os.O_CREAT) as file:
            if not self._is_locked(file):
                raise DownloadError("Another process is downloading it. Try again when that process has ended.")
            try:
                yield file
            finally:
                is_done = not os.fstat(file.fileno()).st_size or os.path.lexists(self._target)
                if is_done and not _IS_WINDOWS:
                    self._partial.unlink(missing_ok=True)
        if is_done and _IS_WINDOWS:  # Windows cannot remove an open file
            self._partial.unlink(missing_ok=True)

    def _is_locked(self, file: BufferedRandom) -> bool:
        try:
            import fcntl  # not available on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(file.fileno()), self._partial.lstat())
        except (BlockingIOError, FileNotFoundError):  # FileNotFoundError: published since it was opened
            return False
        except (OSError, ImportError):  # no file locks on this system: parallel runs are not prevented
            return True

    def _complete(self, partial: BufferedRandom) -> None:
        is_resumed = partial.seek(0, os.SEEK_END) > 0
        self._api.retry_policy.call(lambda: self._fetch(partial))
        if not self._is_verified(partial) and is_resumed:
            # The partial file of an earlier run may belong to another image, or end with an incomplete write.
            partial.truncate(0)
            self._api.retry_policy.call(lambda: self._fetch(partial))
        if not self._is_verified(partial):
            partial.truncate(0)
            raise DownloadError(
                "The SHA-256 of the downloaded bytes differs from that of the stored object. Try again."
            )

    def _publish(self, partial: BufferedRandom) -> None:
        """Gives the partial file its final name, without replacing another file of this name.

        Raises:
            DownloadError: another file has the name.
        """
        try:
            os.link(self._partial, self._target)
        except FileExistsError:
            self._is_present()  # raises DownloadError if it is another file
        except OSError:  # the file system has no hard links
            self._copy(partial)
        else:
            if not os.path.samestat(os.fstat(partial.fileno()), self._target.lstat()):
                raise DownloadError(f"{self._partial} was replaced during the download. Use a folder of your own.")

    def _copy(self, partial: BufferedRandom) -> None:
        partial.seek(0)
        try:
            with self._target.open("xb") as target:
                try:
                    shutil.copyfileobj(partial, target)
                except BaseException:
                    self._target.unlink()
                    raise
        except FileExistsError:
            self._is_present()

    def _is_present(self) -> bool:
        if not os.path.lexists(self._target):
            return False
        with suppress(DownloadError), _opened(self._target, os.O_RDONLY, is_own=False) as file:
            if self._is_verified(file):
                return True
        raise DownloadError(
            f"{self._target} exists and is another file. Move it away, or download into another folder."
        )

    def _is_verified(self, file: BufferedRandom) -> bool:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest() == self._object.sha256

    def _fetch(self, partial: BufferedRandom) -> None:
        """Downloads the bytes that the partial file lacks; a second call resumes where the first one ended."""
        size = partial.seek(0, os.SEEK_END)
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
            if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                partial.truncate(0)
            partial.seek(0, os.SEEK_END)
            # Written chunk by chunk: if the connection is lost, the bytes received so far are kept.
            for chunk in response.iter_bytes():
                if self._stop.is_set():
                    raise DownloadError("The download was cancelled.")
                partial.write(chunk)


def _opened(path: Path, flags: int, *, is_own: bool = True) -> BufferedRandom:
    """Opens a regular file without following symbolic links.

    With `is_own`, the file must belong to this user and have no second hard link. In a folder that is writable for
    others, such as /tmp, the bytes could otherwise be written to a file of another user, or to another file of this
    user.

    Raises:
        DownloadError: it is not such a file.
        OSError: the file cannot be opened.
    """
    # O_NONBLOCK: opening a pipe must not wait for its other end.
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _not_usable(path, "is not a regular file") from exc
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _not_usable(path, "is not a regular file")
        if is_own and found.st_nlink > 1:
            raise _not_usable(path, "has a second name (a hard link)")
        if is_own and not _IS_WINDOWS and found.st_uid != os.geteuid():
            raise _not_usable(path, "belongs to another user")
        return cast("BufferedRandom", os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "rb"))
    except DownloadError:
        os.close(descriptor)
        raise


def _not_usable(path: Path, problem: str) -> DownloadError:
    return DownloadError(f"{path} {problem}. Move it away, or download into another folder.")


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
    # No program is registered for the extension "quarantined", so a double click does not open the bytes.
    extension = "quarantined" if quarantined else suffix if suffix in _EXTENSIONS else "image"
    stem = f"{task.provider}_{task.task_id}_{image.kind}-{image.index}"
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
    if safe != stem.lower() or len(safe) > _MAX_NAME_CHARACTERS:
        # The hash keeps names different that would become equal because characters are replaced or cut, or on file
        # systems that ignore case.
        safe = f"{safe[:_MAX_NAME_CHARACTERS]}-{hashlib.sha256(stem.encode()).hexdigest()[:12]}"
    return f"{safe}.{extension}"
