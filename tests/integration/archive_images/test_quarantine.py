"""Downloaded bytes that cannot be archived as an image are kept in the bucket under `quarantine/`."""

import hashlib
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from botocore.exceptions import ClientError

from catchlight.images import stream
from catchlight.models import ImageKind
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from functions.archive_images import app
from tests.image_server import SendResponse, cut, large_picture, picture
from tests.integration.archiver import BUCKET, Archiver
from tests.integration.functions import metric_lines

KEY = "quarantine/flux-kontext/task12345/result-0"
PNG, LARGE = picture(), large_picture(1)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\x10\0mdat" + bytes(4088)
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
JPEG_THEN_HTML = b"\xff\xd8\xff" + HTML


def chunked(body: bytes) -> SendResponse:
    """Returns a response in chunks, without a Content-Length."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    return send


def kept(archiver: Archiver) -> dict[str, bytes]:
    return {key: body for key, body in archiver.objects().items() if key.startswith("quarantine/")}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (HEIC, "HEIC"),
        (HTML, "not an image"),
        (JPEG_THEN_HTML, "not an image"),
        (b"BM" + bytes(80), "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "SVG"),
    ],
    ids=["HEIC", "HTML", "JPEG then HTML", "BMP", "SVG"],
)
def test_a_body_that_is_not_archived_is_kept(archiver: Archiver, body: bytes, reason: str) -> None:
    archiver.succeed(archiver.serve("a", body))

    assert archiver.run() == []

    (image,) = archiver.item()["images"]
    assert (archiver.item()["status"], image["state"]) == ("INCOMPLETE", "REJECTED")
    assert image["quarantine"] == {"key": KEY, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert "key" not in image
    assert archiver.objects() == {KEY: body}


def test_a_quarantined_object_is_served_as_a_download(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", HTML))
    archiver.run()

    head = archiver.s3.head_object(Bucket=BUCKET, Key=KEY, ChecksumMode="ENABLED")

    assert (head["ContentType"], head["ContentDisposition"]) == ("application/octet-stream", "attachment")
    metadata = head["Metadata"]
    assert metadata.pop("source-url-sha256")
    assert metadata == {"task": "flux-kontext#task12345", "source-host": "tempfile.aiquickdraw.com"}
    assert head["ChecksumSHA256"]


def test_an_image_with_too_many_pixels_is_kept(archiver: Archiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catchlight.images.formats.MAX_PIXELS", 47)  # of 8 x 6
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run() == []

    assert archiver.objects() == {KEY: PNG}


def test_other_bytes_of_an_archived_image_are_kept(archiver: Archiver) -> None:
    archiver.s3.put_object(Bucket=BUCKET, Key="images/flux-kontext/task12345/result-0.png", Body=b"other")
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run() == []

    assert kept(archiver) == {KEY: PNG}


def test_a_truncated_image_is_kept_at_the_last_try(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", LARGE[:50_000]))

    for tries in range(1, MAX_ARCHIVE_TRIES):
        assert archiver.run(tries=tries) == ["flux-kontext#task12345"]
        assert (archiver.states(), archiver.objects()) == (["PENDING"], {})
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    (image,) = archiver.item()["images"]
    assert (image["state"], image["quarantine"]["bytes"]) == ("REJECTED", 50_000)
    assert archiver.objects() == {KEY: LARGE[:50_000]}


def test_an_image_whose_connection_ended_early_is_kept_at_the_last_try(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", cut(LARGE, 50_000)))

    assert archiver.run() == ["flux-kontext#task12345"]
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert archiver.states() == ["REJECTED"]
    assert archiver.objects() == {KEY: LARGE[:50_000]}


def test_a_truncated_image_with_an_expired_url_becomes_expired(archiver: Archiver) -> None:
    archiver.succeed((ImageKind.RESULT, archiver.serve("a", LARGE[:50_000]), -1))

    archiver.run(tries=MAX_ARCHIVE_TRIES)

    assert archiver.states() == ["EXPIRED"]
    assert kept(archiver) == {KEY: LARGE[:50_000]}


def test_a_download_without_bytes_is_not_kept(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", cut(LARGE, 0)))

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == ["flux-kontext#task12345"]

    assert (archiver.states(), archiver.objects()) == (["PENDING"], {})


def test_an_incomplete_body_that_is_not_an_image_is_retried(archiver: Archiver) -> None:
    """The next download may be complete."""
    archiver.succeed(archiver.serve("a", cut(HEIC, 2000)))

    assert archiver.run() == ["flux-kontext#task12345"]
    assert archiver.objects() == {}

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    assert (archiver.states(), archiver.objects()) == (["REJECTED"], {KEY: HEIC[:2000]})


@pytest.mark.parametrize("more", [0, 1])
def test_a_body_up_to_the_limit_is_kept(archiver: Archiver, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(stream, "MAX_IMAGE_BYTES", len(HEIC) - more)
    archiver.succeed(archiver.serve("a", chunked(HEIC)))

    assert archiver.run() == []

    assert archiver.states() == ["REJECTED"]
    assert archiver.objects() == ({} if more else {KEY: HEIC})


def test_an_image_is_retried_after_an_error_of_s3(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", HTML))
    events = app.dependencies().archive._bucket._s3.meta.events

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "SlowDown"}}, "PutObject")

    events.register("before-call.s3.PutObject", fail)
    assert archiver.run() == ["flux-kontext#task12345"]
    assert archiver.states() == ["PENDING"]

    events.unregister("before-call.s3.PutObject", fail)
    assert archiver.run(tries=2) == []
    assert archiver.objects() == {KEY: HTML}


def test_an_image_that_is_archived_later_has_no_quarantine_attribute(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", HTML))
    archiver.run()
    item = archiver.item()
    image = {name: value for name, value in item["images"][0].items() if name not in ("quarantine", "reason")}
    archiver.store.put(item["task"], status="SUCCEEDED", rank=30, images=[{**image, "state": "PENDING"}])
    archiver.serve("a", PNG)

    assert archiver.run() == []

    assert archiver.states() == ["ARCHIVED"]
    assert "quarantine" not in archiver.item()["images"][0]


def test_quarantined_images_are_counted_and_logged(archiver: Archiver, capsys: pytest.CaptureFixture[str]) -> None:
    archiver.succeed(archiver.serve("a", HTML), archiver.serve("b", PNG))

    archiver.run()

    (line,) = metric_lines(capsys)
    assert (sum(line["ImagesQuarantined"]), sum(line["ImagesRejected"]), sum(line["ImagesArchived"])) == (1, 1, 1)
