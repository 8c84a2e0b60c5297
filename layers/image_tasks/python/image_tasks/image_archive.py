"""Archives a task's images: from the provider's URL into the bucket, once each."""

import base64
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from image_tasks.confirmation import Confirmation
from image_tasks.errors import ImageError, ImageExpiredError, ImageRejectedError, ImageUnavailableError
from image_tasks.image_fetching import FetchedImage, ImageFetcher
from image_tasks.models import Image, ImageState, Task, TaskStatus, split_task_key
from image_tasks.providers import PROVIDERS
from image_tasks.tasks_table import TasksTable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# A message has 20 s; what S3 does not take in two tries comes back with the next message.
S3_CONFIG = Config(
    connect_timeout=1,
    read_timeout=4,
    retries={"total_max_attempts": 2, "mode": "standard"},
    tcp_keepalive=True,
    max_pool_connections=50,
)
# What S3 answers when IfNoneMatch finds an object, or another writer is just making one.
_EXISTS = {"PreconditionFailed", "ConditionalRequestConflict"}


@dataclass(frozen=True, slots=True)
class ArchiveRun:
    """What one run made of a task."""

    status: TaskStatus
    images: tuple[Image, ...]  # those that this run finished
    failures: tuple[ImageUnavailableError, ...]  # one per image that is still pending
    is_refuted: bool = False  # a callback claimed a result that the provider does not have


class ImageArchive:
    """Copies images into the bucket and writes what became of them into the task. Thread-safe."""

    def __init__(
        self,
        table: TasksTable,
        confirmation: Confirmation,
        fetcher: ImageFetcher,
        s3: "S3Client",
        bucket: str,
        *,
        additional_hosts: Iterable[str],
        executor: Executor,
        now: Callable[[], datetime],
    ) -> None:
        self._table = table
        self._confirmation = confirmation
        self._fetcher = fetcher
        self._s3 = s3
        self._bucket = bucket
        self._additional_hosts = tuple(additional_hosts)
        self._executor = executor
        self._now = now

    def archive(self, task_key: str, *, is_last_try: bool, deadline: float = float("inf")) -> ArchiveRun | None:
        """Archives every image of a task that is pending, side by side, the one whose URL dies first before the others.

        No image is begun after `deadline` (on the monotonic clock): what was not is left to the next message.
        Nothing is fetched before the provider has confirmed what came by callback, where it can be asked.
        Returns None where there is nothing to do: the task is gone, or further than SUCCEEDED already.

        Raises:
            ProviderError, UnconfirmedError, StoreUnavailableError: the message is to come back; objects that were
                written are recognised then.
        """
        found = self._table.get(task_key)
        if found is None or found.status is not TaskStatus.SUCCEEDED:
            return None
        checked = self._confirmation.check(found, is_last_try=is_last_try)
        task = checked.task
        if task.status is not TaskStatus.SUCCEEDED:
            return ArchiveRun(task.status, images=(), failures=(), is_refuted=checked.is_refuted)
        keys = _object_key_stems(task)
        pending = sorted(
            (index for index, image in enumerate(task.images) if image.state is ImageState.PENDING),
            key=lambda index: task.images[index].expires_at,
        )

        def settle(index: int) -> Image | ImageUnavailableError:
            if time.monotonic() > deadline:
                return ImageUnavailableError("there was no time left for it")
            return self._settle(task, task.images[index], keys[index], is_last_try)

        results = dict(zip(pending, self._executor.map(settle, pending), strict=True))
        settled = {index: result for index, result in results.items() if isinstance(result, Image)}
        failures = tuple(result for result in results.values() if isinstance(result, ImageUnavailableError))
        status = self._save(task, settled, failures)
        return ArchiveRun(status, tuple(settled.values()), failures, checked.is_refuted)

    def _save(
        self, task: Task, settled: Mapping[int, Image], failures: tuple[ImageUnavailableError, ...]
    ) -> TaskStatus:
        if not settled and failures:
            return task.status
        # One write for all images of a run: a crash before it costs a repetition, in which S3 says what is there.
        return self._table.save_images(task, settled, now=self._now())

    def _settle(self, task: Task, image: Image, key_stem: str, is_last_try: bool) -> Image | ImageUnavailableError:
        """The image ARCHIVED, EXPIRED or REJECTED, or the error that makes it worth another try."""
        provider = PROVIDERS.get(split_task_key(task.task)[0])
        allowed_hosts = (*(provider.image_hosts if provider else ()), *self._additional_hosts)
        try:
            fetched = self._fetcher.fetch(image.url, allowed_hosts, is_last_try=is_last_try)
            with fetched.file:
                key = f"{key_stem}.{fetched.facts.extension}"
                self._put(key, task.task, fetched)
        except ImageUnavailableError as exc:
            return exc
        except ImageError as exc:
            state = ImageState.EXPIRED if isinstance(exc, ImageExpiredError) else ImageState.REJECTED
            return image.model_copy(update={"state": state, "reason": str(exc)})
        return image.model_copy(
            update={
                "state": ImageState.ARCHIVED,
                "bucket": self._bucket,
                "key": key,
                "bytes": fetched.size,
                "sha256": fetched.sha256.hex(),
                "content_type": fetched.facts.content_type,
                "width": fetched.facts.width,
                "height": fetched.facts.height,
                "archived_at": self._now(),
            }
        )

    def _put(self, key: str, task: str, image: FetchedImage) -> None:
        """Writes the object if there is none; one with the same checksum is as good as written.

        Raises:
            ImageRejectedError: there is one with other bytes.
            ImageUnavailableError: S3 did not take it now.
        """
        checksum = base64.b64encode(image.sha256).decode()
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=image.file,
                ContentLength=image.size,
                ContentType=image.facts.content_type,
                # S3 computes it again and refuses what arrived damaged. moto keeps it only with the algorithm named.
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                # Written once: a repeated message, or a stranger, never replaces an image.
                IfNoneMatch="*",
                Metadata={"task": task, "source-host": image.source_host},
            )
        except ClientError as exc:
            if exc.response["Error"]["Code"] not in _EXISTS:
                raise ImageUnavailableError(f"S3 did not take it: {exc.response['Error']['Code']}") from exc
            if self._stored_checksum(key) != checksum:
                raise ImageRejectedError(f"the bucket holds another image under {key} already") from exc
        except BotoCoreError as exc:
            raise ImageUnavailableError(f"S3 did not answer: {type(exc).__name__}") from exc

    def _stored_checksum(self, key: str) -> str | None:
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except (ClientError, BotoCoreError) as exc:
            raise ImageUnavailableError("S3 does not say what it holds") from exc
        return head.get("ChecksumSHA256")


def _object_key_stems(task: Task) -> list[str]:
    """`images/{provider}/{taskId}/{kind}-{index}` of each image; the index counts within its kind."""
    provider, task_id = split_task_key(task.task)
    seen: dict[str, int] = {}
    stems = []
    for image in task.images:
        index = seen.get(image.kind, 0)
        seen[image.kind] = index + 1
        stems.append(f"images/{provider}/{task_id}/{image.kind}-{index}")
    return stems
