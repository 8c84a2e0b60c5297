"""The bytes of uploads to S3 during the download, parsed as strictly as S3 does."""

import base64
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from io import BufferedReader
from typing import Any

import botocore.auth
import pytest
from botocore.config import Config

from catchlight.archiving.bucket import S3_CONFIG, ImageBucket
from catchlight.aws.clients import AwsClients
from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.stream import ImageStream
from catchlight.models import TaskStatus
from catchlight.tasks.task import Task
from tests.hostile.internet import Authority, listening
from tests.image_server import large_picture

IMAGE = large_picture(1)
TASK = Task(task="acedata#1", status=TaskStatus.SUCCEEDED)
# Of all chunks but the last: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
MIN_CHUNK_BYTES = 8192
PATH_STYLE = Config(s3={"addressing_style": "path", "payload_signing_enabled": False})


@dataclass
class StrictS3:
    """Accepts streamed uploads, rejects those that S3 would reject, and stores complete objects."""

    objects: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    aborted_uploads: int = 0

    def behave(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while line := stream.readline():
            method, path, _ = line.decode().split()
            headers = dict(self._headers(stream))
            assert (method, headers["transfer-encoding"]) == ("PUT", "chunked")
            if path in self.objects:
                connection.sendall(self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>"))
                continue
            assert headers["expect"] == "100-continue"
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                body = self._unchunked(stream)
            except EOFError:
                self.aborted_uploads += 1
                return
            content, checksum = self._decoded(body, headers)
            computed = base64.b64encode(sha256(content).digest()).decode()
            is_whole = len(content) == int(headers["x-amz-decoded-content-length"]) and checksum == computed
            if is_whole:
                self.objects[path] = content
            connection.sendall(self._answer(200 if is_whole else 400, b"", f"x-amz-checksum-sha256: {computed}\r\n"))

    def _answer(self, status: int, body: bytes, more: str = "") -> bytes:
        self.statuses.append(status)
        return f"HTTP/1.1 {status} Status\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body

    @staticmethod
    def _headers(stream: BufferedReader) -> Iterator[tuple[str, str]]:
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(":")
            yield name.lower(), value.strip()

    @staticmethod
    def _unchunked(stream: BufferedReader) -> bytes:
        body = b""
        while size := int(stream.readline() or _raise_end_of_stream(), 16):
            chunk = stream.read(size + 2)
            if len(chunk) < size + 2:
                _raise_end_of_stream()
            body += chunk[:-2]
        stream.readline()
        return body

    @staticmethod
    def _decoded(body: bytes, headers: dict[str, str]) -> tuple[bytes, str]:
        assert headers["content-encoding"] == "aws-chunked"
        assert headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        assert headers["x-amz-trailer"] == "x-amz-checksum-sha256"
        content, sizes = b"", []
        while True:
            size, _, body = body.partition(b"\r\n")
            sizes.append(int(size, 16))
            if not sizes[-1]:
                break
            assert body[sizes[-1] : sizes[-1] + 2] == b"\r\n"
            content, body = content + body[: sizes[-1]], body[sizes[-1] + 2 :]
        assert all(size >= MIN_CHUNK_BYTES for size in sizes[:-2])
        name, _, checksum = body.decode().strip().partition(":")
        assert name == headers["x-amz-trailer"]
        return content, checksum


def _raise_end_of_stream() -> bytes:
    raise EOFError


@pytest.fixture
def s3() -> StrictS3:
    return StrictS3()


@pytest.fixture
def bucket(
    s3: StrictS3, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ImageBucket]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    # As in Lambda, which has no awscrt: awscrt would sign the requests, and does not accept streams.
    monkeypatch.setitem(botocore.auth.AUTH_TYPE_MAPS, "s3v4", botocore.auth.S3SigV4Auth)
    with listening(s3.behave, authority.server("localhost")) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{port}")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
        yield ImageBucket(AwsClients().s3(S3_CONFIG.merge(PATH_STYLE)), "images")


def arriving(content: bytes = IMAGE, *, piece: int = 10_000) -> ImageStream:
    pieces = (content[at : at + piece] for at in range(0, len(content), piece))
    return ImageStream(pieces, len(content), "images.example")


@pytest.mark.parametrize("piece", [100, 10_000, 65_536, 1_000_000])
def test_s3_accepts_a_streamed_image(bucket: ImageBucket, s3: StrictS3, piece: int) -> None:
    with arriving(piece=piece) as image:
        assert bucket.put("a.png", image, TASK) == sha256(IMAGE).hexdigest()

    assert s3.objects == {"/images/a.png": IMAGE}
    assert s3.statuses == [200]


@pytest.mark.parametrize(
    ("content", "error"),
    [(IMAGE[:33] + b"<html>" * 60_000, ImageRejectedError), (IMAGE[:-100] + bytes(100), ImageUnavailableError)],
    ids=["another file", "damaged"],
)
def test_the_upload_of_an_invalid_file_is_aborted_at_its_end(
    bucket: ImageBucket, s3: StrictS3, content: bytes, error: type[Exception]
) -> None:
    with arriving(content) as image, pytest.raises(error):
        bucket.put("a.png", image, TASK)
    with arriving() as image:
        bucket.put("b.png", image, TASK)

    assert s3.objects == {"/images/b.png": IMAGE}
    assert (s3.statuses, s3.aborted_uploads) == ([200], 1)


def test_the_body_of_an_object_that_exists_is_not_sent(
    bucket: ImageBucket, s3: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.objects["/images/a.png"] = IMAGE
    head_requests = []

    def head(key: str) -> dict[str, Any]:
        head_requests.append(key)
        return {"ChecksumSHA256": base64.b64encode(sha256(IMAGE).digest()).decode(), "Metadata": {}}

    monkeypatch.setattr(bucket, "_head", head)

    with arriving() as image:
        assert bucket.put("a.png", image, TASK) == sha256(IMAGE).hexdigest()

    assert head_requests == ["a.png"]
    assert s3.statuses == [412]
