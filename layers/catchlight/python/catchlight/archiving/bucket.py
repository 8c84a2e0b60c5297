"""Writes archived images to the S3 bucket: each object once, streamed during the download, verified by its SHA-256."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from catchlight.errors import ImageGoneError, ImageRejectedError, ImageUnavailableError
from catchlight.images.stream import BLOCK_BYTES, ImageStream, Received
from catchlight.models import GenerationRequest, Quarantined, split_task_key
from catchlight.tasks.task import Task

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, PutObjectOutputTypeDef

# The function has 20 s for a batch of messages. After a write has failed twice, the message is received again.
S3_CONFIG = Config(
    connect_timeout=1,
    read_timeout=4,
    retries={"total_max_attempts": 2, "mode": "standard"},
    tcp_keepalive=True,
    max_pool_connections=50,
    # The payload cannot be signed before the download is complete. TLS protects it, and S3 verifies the SHA-256 that is
    # sent after the body.
    s3={"payload_signing_enabled": False},
    request_checksum_calculation="when_required",
)
# S3 stores 2 KB of metadata with an object, names and values; the task's key and the source host take up to 450 bytes.
MAX_REQUEST_BYTES = 1500
# S3's error code if IfNoneMatch finds an object. ConditionalRequestConflict does not count: it reports a concurrent
# write, which may still fail and leave no object.
_EXISTS = "PreconditionFailed"


def folder(task: str, prefix: Literal["images", "quarantine"] = "images") -> str:
    """Returns the S3 key prefix of a task's images, or of its bytes in quarantine. `task` is the task key."""
    provider, task_id = split_task_key(task)
    return f"{prefix}/{provider}/{task_id}"


def request_metadata(request: GenerationRequest | None) -> dict[str, str]:
    """Returns the generation request as metadata of an object: JSON in printable ASCII.

    The metadata is empty if there is no request, or if its JSON is longer than MAX_REQUEST_BYTES.
    """
    if request is None:
        return {}
    text = json.dumps(request.model_dump(by_alias=True, exclude_none=True), separators=(",", ":"))
    # Metadata is sent in a header: DEL is not allowed there, and signatures treat several spaces as one.
    text = text.replace("\x7f", r"\u007f").replace("  ", r" \u0020")
    return {"request": text} if len(text) <= MAX_REQUEST_BYTES else {}


def _url_digest(url: str) -> str:
    # Without the query, which holds the signature: a newly signed URL of the same object is the same image.
    return hashlib.sha256(url.partition("?")[0].encode()).hexdigest()


def _pieces(body: "StreamingBody") -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(BLOCK_BYTES)
    except BotoCoreError as exc:
        raise ImageUnavailableError("S3 did not return all bytes in quarantine") from exc


class _PutAbortedError(BaseException):
    """Aborts a put while its body is being read. A BaseException, because botocore would retry after an `Exception`."""

    def __init__(self, reason: ImageRejectedError | ImageUnavailableError) -> None:
        self.reason = reason


class _Body:
    """Adapts an ImageStream to the file interface that botocore reads."""

    def __init__(self, image: ImageStream) -> None:
        self._image = image
        self.seek = image.seek
        self.tell = image.tell

    def read(self, size: int = -1) -> bytes:
        try:
            return self._image.read(size)
        except (ImageRejectedError, ImageUnavailableError) as exc:
            raise _PutAbortedError(exc) from exc


class ImageBucket:
    """Writes images and request files to the bucket. Thread-safe."""

    def __init__(self, s3: "S3Client", name: str) -> None:
        self._s3 = s3
        self.name = name

    def put(self, key: str, image: ImageStream, task: Task) -> str:
        """Writes the image as an object and returns its SHA-256 in hex. Existing objects are never overwritten.

        The metadata of the object contains the task's key, the host that sent the image, and the generation request
        if it fits.
        An existing object with the same bytes counts as written. The upload runs during the download. ImageStream
        returns the last block only after the image was validated, and S3 stores no incomplete object.

        Raises:
            ImageRejectedError: the bytes are not a valid image, or the key holds an object with other bytes.
            ImageUnavailableError: the download is incomplete, or S3 did not accept the object at the moment.
        """
        request = request_metadata(task.request)
        try:
            response = self._put_once(
                Key=key,
                Body=_Body(image),
                ContentLength=image.size,
                ContentType=image.format.content_type,
                # Sent after the body. S3 computes it too and rejects an upload whose bytes differ.
                ChecksumAlgorithm="SHA256",
                Metadata={"task": task.task, "source-host": image.source_host, **request},
            )
        except _PutAbortedError as exc:
            raise exc.reason from None
        checksum = response.get("ChecksumSHA256") if response else None
        if checksum is None:
            checksum = base64.b64encode(image.sha256()).decode()
        if response is None:
            stored = self._head(key)
            if stored.get("ChecksumSHA256") != checksum:
                raise ImageRejectedError(f"the bucket holds another image under {key} already")
            if stored["Metadata"].get("request") != request.get("request"):
                self.put_request(task)  # the object was written before the request was known
        return base64.b64decode(checksum).hex()

    def quarantine(self, key: str, body: Received, *, task: str, url: str, source_host: str) -> Quarantined:
        """Writes bytes that are not archived as an image (yet). Browsers save the object and do not display it.

        An existing object is replaced. It stays in the bucket as a noncurrent version for QuarantineRetentionDays.

        Raises:
            ImageUnavailableError: S3 did not accept the object at the moment.
        """
        sha256 = hashlib.file_digest(body.file, "sha256")
        body.file.seek(0)
        self._put(
            Key=key,
            Body=body.file,
            ContentLength=body.size,
            ContentType="application/octet-stream",
            ContentDisposition="attachment",
            ChecksumSHA256=base64.b64encode(sha256.digest()).decode(),
            Metadata={"task": task, "source-host": source_host, "source-url-sha256": _url_digest(url)},
        )
        return Quarantined(key=key, bytes=body.size, sha256=sha256.hexdigest())

    @contextmanager
    def quarantined(self, key: str, url: str) -> Iterator[ImageStream]:
        """Opens an object in quarantine whose bytes were downloaded from `url`, and yields it as a stream.

        The query of the URL, which holds its signature, may differ.

        Raises:
            ImageGoneError: there is no such object, or its bytes were downloaded from another URL.
            ImageUnavailableError: S3 did not return the object.
        """
        try:
            found = self._s3.get_object(Bucket=self.name, Key=key)
        except (ClientError, BotoCoreError) as exc:
            # Without permission to list the bucket, S3 answers AccessDenied for a key that does not exist.
            if isinstance(exc, ClientError) and exc.response["Error"]["Code"] in ("NoSuchKey", "AccessDenied"):
                raise ImageGoneError("its bytes are not in quarantine") from exc
            raise ImageUnavailableError("S3 does not return the bytes in quarantine") from exc
        with closing(found["Body"]) as body:
            if found["Metadata"].get("source-url-sha256") != _url_digest(url):
                raise ImageGoneError("the bytes in quarantine are those of another URL")
            host = found["Metadata"].get("source-host", "")
            with ImageStream(_pieces(body), found["ContentLength"], host) as image:
                yield image

    def put_request(self, task: Task) -> None:
        """Writes the generation request as `request.json` next to the images, if the request is known.

        It is called if the metadata of some images does not contain the request.

        Raises:
            ImageUnavailableError: S3 did not accept the object at the moment.
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

    def _put_once(self, **arguments: Any) -> "PutObjectOutputTypeDef | None":
        """Puts an object unless the key exists. Returns S3's response, or None if there is an object already.

        Neither a repeated run nor a forged callback can overwrite an object.
        """
        return self._put(IfNoneMatch="*", **arguments)

    def _put(self, **arguments: Any) -> "PutObjectOutputTypeDef | None":
        try:
            return self._s3.put_object(Bucket=self.name, **arguments)
        except ClientError as exc:
            if exc.response["Error"]["Code"] == _EXISTS:
                return None
            raise ImageUnavailableError(f"S3 did not accept the object: {exc.response['Error']['Code']}") from exc
        except BotoCoreError as exc:
            raise ImageUnavailableError(f"S3 did not answer: {type(exc).__name__}") from exc

    def _head(self, key: str) -> "HeadObjectOutputTypeDef":
        try:
            return self._s3.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        except (ClientError, BotoCoreError) as exc:
            raise ImageUnavailableError("S3 does not return the metadata of the existing object") from exc
