"""ArchiveImages with DynamoDB, S3 and SQS in memory, and images from a loopback server."""

import base64
import hashlib
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from botocore.exceptions import ClientError

from catchlight.models import ImageKind, Media, SkippedOutput
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from catchlight.providers import PROVIDERS
from functions.archive_images import app
from tests.image_server import content, cut, picture, status
from tests.integration.archiver import BUCKET, HOST, TASK, Archiver
from tests.integration.conftest import TABLE_NAME
from tests.integration.fault_injection import AWS_FAULTS, failing

PNG, JPEG = picture("PNG"), picture("JPEG")


# ------------------------------------------------------------------------------------------------ archived


def test_origin_and_result_are_archived(archiver: Archiver) -> None:
    origin, result = archiver.serve("o", JPEG), archiver.serve("r", PNG)
    archiver.succeed((ImageKind.ORIGIN, origin, 10), (ImageKind.RESULT, result, 20_000))

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["rank"]) == ("ARCHIVED", 50)
    assert item["archivedAt"] == item["updatedAt"]
    assert archiver.objects() == {
        "images/flux-kontext/task12345/origin-0.jpg": JPEG,
        "images/flux-kontext/task12345/result-0.png": PNG,
    }
    first, second = item["images"]
    assert {name: value for name, value in first.items() if name not in ("expiresAt", "archivedAt")} == {
        "kind": "origin",
        "url": origin,
        "state": "ARCHIVED",
        "bucket": BUCKET,
        "key": "images/flux-kontext/task12345/origin-0.jpg",
        "bytes": len(JPEG),
        "sha256": hashlib.sha256(JPEG).hexdigest(),
        "contentType": "image/jpeg",
        "width": 8,
        "height": 6,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", second["archivedAt"])


def test_objects_have_type_checksum_task_and_source_host(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a.txt", content(PNG, "text/html")))

    archiver.run()

    key = "images/flux-kontext/task12345/result-0.png"
    head = archiver.s3.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    assert head["ContentType"] == "image/png"
    assert head["ContentLength"] == len(PNG)
    assert head["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(PNG).digest()).decode()
    assert head["Metadata"] == {"task": TASK, "source-host": HOST}


@pytest.mark.parametrize(
    ("format_name", "extension", "content_type"),
    [
        ("JPEG", "jpg", "image/jpeg"),
        ("PNG", "png", "image/png"),
        ("WEBP", "webp", "image/webp"),
        ("GIF", "gif", "image/gif"),
        ("AVIF", "avif", "image/avif"),
    ],
)
def test_every_format_has_its_extension_and_type(
    archiver: Archiver, format_name: str, extension: str, content_type: str
) -> None:
    archiver.succeed(archiver.serve("a", picture(format_name)))

    assert archiver.run() == []

    assert list(archiver.objects()) == [f"images/flux-kontext/task12345/result-0.{extension}"]
    assert archiver.item()["images"][0]["contentType"] == content_type


def test_several_images_of_one_kind_are_numbered(archiver: Archiver) -> None:
    pictures = [picture(size=(8, 6 + number)) for number in range(4)]
    archiver.succeed(*[archiver.serve(f"{number}", data) for number, data in enumerate(pictures)], task="acedata#a1")
    # This host is not in the list of Ace Data's image hosts; the one below is.
    assert archiver.run("acedata#a1") == []
    assert archiver.states("acedata#a1") == ["REJECTED"] * 4

    urls = [archiver.server.serve(f"{n}", data, "x.acedata.cloud") for n, data in enumerate(pictures)]
    archiver.succeed(*urls, task="acedata#a2")
    assert archiver.run("acedata#a2") == []
    assert archiver.objects() == {f"images/acedata/a2/result-{n}.png": data for n, data in enumerate(pictures)}


def test_outputs_other_than_images_are_listed_and_not_downloaded(archiver: Archiver) -> None:
    video = SkippedOutput(media=Media.VIDEO, url=archiver.serve("a.mp4", PNG))
    archiver.succeed(archiver.serve("a", PNG), skipped=(video, SkippedOutput(media=Media.TEXT)))

    assert archiver.run() == []

    item = archiver.item()
    assert item["status"] == "ARCHIVED"
    assert item["skipped"] == [{"media": "video", "url": video.url}, {"media": "text"}]
    assert list(archiver.objects()) == ["images/flux-kontext/task12345/result-0.png"]
    assert [path for path in archiver.server.requests if "mp4" in str(path)] == []


def test_a_task_without_any_image_is_incomplete(archiver: Archiver) -> None:
    video = SkippedOutput(media=Media.VIDEO, url=archiver.serve("a.mp4", PNG))
    archiver.succeed(skipped=(video,))

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["rank"]) == ("INCOMPLETE", 40)
    assert "failure" not in item
    assert archiver.objects() == {}
    assert list(archiver.server.requests) == []


def test_the_tasks_of_a_batch_are_archived_concurrently(archiver: Archiver) -> None:
    together = threading.Barrier(app.MAX_MESSAGES, timeout=60)

    def meet(request: BaseHTTPRequestHandler) -> None:
        together.wait()  # raises BrokenBarrierError unless all downloads run at the same time
        content(PNG)(request)

    tasks = [f"flux-kontext#task{number}" for number in range(app.MAX_MESSAGES)]
    for task in tasks:
        archiver.succeed(archiver.serve(task[-1], meet), task=task)

    assert archiver.run(*tasks) == []
    assert {item["status"] for item in archiver.store.items()} == {"ARCHIVED"}


def test_the_image_whose_url_expires_first_is_downloaded_first(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_CONCURRENT_IMAGES", 1)
    minutes_to_expiry = {"a": 300, "b": 20, "c": 14_000, "d": 10}
    archiver.succeed(
        *[(ImageKind.RESULT, archiver.serve(path, PNG), minutes) for path, minutes in minutes_to_expiry.items()]
    )

    archiver.run()

    assert archiver.server.requests == ["/d", "/b", "/a", "/c"]


# ------------------------------------------------------------------------------------------------ repeated messages


def test_a_repeated_message_downloads_and_changes_nothing(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    archiver.run()
    before = archiver.item()

    assert archiver.run() == []

    assert archiver.item() == before
    assert archiver.server.requests == ["/a"]


def test_concurrent_duplicates_of_a_message_archive_all_images(archiver: Archiver) -> None:
    archiver.succeed(*[archiver.serve(f"{number}", PNG) for number in range(3)])

    assert archiver.run(*[TASK] * 5) == []

    assert archiver.item()["status"] == "ARCHIVED"
    assert len(archiver.objects()) == 3


@pytest.mark.parametrize("item", [None, {"status": "PENDING", "rank": 0}, {"status": "FAILED", "rank": 20}])
def test_nothing_is_archived_for_a_deleted_task_or_one_without_images(
    archiver: Archiver, item: dict[str, Any] | None
) -> None:
    if item is not None:
        archiver.store.put(TASK, **item)

    assert archiver.run() == []
    assert archiver.objects() == {}


def test_an_object_that_a_crashed_run_has_written_is_used(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    archiver.run()
    # As after a crash between the two writes: the object exists, and the image in the item is PENDING.
    archiver.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run(tries=2) == []

    assert archiver.item()["status"] == "ARCHIVED"
    versions = archiver.s3.list_object_versions(Bucket=BUCKET)["Versions"]
    assert len(versions) == 1


def test_an_object_with_other_bytes_is_never_replaced(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    archiver.run()
    archiver.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
    archiver.succeed(archiver.serve("a", picture(size=(9, 9))))

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], archiver.states()) == ("INCOMPLETE", ["REJECTED"])
    assert "holds another image" in item["images"][0]["reason"]
    assert archiver.objects()["images/flux-kontext/task12345/result-0.png"] == PNG


def test_after_a_failed_write_to_the_table_the_next_try_archives_the_task(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    events = app.dependencies().archive._table._client.meta.events

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem")

    events.register("before-call.dynamodb.UpdateItem", fail)
    messages = archiver.receive()
    assert archiver.handle(messages) == [messages[0]["messageId"]]
    assert archiver.states() == ["PENDING"]

    events.unregister("before-call.dynamodb.UpdateItem", fail)
    assert archiver.handle(messages) == []
    assert archiver.item()["status"] == "ARCHIVED"


# ------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize(
    ("tries", "seconds"), [(1, 5), (2, 15), (3, 45), (4, 60), (5, 60), (60, 60), (90, 94), (999, 150)]
)
def test_a_failed_message_is_received_again_after_the_retry_delay(archiver: Archiver, tries: int, seconds: int) -> None:
    url = archiver.serve("a", status(503))
    archiver.succeed((ImageKind.RESULT, url, 1440), (ImageKind.ORIGIN, url, 10))
    messages = archiver.receive(tries=tries)

    assert archiver.handle(messages) == [messages[0]["messageId"]]

    assert archiver.seconds_until_visible(messages[0]) == pytest.approx(seconds, abs=3)
    assert (archiver.item()["status"], archiver.states()) == ("SUCCEEDED", ["PENDING", "PENDING"])


def test_an_expired_original_does_not_shorten_the_retry_delay_of_the_result(archiver: Archiver) -> None:
    url = archiver.serve("a", status(503))
    archiver.succeed((ImageKind.RESULT, url, 20), (ImageKind.ORIGIN, url, -1))
    messages = archiver.receive(tries=900)

    assert archiver.handle(messages) == [messages[0]["messageId"]]

    assert archiver.seconds_until_visible(messages[0]) == pytest.approx(300, abs=3)
    assert archiver.dead_letters() == []


def test_a_task_whose_urls_have_expired_becomes_a_dead_letter_at_the_last_try(archiver: Archiver) -> None:
    url = archiver.serve("a", status(503))
    archiver.succeed((ImageKind.RESULT, url, -1), (ImageKind.ORIGIN, url, -1))

    assert archiver.run(tries=MAX_ARCHIVE_TRIES - 1) == [TASK]
    assert archiver.dead_letters() == []

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    assert archiver.dead_letters() == [json.dumps({"task": TASK})]
    assert (archiver.item()["status"], archiver.states()) == ("SUCCEEDED", ["PENDING", "PENDING"])


@pytest.mark.parametrize(("age", "is_dead_letter"), [(timedelta(hours=23), False), (timedelta(hours=25), True)])
def test_a_message_whose_item_cannot_be_read_is_retried_for_a_day(
    archiver: Archiver, age: timedelta, is_dead_letter: bool
) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    messages = archiver.receive(tries=999, sent_at=datetime.now(UTC) - age)

    with failing("GetItem", AWS_FAULTS["unanswered"]):
        failed = archiver.handle(messages)

    assert bool(archiver.dead_letters()) is is_dead_letter
    assert failed == ([] if is_dead_letter else [messages[0]["messageId"]])
    if not is_dead_letter:
        assert archiver.seconds_until_visible(messages[0]) == pytest.approx(60, abs=3)


@pytest.mark.parametrize("operation", ["PutObject", "GetItem", "UpdateItem", "GetSecretValue"])
@pytest.mark.parametrize("minutes", [1, 3, 5, 8])
def test_after_an_outage_of_minutes_the_original_is_archived_within_a_minute(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch, operation: str, minutes: int
) -> None:
    """The URL of an original expires after 600 s. The test sets the clock: each try takes 20 s until it times out."""
    archiver.succeed((ImageKind.ORIGIN, archiver.serve("a", PNG), 10), archiver.serve("b", JPEG))
    begun = now = datetime.now(UTC)
    monkeypatch.setattr(app, "utc_now", lambda: now)
    over = begun + timedelta(minutes=minutes)
    tries = 0
    while archiver.item()["status"] != "ARCHIVED":
        tries += 1
        (message,) = archiver.receive(tries=tries, sent_at=begun)
        if now >= over:
            assert archiver.handle([message]) == []
            break
        with failing(operation, AWS_FAULTS["unanswered"]):
            assert archiver.handle([message]) == [message["messageId"]]
        now += timedelta(seconds=20 + round(archiver.seconds_until_visible(message)))
        archiver.sqs.delete_message(QueueUrl=archiver.queue_url, ReceiptHandle=message["receiptHandle"])
        app.dependencies.cache_clear()

    assert archiver.item()["status"] == "ARCHIVED"
    assert archiver.dead_letters() == []
    assert now - over <= timedelta(seconds=60 + 20)
    assert now - begun < timedelta(seconds=600)


def test_a_request_attribute_that_is_text_does_not_prevent_archiving(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    archiver.store.put(**archiver.item() | {"request": "a note of the user"})

    assert archiver.run() == []

    assert (archiver.item()["status"], archiver.item()["request"]) == ("ARCHIVED", "a note of the user")


def test_only_failed_tasks_are_retried(archiver: Archiver) -> None:
    good, bad = "flux-kontext#good", "flux-kontext#bad"
    archiver.succeed(archiver.serve("good", PNG), task=good)
    archiver.succeed(archiver.serve("bad", status(503)), task=bad)

    assert archiver.run(good, bad) == [bad]

    assert archiver.item(good)["status"] == "ARCHIVED"


def test_archived_images_are_kept_while_others_are_retried(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", PNG), archiver.serve("b", status(404)))
    assert archiver.run() == [TASK]
    assert archiver.states() == ["ARCHIVED", "PENDING"]

    archiver.serve("b", JPEG)
    assert archiver.run(tries=2) == []
    assert archiver.states() == ["ARCHIVED", "ARCHIVED"]
    assert archiver.item()["status"] == "ARCHIVED"
    assert sorted(archiver.server.requests) == ["/a", "/b", "/b"]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_an_image_that_its_host_no_longer_has_becomes_expired_at_the_last_try(archiver: Archiver, code: int) -> None:
    archiver.succeed(archiver.serve("a", PNG), archiver.serve("b", status(code)))

    for tries in range(1, MAX_ARCHIVE_TRIES):
        assert archiver.run(tries=tries) == [TASK]
        assert archiver.states() == ["ARCHIVED", "PENDING"]
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    item = archiver.item()
    assert (item["status"], item["rank"], archiver.states()) == ("INCOMPLETE", 40, ["ARCHIVED", "EXPIRED"])
    assert f"answers {code}" in item["images"][1]["reason"]
    assert "key" not in item["images"][1]


@pytest.mark.parametrize("minutes", [-1, 1440], ids=["an expired URL", "a valid URL"])
@pytest.mark.parametrize("answer", [status(404), cut(JPEG, 200)], ids=["404", "a cut body"])
def test_negative_answers_after_an_outage_are_tried_again(archiver: Archiver, answer: Any, minutes: int) -> None:
    """The image host is down for four tries. After that, it first responds with 404 or a truncated image."""
    archiver.succeed((ImageKind.RESULT, archiver.serve("a", status(503)), minutes))
    for tries in range(1, MAX_ARCHIVE_TRIES):
        assert archiver.run(tries=tries, negative=0) == [TASK]
        assert archiver.item().get("negativeTries", 0) == 0

    archiver.serve("a", answer)
    for negative in range(MAX_ARCHIVE_TRIES - 1):
        assert archiver.run(tries=MAX_ARCHIVE_TRIES + negative, negative=negative) == [TASK]
        assert (archiver.item()["negativeTries"], archiver.states()) == (negative + 1, ["PENDING"])
    archiver.serve("a", JPEG)
    assert archiver.run(tries=2 * MAX_ARCHIVE_TRIES, negative=MAX_ARCHIVE_TRIES - 1) == []

    assert (archiver.item()["status"], archiver.dead_letters()) == ("ARCHIVED", [])


@pytest.mark.parametrize("code", ["SlowDown", "ConditionalRequestConflict"])
def test_an_image_is_retried_after_an_error_of_s3(archiver: Archiver, code: str) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    events = app.dependencies().archive._bucket._s3.meta.events

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code}}, "PutObject")

    events.register("before-call.s3.PutObject", fail)
    assert archiver.run() == [TASK]
    assert archiver.states() == ["PENDING"]

    events.unregister("before-call.s3.PutObject", fail)
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "ARCHIVED"


def test_a_body_that_is_damaged_on_the_way_to_s3_is_not_stored(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    events = app.dependencies().archive._bucket._s3.meta.events

    def damage(request: Any, **_: Any) -> None:
        sent = bytearray(request.body.read())
        sent[sent.index(b"IDAT") + 4] ^= 1
        request.body = bytes(sent)

    events.register_first("before-send.s3.PutObject", damage)

    assert archiver.run() == [TASK]
    assert archiver.objects() == {}


def test_a_message_whose_visibility_cannot_be_changed_is_still_retried(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", status(503)))
    messages = archiver.receive()
    messages[0]["receiptHandle"] = "expired"

    assert archiver.handle(messages) == [messages[0]["messageId"]]


# ------------------------------------------------------------------------------------------------ rejected images


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<!DOCTYPE html>", "not an image"),
        (status(302, Location="http://127.0.0.1/"), "redirects"),
    ],
    ids=["HTML", "redirect"],
)
def test_responses_that_are_not_images_are_rejected_at_once(archiver: Archiver, answer: Any, reason: str) -> None:
    archiver.succeed(archiver.serve("a", answer))

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], archiver.states()) == ("INCOMPLETE", ["REJECTED"])
    assert reason in item["images"][0]["reason"]


def test_a_compressed_image_is_retried(archiver: Archiver) -> None:
    """Another server of the same host may send the image without compression."""
    url = archiver.serve("a", content(PNG, Content_Encoding="gzip"))
    archiver.succeed(url)

    assert archiver.run() == [TASK]
    assert archiver.states() == ["PENDING"]


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/a.png",
        "http://tempfile.aiquickdraw.com/a.png",
        "https://169.254.169.254/latest/meta-data/",
        "https://tempfile.aiquickdraw.com:8443/a.png",
        "https://user@tempfile.aiquickdraw.com/a.png",
    ],
)
def test_urls_that_the_url_policy_forbids_are_rejected_at_once(archiver: Archiver, url: str) -> None:
    archiver.succeed(url)

    assert archiver.run() == []

    assert (archiver.item()["status"], archiver.states()) == ("INCOMPLETE", ["REJECTED"])


@pytest.mark.parametrize(
    ("unusable", "reason"),
    [
        ("https://images.example/".ljust(9000, "x"), "longer than 8,192 characters"),
        ("ftp://images.example/a.png", "not https"),
        ("https://images.example/a\nb.png", "characters that are not allowed in URLs"),
        ("https://b\u00fccher.example/a.png", "not a public host name"),
        (5, "not https"),
    ],
)
def test_one_unusable_url_rejects_one_image(archiver: Archiver, unusable: Any, reason: str) -> None:
    info = {"originImageUrl": unusable, "resultImageUrl": archiver.serve("a", PNG)}
    body = {"code": 200, "data": {"taskId": "task12345", "info": info}}
    archiver.store.reports.record(PROVIDERS["flux-kontext"].parse_callback(body, received_at=datetime.now(UTC)))

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], archiver.states()) == ("INCOMPLETE", ["REJECTED", "ARCHIVED"])
    assert reason in item["images"][0]["reason"]


def test_hosts_of_an_unconfirmed_callback_have_to_be_listed(archiver: Archiver) -> None:
    archiver.succeed(archiver.server.serve("a", PNG, "other.example"))

    assert archiver.run() == []

    assert (archiver.states(), archiver.server.requests) == (["REJECTED"], [])


def test_image_hosts_can_be_added(archiver: Archiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDITIONAL_IMAGE_HOSTS", "images.example")
    archiver.succeed(archiver.server.serve("a", PNG, "images.example"))

    assert archiver.run() == []
    assert archiver.item()["status"] == "ARCHIVED"
