"""Uploads to S3 during the download: a complete object with a checksum that S3 verifies, or no object."""

import base64
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from catchlight.archiving.bucket import S3_CONFIG, ImageBucket
from catchlight.aws.clients import AwsClients
from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.stream import BLOCK_BYTES, ImageStream
from catchlight.models import TaskStatus
from catchlight.tasks.task import Task
from local.moto.patches.s3 import put_object_as_s3_does
from tests.image_server import large_picture
from tests.integration.conftest import an_account

IMAGE = large_picture(1)
KEY = "images/acedata/1/result-0.png"


def arriving(content: bytes = IMAGE, *, size: int | None = None, piece: int = 10_000) -> ImageStream:
    """Returns an image that arrives in pieces."""
    pieces = (content[at : at + piece] for at in range(0, len(content), piece))
    return ImageStream(pieces, len(content) if size is None else size, "images.example")


class Bucket(ImageBucket):
    """A bucket in memory, and the requests that S3 received."""

    def __init__(self) -> None:
        super().__init__(AwsClients().s3(S3_CONFIG), "images")
        self._s3.create_bucket(Bucket="images")
        self.requests: list[dict[str, str]] = []
        self.broken_connections = 0
        self._s3.meta.events.register_first("before-send.s3.PutObject", self._note)

    def upload(self, image: ImageStream) -> str:
        with image:
            return self.put(KEY, image, Task(task="acedata#1", status=TaskStatus.SUCCEEDED))

    def break_connection_once(self) -> None:
        """Makes S3 read part of the next body and close the connection."""

        def break_off(request: Any, **_: Any) -> None:
            if self.broken_connections == 0:
                self.broken_connections += 1
                request.body.read(2 * BLOCK_BYTES)
                raise ConnectionClosedError(endpoint_url=request.url)

        self._s3.meta.events.register_first("before-send.s3.PutObject", break_off)

    def objects(self) -> dict[str, bytes]:
        found_objects = self._s3.list_objects_v2(Bucket="images").get("Contents", [])
        return {
            found["Key"]: self._s3.get_object(Bucket="images", Key=found["Key"])["Body"].read()
            for found in found_objects
        }

    def _note(self, request: Any, **_: Any) -> None:
        self.requests.append(
            {"url": request.url}
            | {
                name.lower(): value.decode() if isinstance(value, bytes) else value
                for name, value in request.headers.items()
            }
        )


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with an_account(), put_object_as_s3_does():
        yield Bucket()


def test_a_body_is_sent_with_an_unsigned_payload_and_a_checksum_trailer(bucket: Bucket) -> None:
    digest = bucket.upload(arriving())

    (request,) = bucket.requests
    assert request["url"].startswith("https://")
    assert request["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert request["x-amz-trailer"] == "x-amz-checksum-sha256"
    assert request["x-amz-decoded-content-length"] == str(len(IMAGE))
    assert request["if-none-match"] == "*"
    head = bucket._s3.head_object(Bucket="images", Key=KEY, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == base64.b64encode(sha256(IMAGE).digest()).decode()
    assert head["ContentType"] == "image/png"
    assert digest == sha256(IMAGE).hexdigest()
    assert bucket.objects() == {KEY: IMAGE}


def test_a_body_that_arrives_damaged_is_not_stored(bucket: Bucket) -> None:
    def damage(request: Any, **_: Any) -> None:
        encoded = request.body.read()
        at = encoded.index(b"IDAT") + 10
        request.body = encoded[:at] + bytes([encoded[at] ^ 1]) + encoded[at + 1 :]

    bucket._s3.meta.events.register_first("before-send.s3.PutObject", damage)

    with pytest.raises(ImageUnavailableError, match="BadDigest"):
        bucket.upload(arriving())
    assert bucket.objects() == {}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (IMAGE[:33] + b"<html>" * 60_000, ImageRejectedError),
        (IMAGE[:-100] + bytes(100), ImageUnavailableError),
        (IMAGE[:-70_000] + bytes(70_000), ImageUnavailableError),
    ],
    ids=["another file", "damaged at its end", "damaged in the middle"],
)
def test_a_file_that_is_found_to_be_invalid_at_its_end_is_sent_once_and_not_stored(
    bucket: Bucket, content: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        bucket.upload(arriving(content))

    assert len(bucket.requests) == 1
    assert bucket.objects() == {}


def test_an_incomplete_image_is_not_stored(bucket: Bucket) -> None:
    def breaking_off() -> Iterator[bytes]:
        yield IMAGE[:100_000]
        raise ImageUnavailableError("the connection failed: it was interrupted")

    with pytest.raises(ImageUnavailableError, match="it was interrupted"):
        bucket.upload(ImageStream(breaking_off(), len(IMAGE), "images.example"))

    assert len(bucket.requests) == 1
    assert bucket.objects() == {}


def test_all_but_the_end_can_be_read_before_the_image_is_verified() -> None:
    arrived = []

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(IMAGE), 10_000):
            arrived.append(at)
            yield IMAGE[at : at + 10_000]

    with ImageStream(pieces(), len(IMAGE), "images.example") as image:
        read, arrived_by_then = [], []
        while block := image.read(BLOCK_BYTES):
            read.append(block)
            arrived_by_then.append(10_000 * len(arrived))

    assert b"".join(read) == IMAGE
    assert len(read) > 4
    assert arrived_by_then[0] < 2 * BLOCK_BYTES
    # The last bytes are held back until the whole image has arrived and is verified.
    assert arrived_by_then[-2] < len(IMAGE) <= arrived_by_then[-1]


def test_after_a_broken_connection_the_whole_body_is_sent_again(bucket: Bucket) -> None:
    bucket.break_connection_once()

    assert bucket.upload(arriving()) == sha256(IMAGE).hexdigest()

    assert bucket.broken_connections == 1
    assert bucket.objects() == {KEY: IMAGE}


def test_an_image_that_is_already_stored_counts_as_written(bucket: Bucket) -> None:
    bucket.upload(arriving())

    assert bucket.upload(arriving()) == sha256(IMAGE).hexdigest()


def test_a_different_image_does_not_replace_a_stored_image(bucket: Bucket) -> None:
    bucket.upload(arriving())

    with pytest.raises(ImageRejectedError, match="holds another image"):
        bucket.upload(arriving(large_picture(2)))
    assert bucket.objects() == {KEY: IMAGE}
