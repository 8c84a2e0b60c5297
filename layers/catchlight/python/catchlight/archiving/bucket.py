"""The bucket of archived images: each object is written once, while it comes, and S3 checks what it takes."""

import base64
import json
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.stream import ImageStream
from catchlight.models import Task, split_task_key

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import PutObjectOutputTypeDef

# A message has 20 s; what S3 does not take in two tries comes back with the next message.
S3_CONFIG = Config(
    connect_timeout=1,
    read_timeout=4,
    retries={"total_max_attempts": 2, "mode": "standard"},
    tcp_keepalive=True,
    max_pool_connections=50,
    # An image cannot be signed before it has come: TLS carries it, and S3 checks the SHA-256 that follows it.
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


class _NoImageError(BaseException):
    """Ends a put in the middle of its body. botocore would try again after an `Exception`."""

    def __init__(self, reason: ImageRejectedError | ImageUnavailableError) -> None:
        self.reason = reason


class _Body:
    """An image as botocore reads it."""

    def __init__(self, image: ImageStream) -> None:
        self._image = image
        self.seek = image.seek
        self.tell = image.tell

    def read(self, size: int = -1) -> bytes:
        try:
            return self._image.read(size)
        except (ImageRejectedError, ImageUnavailableError) as exc:
            raise _NoImageError(exc) from exc


class ImageBucket:
    """Puts images. Thread-safe."""

    def __init__(self, s3: "S3Client", name: str) -> None:
        self._s3 = s3
        self.name = name

    def put(self, key: str, image: ImageStream, *, task: str) -> str:
        """Writes the object if there is none; one with the same bytes is as good as written. Its SHA-256, in hex.

        The image goes out while it comes in. Without its end, which only a verified one has, S3 stores nothing.

        Raises:
            ImageRejectedError: it is none, or there is one with other bytes.
            ImageUnavailableError: it did not come whole, or S3 did not take it now.
        """
        try:
            answer = self._put_once(
                Key=key,
                Body=_Body(image),
                ContentLength=image.size,
                ContentType=image.format.content_type,
                # Sent behind the body. S3 computes it too, and refuses what arrived damaged.
                ChecksumAlgorithm="SHA256",
                Metadata={"task": task, "source-host": image.source_host},
            )
        except _NoImageError as exc:
            raise exc.reason from None
        checksum = answer.get("ChecksumSHA256") if answer else None
        if checksum is None:
            checksum = base64.b64encode(image.sha256()).decode()
        if answer is None and self._stored_checksum(key) != checksum:
            raise ImageRejectedError(f"the bucket holds another image under {key} already")
        return base64.b64decode(checksum).hex()

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

    def _put_once(self, **what: Any) -> "PutObjectOutputTypeDef | None":
        """S3's answer; None: there is an object already. A stranger, or a repetition, replaces nothing."""
        try:
            return self._s3.put_object(Bucket=self.name, IfNoneMatch="*", **what)
        except ClientError as exc:
            if exc.response["Error"]["Code"] == _EXISTS:
                return None
            raise ImageUnavailableError(f"S3 did not take it: {exc.response['Error']['Code']}") from exc
        except BotoCoreError as exc:
            raise ImageUnavailableError(f"S3 did not answer: {type(exc).__name__}") from exc

    def _stored_checksum(self, key: str) -> str | None:
        try:
            head = self._s3.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        except (ClientError, BotoCoreError) as exc:
            raise ImageUnavailableError("S3 does not say what it holds") from exc
        return head.get("ChecksumSHA256")
