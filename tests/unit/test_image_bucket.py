"""S3's answers to an upload: the image was written, exists already, or can be uploaded again."""

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError, ResponseStreamingError
from hypothesis import given
from hypothesis import strategies as st

from catchlight.archiving.bucket import MAX_REQUEST_BYTES, ImageBucket, folder, request_metadata
from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.stream import ImageStream
from catchlight.models import GenerationRequest, TaskStatus
from catchlight.tasks.task import Task
from tests.image_server import picture

PNG = picture()
DIGEST = hashlib.sha256(PNG).digest()
CHECKSUM = base64.b64encode(DIGEST).decode()
KEY, TASK = "images/acedata/t1/result-0.png", "acedata#t1"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Body:
    """A body from S3 whose connection is lost."""

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield PNG[:100]
        raise ResponseStreamingError(error="the connection is lost")

    def close(self) -> None: ...


def test_truncated_bytes_from_quarantine_are_an_error() -> None:
    class Quarantine:
        def get_object(self, **_: Any) -> dict[str, Any]:
            metadata = {"source-url-sha256": hashlib.sha256(b"https://h.example/a").hexdigest()}
            return {"Body": Body(), "ContentLength": len(PNG), "Metadata": metadata}

    client: Any = Quarantine()
    stored = ImageBucket(client, "images-bucket").quarantined(KEY, "https://h.example/a?signature=x")
    with pytest.raises(ImageUnavailableError, match="did not return all bytes"), stored as image:
        b"".join(iter(lambda: image.read(1000), b""))


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "Any")


NO_ANSWER = ReadTimeoutError(endpoint_url="https://s3.example")


class S3:
    """Records its calls, and returns or raises the configured answers."""

    def __init__(self, put: Any, head: Any = None) -> None:
        self.answers = {"put": put, "head": head}
        self.calls: list[dict[str, Any]] = []

    def put_object(self, **call: Any) -> Any:
        if hasattr(call["Body"], "read"):
            call["Body"] = b"".join(iter(lambda: call["Body"].read(1000), b""))
        return self._answer("put", call)

    def head_object(self, **call: Any) -> Any:
        return self._answer("head", call)

    def _answer(self, name: str, call: dict[str, Any]) -> Any:
        self.calls.append(call)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


def put(s3: S3, content: bytes = PNG, request: GenerationRequest | None = None) -> str:
    client: Any = s3
    task = Task(task=TASK, status=TaskStatus.SUCCEEDED, request=request)
    with ImageStream(iter([content]), len(content), "h.example") as image:
        return ImageBucket(client, "images-bucket").put(KEY, image, task)


def test_an_image_is_written_once_with_type_checksum_and_metadata() -> None:
    s3 = S3({"ChecksumSHA256": CHECKSUM})

    assert put(s3) == DIGEST.hex()

    assert s3.calls == [
        {
            "Bucket": "images-bucket",
            "Key": KEY,
            "IfNoneMatch": "*",
            "Body": PNG,
            "ContentLength": len(PNG),
            "ContentType": "image/png",
            "ChecksumAlgorithm": "SHA256",
            "Metadata": {"task": TASK, "source-host": "h.example"},
        }
    ]


def test_without_a_checksum_in_the_answer_the_checksum_is_computed() -> None:
    assert put(S3({})) == DIGEST.hex()


def test_an_existing_object_with_the_same_image_counts_as_written() -> None:
    s3 = S3(refusal("PreconditionFailed"), {"ChecksumSHA256": CHECKSUM, "Metadata": {}})

    assert put(s3) == DIGEST.hex()

    assert s3.calls[1:] == [{"Bucket": "images-bucket", "Key": KEY, "ChecksumMode": "ENABLED"}]


@pytest.mark.parametrize(("stored", "writes_object"), [({}, True), ({"request": '{"prompt":"a lion"}'}, False)])
def test_the_request_is_written_as_an_object_if_the_existing_image_lacks_it(
    stored: dict[str, str], writes_object: bool
) -> None:
    class Bucket(S3):
        """Has the image, and accepts the request's object."""

        def put_object(self, **call: Any) -> Any:
            self.answers["put"] = {} if call["Key"].endswith("request.json") else refusal("PreconditionFailed")
            return super().put_object(**call)

    s3 = Bucket(None, {"ChecksumSHA256": CHECKSUM, "Metadata": stored})

    assert put(s3, request=GenerationRequest(prompt="a lion")) == DIGEST.hex()

    assert [call["Key"] for call in s3.calls[2:]] == ["images/acedata/t1/request.json"] * writes_object


@pytest.mark.parametrize("head", [{"ChecksumSHA256": base64.b64encode(bytes(32)).decode()}, {}])
def test_an_existing_object_with_another_image_is_not_overwritten(head: dict[str, str]) -> None:
    with pytest.raises(ImageRejectedError, match=f"holds another image under {KEY} already"):
        put(S3(refusal("PreconditionFailed"), head))


@pytest.mark.parametrize(
    ("put_answer", "head", "reason"),
    [
        (refusal("SlowDown"), None, "S3 did not accept the object: SlowDown"),
        # Another writer is still uploading, and may fail.
        (refusal("ConditionalRequestConflict"), None, "S3 did not accept the object: ConditionalRequestConflict"),
        (NO_ANSWER, None, "S3 did not answer: ReadTimeoutError"),
        (refusal("PreconditionFailed"), refusal("403"), "S3 does not return the metadata of the existing object"),
        (refusal("PreconditionFailed"), NO_ANSWER, "S3 does not return the metadata of the existing object"),
    ],
)
def test_an_error_of_s3_may_be_retried(put_answer: Any, head: Any, reason: str) -> None:
    with pytest.raises(ImageUnavailableError, match=f"^{reason}$"):
        put(S3(put_answer, head))


@pytest.mark.parametrize(
    ("content", "error"),
    [(PNG[:45] + bytes(8) + PNG[53:], ImageUnavailableError), (PNG[:33] + b"<html>" * 20, ImageRejectedError)],
    ids=["damaged", "another file"],
)
def test_an_invalid_image_raises_its_own_error(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match="image/png"):
        put(S3({"ChecksumSHA256": CHECKSUM}), content)


# ------------------------------------------------------------------------------------------------ generation requests


@pytest.mark.parametrize(
    ("request_", "stored"),
    [
        (None, {}),
        (GenerationRequest(prompt="ein Löwe", seeds=(7,)), {"request": r'{"prompt":"ein L\u00f6we","seeds":[7]}'}),
        (GenerationRequest(prompt="x" * (MAX_REQUEST_BYTES - 13)), {"request": f'{{"prompt":"{"x" * 1487}"}}'}),
        (GenerationRequest(prompt="x" * (MAX_REQUEST_BYTES - 12)), {}),
        # Each of these characters takes six ASCII characters.
        (GenerationRequest(prompt="湖" * 248), {}),
        # A header cannot contain DEL and line breaks, and signatures treat several spaces as one.
        (GenerationRequest(prompt="a   b\x7f\n"), {"request": r'{"prompt":"a \u0020 b\u007f\n"}'}),
    ],
)
def test_a_request_is_in_the_metadata_if_it_fits(request_: GenerationRequest | None, stored: dict[str, str]) -> None:
    s3 = S3({"ChecksumSHA256": CHECKSUM})

    put(s3, request=request_)

    assert s3.calls[0]["Metadata"] == {"task": TASK, "source-host": "h.example", **stored}


@given(st.text(max_size=500))
def test_any_prompt_can_be_read_from_its_header(prompt: str) -> None:
    value = request_metadata(GenerationRequest(prompt=prompt)).get("request")

    if value is not None:
        assert value.isascii()
        assert value.isprintable()
        assert value == " ".join(value.split(" ")) == " ".join(value.split())
        assert json.loads(value) == {"prompt": prompt}
        # With the longest key of a task and the longest host it is below S3's 2 KB.
        others = {"task": "x" * 160, "source-host": "x" * 253, "request": value}
        assert sum(len(name) + len(each) for name, each in others.items()) < 2048


def put_request(s3: S3, request: GenerationRequest | None) -> None:
    client: Any = s3
    task = Task(task=TASK, status=TaskStatus.SUCCEEDED, request=request)
    ImageBucket(client, "images-bucket").put_request(task)


def test_the_request_is_an_object_in_the_folder_of_the_images() -> None:
    s3 = S3({})

    put_request(s3, GenerationRequest(prompt="ein Löwe", seeds=(7,)))

    (call,) = s3.calls
    body = call.pop("Body")
    assert json.loads(body) == {
        "provider": "acedata",
        "taskId": "t1",
        "request": {"prompt": "ein Löwe", "seeds": [7]},
    }
    assert "Löwe".encode() in body
    assert call == {
        "Bucket": "images-bucket",
        "Key": "images/acedata/t1/request.json",
        "IfNoneMatch": "*",
        "ContentType": "application/json",
    }


def test_without_a_request_no_object_is_written() -> None:
    s3 = S3({})

    put_request(s3, None)

    assert s3.calls == []


def test_an_existing_request_object_is_not_an_error() -> None:
    put_request(S3(refusal("PreconditionFailed")), GenerationRequest(prompt="a lion"))
    with pytest.raises(ImageUnavailableError):
        put_request(S3(refusal("SlowDown")), GenerationRequest(prompt="a lion"))


def test_a_task_has_its_own_folder() -> None:
    assert folder("acedata#t1") == "images/acedata/t1"
