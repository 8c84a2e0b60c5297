"""Archives the images of a task: copies each from the provider's URL into the bucket once."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from catchlight.archiving.bucket import ImageBucket, request_metadata
from catchlight.archiving.confirmation import CallbackConfirmation
from catchlight.archiving.image_copier import ImageCopier
from catchlight.archiving.priority_pool import PriorityThreadPool
from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.errors import (
    ImageGoneError,
    ImageRejectedError,
    ImageTasksError,
    ImageTruncatedError,
    ImageUnavailableError,
    InterruptedTryError,
    StoreUnavailableError,
)
from catchlight.models import GenerationRequest, Image, ImageState, TaskStatus, by_place
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES, are_negative_answers_final, count_of_tries
from catchlight.tasks.archive_tries import ArchiveTries
from catchlight.tasks.confirmations import ConfirmationResult
from catchlight.tasks.images import TaskImages
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task

# Why an original is not archived if the parameter Originals is Ignored.
ORIGINAL_IGNORED = "originals are not archived: the parameter Originals is Ignored"

# Every client that knows the callback token can post tasks that do not exist at the provider. This limits the storage
# that the images of one such task can take; real tasks rarely have more images.
MAX_UNKNOWN_IMAGES = 8

# The image in its new state, or the error because of which it must be tried again.
Result = Image | Exception


@dataclass(frozen=True, slots=True)
class ArchiveRun:
    """The result of one archiving run of a task."""

    task: Task  # in the state after this run
    images: tuple[Image, ...] = ()  # settled by this run: ARCHIVED, REJECTED or EXPIRED
    not_needed: tuple[Image, ...] = ()  # settled originals without which the task becomes ARCHIVED all the same
    failures: tuple[Exception, ...] = ()  # errors because of which the message must be received again
    quarantined: tuple[Image, ...] = ()  # downloaded into quarantine until the provider confirms the result
    tries: int = 1  # of archiving the task, including this one
    renewed: int = 0  # number of images for which the provider returned a fresh URL
    is_contradicted: bool = False  # the provider contradicts the result that a callback reported
    are_answers_final: bool = False  # see `_Try.is_final`

    @property
    def is_negative(self) -> bool:
        """Whether an image must be tried again after a negative answer: its host has no image, or sent only a part."""
        return any(isinstance(failure, ImageGoneError | ImageTruncatedError) for failure in self.failures)

    @property
    def awaits_final_answer(self) -> bool:
        """Whether an image's host gave a negative answer that is not final yet."""
        return self.is_negative and not self.are_answers_final

    def next_expiry(self, now: datetime) -> datetime | None:
        """Returns the earliest future expiry of the URLs of pending images; None if all of them have expired."""
        pending = (image.expires_at for image in self.task.images if image.state is ImageState.PENDING)
        return min((expires_at for expires_at in pending if expires_at > now), default=None)


@dataclass(frozen=True, slots=True)
class _Try:
    """One try of archiving a task."""

    is_last: bool  # the task becomes UNCONFIRMED if its provider does not confirm it this time
    is_final: bool  # a negative answer of an image's host settles the image, instead of causing another try
    deadline: float  # on the monotonic clock: no copy starts later


class ImageArchive:
    """Copies images into the bucket and writes their new states to the task. Thread-safe."""

    def __init__(
        self,
        table: TasksTable,
        images: TaskImages,
        tries: ArchiveTries,
        confirmation: CallbackConfirmation,
        url_refresher: UrlRefresher,
        copier: ImageCopier,
        bucket: ImageBucket,
        *,
        pool: PriorityThreadPool,
        now: Callable[[], datetime],
    ) -> None:
        self._table = table
        self._images = images
        self._tries = tries
        self._confirmation = confirmation
        self._url_refresher = url_refresher
        self._copier = copier
        self._bucket = bucket
        self._pool = pool
        self._now = now

    def archive(
        self, task_key: str, *, receives: int, is_alone: bool = False, deadline: float = float("inf")
    ) -> ArchiveRun | None:
        """Archives all pending images of a task in parallel.

        Among the images of all tasks, those whose URLs expire first are copied first.
        If the provider can be queried, images are archived only after it has confirmed the callback's result. Until
        then they are downloaded into quarantine, because their URLs expire.
        The original of a task whose result is still polled for is downloaded into quarantine, too.
        From the try MAX_ARCHIVE_TRIES on, negative answers are final: a task that its provider does not confirm becomes
        UNCONFIRMED, and an image that its host does not have becomes EXPIRED. The answers of image hosts are final only
        if as many tries had one: tries during an outage do not count. Before an image becomes EXPIRED because its host
        does not have it, a fresh URL is requested, if the provider can be queried and no operator accepted the task.

        Args:
            task_key: the partition key of the task's item.
            receives: the number of times that the task's message was received.
            is_alone: True if no other task is archived at the same time.
            deadline: on the monotonic clock. No copy starts later; the remaining images count as failures.

        Returns:
            None if there is nothing to archive: the task does not exist, has no images, or is not SUCCEEDED (any more).

        Raises:
            StoreUnavailableError: the message must be received again. The next run recognizes the objects that this
                run has written.
            InterruptedTryError: an earlier try was killed. The task must be archived with `is_alone`.
        """
        found = self._table.get(task_key)
        if found is None or not (found.status is TaskStatus.SUCCEEDED or _is_original_awaited(found)):
            return None
        if (since := found.interrupted_since(self._now())) and not is_alone:
            raise InterruptedTryError(since)
        tries = count_of_tries(receives, failed=found.archive_tries)
        this_try = _Try(
            is_last=tries >= MAX_ARCHIVE_TRIES,
            is_final=are_negative_answers_final(tries, negative=found.negative_tries),
            deadline=deadline,
        )
        is_noted = receives > 1 or is_alone
        # The mark of a try that may still be running is not overwritten. If several messages of a task renewed it again
        # and again, it would never become old enough to show that its try was killed.
        if is_noted and (is_alone or not found.unended_try):
            self._tries.begin(found, now=self._now())
        try:
            run = self._archive(found, this_try)
        except Exception:
            with suppress(StoreUnavailableError):  # the error of the try is raised even if the try cannot be counted
                self._tries.end(found, has_failed=True)
            raise
        has_failed = run is not None and bool(run.failures)
        if has_failed or (is_noted and (run is None or run.task.status is found.status)):
            try:
                self._tries.end(found, has_failed=has_failed, is_negative=run is not None and run.is_negative)
            except StoreUnavailableError as exc:
                run = run and replace(run, failures=(*run.failures, exc))
        return run and replace(run, tries=tries)

    def _archive(self, found: Task, this_try: _Try) -> ArchiveRun | None:
        if _is_original_awaited(found):
            return self._quarantine_original(found, this_try)
        try:
            report = self._confirmation.request_status(found)
        except ImageTasksError as exc:
            return self._quarantine_unconfirmed(found, exc, this_try)
        try:
            checked = self._confirmation.settle(found, report)
        except ImageTasksError as exc:
            return ArchiveRun(found, failures=(exc,))
        if checked.task.status is not TaskStatus.SUCCEEDED:
            return ArchiveRun(checked.task, is_contradicted=checked.is_contradicted)
        if not _has_same_images(checked.task, found):
            # The earlier negative answers were about the URLs from the callback; the provider returned other ones.
            this_try = replace(this_try, is_final=False)
        return self._archive_images(checked, this_try)

    def _archive_images(self, checked: ConfirmationResult, this_try: _Try) -> ArchiveRun:
        task = checked.task
        # The provider did not confirm a task that an operator accepted: it gets no further status request.
        was_status_requested = checked.was_status_requested or task.accepted_at is not None
        settled = {
            index: image.model_copy(update={"state": ImageState.REJECTED, "reason": ORIGINAL_IGNORED})
            for index, image in enumerate(task.images)
            if image.state is ImageState.PENDING and self._images.ignores(image)
        }
        pending = [
            index
            for index, image in enumerate(task.images)
            if image.state is ImageState.PENDING and index not in settled
        ]
        copy_all = partial(self._for_each, self._copier.copy, this_try)
        results = copy_all(task, pending)
        failures: list[Exception] = []
        if (gone := _gone(results)) and not was_status_requested:
            try:
                task = self._url_refresher.renew(task, gone)
            except ImageTasksError as exc:
                failures.append(exc)
            else:
                was_status_requested = True
                results |= copy_all(task, _changed(gone, checked.task, task))
        if (gone := _gone(results)) and was_status_requested:
            before = task
            try:
                task = self._url_refresher.request_download_urls(task, gone, now=self._now())
            except ImageTasksError as exc:
                failures.append(exc)
            else:
                results |= copy_all(task, _changed(gone, before, task))
        renewed = _changed(pending, checked.task, task)
        settled |= {index: result for index, result in results.items() if isinstance(result, Image)}
        for index, result in results.items():
            if isinstance(result, ImageGoneError) and this_try.is_final and was_status_requested:
                settled[index] = self._expired(task, task.images[index], str(result))
            elif isinstance(result, Exception):
                failures.append(result)
        if not failures and not _has_request(settled.values(), task, put_with=checked.task.request):
            # Before the final status is written: from that time on, consumers may rely on request.json.
            self._bucket.put_request(task)
        if settled or not failures:
            # One write for all images. After a crash before this write, the next run repeats the copies, and S3 reports
            # that the objects exist already.
            task = self._images.save(task, settled, now=self._now(), known_request=checked.known_request)
        needed = [image for image in settled.values() if self._images.is_needed(task, image)]
        return ArchiveRun(
            task,
            images=tuple(needed),
            not_needed=tuple(image for image in settled.values() if image not in needed),
            failures=tuple(failures),
            renewed=len(renewed),
            is_contradicted=checked.is_contradicted,
            are_answers_final=this_try.is_final,
        )

    def _quarantine_unconfirmed(self, task: Task, reason: ImageTasksError, this_try: _Try) -> ArchiveRun:
        """Downloads the images of an unconfirmed task into quarantine before their URLs expire.

        The last try makes the task UNCONFIRMED, unless a further try may still download one of its images. If the task
        is not registered and its provider does not have it, only its first MAX_UNKNOWN_IMAGES images are downloaded,
        and the last try makes it UNCONFIRMED even if downloads have failed.
        """
        is_unknown = self._confirmation.is_unknown(task, reason)
        at_most = MAX_UNKNOWN_IMAGES if is_unknown else None
        run = self._quarantine_images(task, this_try, at_most=at_most)
        if this_try.is_last and (is_unknown or not run.failures):
            unconfirmed = self._confirmation.mark_unconfirmed(run.task, reason, now=self._now())
            if unconfirmed:
                return replace(run, task=unconfirmed, failures=())
        return replace(run, failures=(reason, *run.failures))

    def _quarantine_original(self, task: Task, this_try: _Try) -> ArchiveRun | None:
        """Downloads the original of a task without a result into quarantine. Returns None if nothing is left to do."""
        run = self._quarantine_images(task, this_try)
        if this_try.is_last and task.is_unregistered:
            # Every client that knows the callback token can post such tasks, with image hosts that delay each try until
            # its timeout: the last try is not repeated.
            run = replace(run, failures=())
        return run if run.quarantined or run.failures else None

    def _quarantine_images(self, task: Task, this_try: _Try, *, at_most: int | None = None) -> ArchiveRun:
        """Downloads the images of a task, or only the first `at_most` of them, into quarantine.

        An image that is gone or rejected counts as a failure, which causes another try, until negative answers are
        final.
        """
        left = [
            index
            for index, image in enumerate(task.images[:at_most])
            if image.state is ImageState.PENDING and image.quarantine is None and not self._images.ignores(image)
        ]
        results = self._for_each(self._copier.copy_to_quarantine, this_try, task, left)
        quarantined = {index: result for index, result in results.items() if isinstance(result, Image)}
        if quarantined:
            task = self._images.save_quarantined(task, quarantined)
        errors = (result for result in results.values() if isinstance(result, Exception))
        failures = [
            error
            for error in errors
            if not (this_try.is_final and isinstance(error, ImageGoneError | ImageRejectedError))
        ]
        return ArchiveRun(
            task, quarantined=tuple(quarantined.values()), failures=tuple(failures), are_answers_final=this_try.is_final
        )

    def _expired(self, task: Task, image: Image, reason: str) -> Image:
        """Returns an image that its host does not have any more as EXPIRED, and corrects the time of its expiry.

        If the provider does not report when the task was completed, `expires_at` was computed from the time of the
        report. An image that is gone in the first half of that lifetime had therefore expired before the report:
        `expires_at` becomes the time of the report. In the second half it stays, because the lifetime may have ended
        normally: a callback arrives some seconds after the completion, so that `expires_at` is too late by as much.
        """
        reported_at, expires_at, now = task.reported_time, image.expires_at, self._now()
        if reported_at and expires_at - now > now - reported_at:
            expires_at = reported_at
        return image.model_copy(update={"state": ImageState.EXPIRED, "reason": reason, "expires_at": expires_at})

    def _for_each(
        self, work: Callable[..., Image], this_try: _Try, task: Task, indices: Iterable[int]
    ) -> dict[int, Result]:
        places = list(by_place(task.images))
        running = {}
        for index in sorted(indices, key=lambda index: task.images[index].expires_at):
            kind, number = places[index]
            image = task.images[index]
            job = partial(self._before_deadline, work, this_try, task, image, f"{kind}-{number}")
            running[index] = self._pool.submit(image.expires_at, job)
        return {index: result.result() for index, result in running.items()}

    def _before_deadline(
        self, work: Callable[..., Image], this_try: _Try, task: Task, image: Image, name: str
    ) -> Result:
        if time.monotonic() > this_try.deadline:
            return ImageUnavailableError("no time was left to download it")
        try:
            return work(task, image, name, is_final=this_try.is_final)
        except Exception as exc:  # noqa: BLE001 - a bug that occurs with one image must not affect the others
            return exc


def _gone(results: Mapping[int, Result]) -> list[int]:
    return [index for index, result in results.items() if isinstance(result, ImageGoneError)]


def _changed(indices: Iterable[int], before: Task, after: Task) -> list[int]:
    return [index for index in indices if after.images[index] != before.images[index]]


def _has_same_images(task: Task, found: Task) -> bool:
    return [image.url for image in task.images] == [image.url for image in found.images]


def _is_original_awaited(task: Task) -> bool:
    """Returns whether a task has no result yet, but an original, which is downloaded into quarantine."""
    return task.status in (TaskStatus.PENDING, TaskStatus.TIMED_OUT) and bool(task.images)


def _has_request(settled: Collection[Image], task: Task, *, put_with: GenerationRequest | None) -> bool:
    """Returns whether the task has archived images, and the metadata of each contains the generation request.

    This is the case if this run settled all images and wrote the archived ones with the request that the task has now.
    Objects that earlier runs wrote may be older than the request.

    Args:
        settled: the images that this run settled.
        task: the task in its current state.
        put_with: the request that this run wrote into the metadata of the images.
    """
    is_only_run = len(settled) == len(task.images)
    has_images = any(image.state is ImageState.ARCHIVED for image in settled)
    return is_only_run and has_images and task.request == put_with and bool(request_metadata(put_with))
