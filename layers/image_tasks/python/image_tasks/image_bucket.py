"""The bucket of archived images: each object is written once, and S3 checks what it takes."""

import base64
import json
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from image_tasks.errors import ImageRejectedError, ImageUnavailableError
from image_tasks.image_fetching import FetchedImage
from image_tasks.models import Task, split_task_key

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# A message has 20 s; what S3 does not take in two tries comes back with the next message.
S3_CONFIG = Config(
    connect_timeout=1,
    read_timeout=4,
    retries={"total_max_attempts": 2, "mode": "standard"},
    tcp_keepalive=True,
    max_pool_connections=50,
    # The checksum is told, and S3 computes it again. botocore would hash the body once more for its signature, because
    # it looks for a checksum of its own making.
    s3={"payload_signing_enabled": False},
    request_checksum_calculation="when_required",
)
# What S3 answers when IfNoneMatch finds an object. Not ConditionalRequestConflict, which says that another writer is
# just at it: that one may fail yet, and then there is none.
_EXISTS = "PreconditionFailed"


def folder(task: str) -> str:
    """Where everything of a task lies, by its key."""
    provider, task_id = split_task_key(task)
    return f"images/{provider}/{task_id}"


class ImageBucket:
    """Puts images. Thread-safe."""

    def __init__(self, s3: "S3Client", name: str) -> None:
        self._s3 = s3
        self.name = name

    def put(self, key: str, image: FetchedImage, *, task: str) -> None:
        """Writes the object if there is none; one with the same checksum is as good as written.

        Raises:
            ImageRejectedError: there is one with other bytes.
            ImageUnavailableError: S3 did not take it now.
        """
        checksum = base64.b64encode(image.sha256).decode()
        is_written = self._put_once(
            Key=key,
            Body=image.file,
            ContentLength=image.size,
            ContentType=image.facts.content_type,
            # S3 computes it again and refuses what arrived damaged. moto keeps it only with the algorithm named.
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum,
            Metadata={"task": task, "source-host": image.source_host},
        )
        if not is_written and self._stored_checksum(key) != checksum:
            raise ImageRejectedError(f"the bucket holds another image under {key} already")

    def put_request(self, task: Task) -> None:
        """Writes what was asked beside the images, as `request.json`, if that is known.

        Raises:
            ImageUnavailableError: S3 did not take it now.
        """
        if task.request is None:
            return
        provider, task_id = split_task_key(task.task)
        request = task.request.model_dump(by_alias=True, exclude_none=True)
        self._put_once(
            Key=f"{folder(task.task)}/request.json",
            Body=json.dumps({"provider": provider, "taskId": task_id, "request": request}, ensure_ascii=False).encode(),
            ContentType="application/json",
        )

    def _put_once(self, **what: Any) -> bool:
        """Whether it was written; False: there is an object already. A stranger, or a repetition, replaces nothing."""
        try:
            self._s3.put_object(Bucket=self.name, IfNoneMatch="*", **what)
        except ClientError as exc:
            if exc.response["Error"]["Code"] == _EXISTS:
                return False
            raise ImageUnavailableError(f"S3 did not take it: {exc.response['Error']['Code']}") from exc
        except BotoCoreError as exc:
            raise ImageUnavailableError(f"S3 did not answer: {type(exc).__name__}") from exc
        return True

    def _stored_checksum(self, key: str) -> str | None:
        try:
            head = self._s3.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        except (ClientError, BotoCoreError) as exc:
            raise ImageUnavailableError("S3 does not say what it holds") from exc
        return head.get("ChecksumSHA256")
