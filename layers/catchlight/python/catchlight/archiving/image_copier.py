"""Copies one image of a task: its bytes into the bucket, or into quarantine if they are not archived (yet)."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime
from functools import partial

from catchlight.archiving.bucket import ImageBucket, folder
from catchlight.errors import ImageGoneError, ImageRejectedError, ImageTruncatedError, ImageUnavailableError
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.stream import ImageStream, Received
from catchlight.images.url_policy import ANY_HOST
from catchlight.models import Image, ImageState, Quarantined, split_task_key
from catchlight.providers import PROVIDERS
from catchlight.tasks.task import Task


class ImageCopier:
    """Copies images and returns them in their new states, which it does not write to the task. Thread-safe."""

    def __init__(
        self,
        fetcher: ImageFetcher,
        bucket: ImageBucket,
        *,
        additional_hosts: Iterable[str],
        trusts_confirmed_hosts: bool,
        now: Callable[[], datetime],
    ) -> None:
        self._fetcher = fetcher
        self._bucket = bucket
        self._additional_hosts = tuple(additional_hosts)
        self._trusts_confirmed_hosts = trusts_confirmed_hosts
        self._now = now

    def copy(self, task: Task, image: Image, name: str, *, is_final: bool) -> Image:
        """Copies an image into the bucket, and returns it as ARCHIVED.

        An image that cannot be archived is returned as REJECTED or EXPIRED. If bytes of it have arrived, they are put
        into quarantine.

        Args:
            task: the task of the image. Its generation request becomes metadata of the object.
            image: the image to copy.
            name: the name of the object, `{kind}-{number}`, without an extension.
            is_final: whether an incomplete body settles the image, instead of causing another try.

        Raises:
            ImageUnavailableError: the image must be tried again.
        """
        try:
            with ExitStack() as stack:
                incoming = self._open(stack, task, image, name)
                try:
                    key = f"{folder(task.task)}/{name}.{incoming.format.extension}"
                    sha256 = self._bucket.put(key, incoming, task)
                    metadata, size = incoming.complete(), incoming.size
                except (ImageRejectedError, ImageTruncatedError) as exc:
                    return self._quarantine(task, image, name, incoming, exc, is_final=is_final)
        except ImageRejectedError as exc:
            return image.model_copy(update={"state": ImageState.REJECTED, "reason": str(exc)})
        return image.model_copy(
            update={
                "state": ImageState.ARCHIVED,
                "bucket": self._bucket.name,
                "key": key,
                "bytes": size,
                "sha256": sha256,
                "content_type": metadata.content_type,
                "width": metadata.width,
                "height": metadata.height,
                "orientation": metadata.orientation,
                "trailing_bytes": metadata.trailing_bytes or None,
                "archived_at": self._now(),
                "quarantine": None,
            }
        )

    def copy_to_quarantine(self, task: Task, image: Image, name: str, *, is_final: bool) -> Image:
        """Downloads an image into quarantine, and returns it with `quarantine` and an unchanged state.

        The arguments are those of `copy`.

        Raises:
            ImageError: the image could not be downloaded, or S3 did not accept the object.
        """
        with self._fetcher.fetch(image.url, self._allowed_hosts(task)) as incoming:
            try:
                incoming.complete()
            except ImageRejectedError:
                incoming.receive()  # its bytes are put into quarantine all the same, for people to inspect
            except ImageTruncatedError:
                if not is_final:
                    raise
            if (body := incoming.received) is None:
                raise ImageUnavailableError("no bytes arrived, or too many")
            return image.model_copy(update={"quarantine": self._put_into_quarantine(task, image, name, incoming, body)})

    def _open(self, stack: ExitStack, task: Task, image: Image, name: str) -> ImageStream:
        """Opens an image from quarantine if an earlier try has put its bytes there, or else from its URL.

        If this source does not have the image, the other one is tried: quarantine may hold the bytes although the
        task's item does not name them.

        Raises:
            ImageGoneError: neither source has the image.
        """
        from_url = partial(self._fetcher.fetch, image.url, self._allowed_hosts(task))
        from_quarantine = partial(self._bucket.quarantined, _quarantine_key(task, name), image.url)
        first, second = (from_quarantine, from_url) if image.quarantine else (from_url, from_quarantine)
        try:
            return stack.enter_context(first())
        except ImageGoneError as exc:
            gone = exc
        try:
            return stack.enter_context(second())
        except ImageGoneError:
            raise gone from None

    def _allowed_hosts(self, task: Task) -> tuple[str, ...]:
        if task.is_confirmed and self._trusts_confirmed_hosts:
            return (ANY_HOST,)
        provider = PROVIDERS.get(split_task_key(task.task)[0])
        return (*(provider.image_hosts if provider else ()), *self._additional_hosts)

    def _quarantine(
        self,
        task: Task,
        image: Image,
        name: str,
        incoming: ImageStream,
        reason: ImageRejectedError | ImageTruncatedError,
        *,
        is_final: bool,
    ) -> Image:
        """Puts the bytes of a rejected or cut body into quarantine and returns the image as REJECTED or EXPIRED.

        Raises:
            ImageUnavailableError: the whole body may arrive at another try, or S3 did not accept the object.
        """
        is_whole, body = incoming.receive(), incoming.received
        is_cut = isinstance(reason, ImageTruncatedError)
        if is_cut and not (is_final and body):
            raise reason
        if body and not is_whole and not is_final:
            raise ImageTruncatedError(f"{reason}, and not all of it arrived") from reason
        quarantined = self._put_into_quarantine(task, image, name, incoming, body) if body else None
        # After its URL has expired, a cut image cannot be downloaded whole any more.
        is_expired = is_cut and image.expires_at <= self._now()
        state = ImageState.EXPIRED if is_expired else ImageState.REJECTED
        return image.model_copy(update={"state": state, "reason": str(reason), "quarantine": quarantined})

    def _put_into_quarantine(
        self, task: Task, image: Image, name: str, incoming: ImageStream, body: Received
    ) -> Quarantined:
        key = _quarantine_key(task, name)
        return self._bucket.quarantine(key, body, task=task.task, url=image.url, source_host=incoming.source_host)


def _quarantine_key(task: Task, name: str) -> str:
    return f"{folder(task.task, 'quarantine')}/{name}"
