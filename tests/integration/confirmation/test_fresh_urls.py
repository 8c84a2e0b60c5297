"""Before the archiver marks an image with an expired URL as EXPIRED, it requests a fresh URL from the provider."""

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from catchlight.models import ImageKind, Reporter
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES, retry_after_seconds
from catchlight.providers.kie import DOWNLOAD_URL_PATH
from catchlight.tasks.images import TaskImages
from functions.archive_images import app
from tests.image_server import picture, status
from tests.integration.archiver import TASK, Archiver
from tests.integration.confirmation.reports import INCONCLUSIVE, PNG, flux_record
from tests.integration.fault_injection import AWS_FAULTS, failing
from tests.integration.functions import metric_lines
from tests.integration.providers import FLUX_PATH, Providers, failed, json_response, running

JPEG = picture("JPEG")


def expired_origin(archiver: Archiver, code: int = 404) -> tuple[str, str]:
    """Stores a task, reported by a poll, whose origin URL does not work any more. Returns the URLs of both images."""
    origin, result = archiver.serve("old", status(code)), archiver.serve("result", PNG)
    archiver.succeed((ImageKind.ORIGIN, origin, -5), (ImageKind.RESULT, result, 20_000), reported_by=Reporter.POLL)
    return origin, result


def tries_within(minutes: int) -> int:
    """Returns the number of tries in an outage of this length; each try takes 20 s until it times out."""
    tries, seconds, now = 1, 0, datetime.now(UTC)
    while seconds < minutes * 60:
        seconds += 20 + retry_after_seconds(tries, urls_expire_at=now + timedelta(days=14), now=now)
        tries += 1
    return tries


@pytest.mark.parametrize("has_fresh_url", [True, False])
@pytest.mark.parametrize("operation", ["PutObject", "GetItem", "UpdateItem", "GetSecretValue"])
def test_images_are_archived_after_an_outage_of_three_hours(
    archiver: Archiver, providers: Providers, monkeypatch: pytest.MonkeyPatch, operation: str, has_fresh_url: bool
) -> None:
    """An original's URL expires after 600 s, a result's after days. The original needs a fresh URL."""
    origin, result = archiver.serve("old", PNG), archiver.serve("result", JPEG)
    archiver.succeed((ImageKind.ORIGIN, origin, 10), (ImageKind.RESULT, result, 20_000))
    providers.answers = {FLUX_PATH: flux_record(result, origin)}
    started_at = now = datetime.now(UTC)
    monkeypatch.setattr(app, "utc_now", lambda: now)
    for minutes in (0, 9, 11, 60, 179):
        now = started_at + timedelta(minutes=minutes)
        app.dependencies.cache_clear()
        (message,) = archiver.receive(tries=tries_within(minutes), sent_at=started_at)
        with failing(operation, AWS_FAULTS["unanswered"]):
            assert archiver.handle([message]) == [message["messageId"]]
        # The next try comes within 1/60 of the outage's length, or within a minute at first.
        assert archiver.seconds_until_visible(message) <= max(60, minutes) + 1
        archiver.sqs.delete_message(QueueUrl=archiver.queue_url, ReceiptHandle=message["receiptHandle"])
    archiver.serve("old", status(404))
    fresh = archiver.serve("fresh", PNG)
    providers.answers = {FLUX_PATH: flux_record(result, fresh if has_fresh_url else origin)}

    now = started_at + timedelta(hours=3)
    app.dependencies.cache_clear()
    assert archiver.run(tries=tries_within(180)) == []

    # While the secret could not be read, the images were downloaded into quarantine.
    is_original_archived = has_fresh_url or operation == "GetSecretValue"
    assert archiver.states() == ["ARCHIVED" if is_original_archived else "EXPIRED", "ARCHIVED"]
    assert archiver.dead_letters() == []


@pytest.mark.parametrize("code", [403, 404, 410])
def test_an_image_with_an_expired_url_is_archived_from_a_fresh_url_in_the_same_run(
    archiver: Archiver, providers: Providers, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _, result = expired_origin(archiver, code)
    fresh = archiver.serve("fresh", JPEG)
    providers.answers = {FLUX_PATH: flux_record(result, fresh)}

    assert archiver.run() == []

    item = archiver.item()
    assert item["status"] == "ARCHIVED"
    assert item["images"][0]["url"] == fresh
    assert archiver.objects() == {
        "images/flux-kontext/task12345/origin-0.jpg": JPEG,
        "images/flux-kontext/task12345/result-0.png": PNG,
    }
    # A fresh signature has a new time of expiry.
    expires_at = datetime.fromisoformat(item["images"][0]["expiresAt"])
    assert abs(expires_at - datetime.now(UTC) - timedelta(minutes=10)) < timedelta(minutes=1)
    (line,) = metric_lines(capsys)
    assert line["UrlsRenewed"] == [1.0]
    assert len(providers.requests) == 1
    assert archiver.server.requests.count("/result") == 1


def test_the_record_is_requested_with_every_try_while_it_has_the_same_url(
    archiver: Archiver, providers: Providers
) -> None:
    origin, result = expired_origin(archiver)
    providers.answers = {FLUX_PATH: flux_record(result, origin)}

    for tries in range(1, MAX_ARCHIVE_TRIES):
        assert archiver.run(tries=tries) == [TASK]
        assert archiver.states() == ["PENDING", "ARCHIVED"]
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert (archiver.item()["status"], archiver.states()) == ("ARCHIVED", ["EXPIRED", "ARCHIVED"])
    assert sum(request.url.path == FLUX_PATH for request in providers.requests) == MAX_ARCHIVE_TRIES


@pytest.mark.parametrize("reported_by", Reporter)
def test_a_download_url_is_requested_if_the_records_url_has_expired(
    archiver: Archiver, providers: Providers, reported_by: Reporter
) -> None:
    result, fresh = archiver.serve("old", status(404)), archiver.serve("fresh", PNG)
    archiver.succeed((ImageKind.RESULT, result, 20_000), reported_by=reported_by)
    requested = []

    def download_url(request: httpx.Request) -> httpx.Response:
        requested.append(json.loads(request.content))
        return httpx.Response(200, json={"code": 200, "msg": "success", "data": fresh})

    providers.answers = {FLUX_PATH: flux_record(result), DOWNLOAD_URL_PATH: download_url}

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert requested == [{"url": result}]
    assert archiver.item()["status"] == "ARCHIVED"
    assert archiver.objects() == {"images/flux-kontext/task12345/result-0.png": PNG}


@pytest.mark.parametrize(
    ("body", "status_code"),
    [
        ({"code": 422, "msg": "Invalid URL", "data": None}, 200),
        ({"code": 200, "data": None}, 200),
        ({"code": 200, "data": "javascript:x"}, 200),
        ({"code": 200, "data": "https://h.example/x"}, 500),
        ([], 200),
    ],
)
def test_without_a_download_url_the_image_is_expired(
    archiver: Archiver, providers: Providers, body: object, status_code: int
) -> None:
    origin, result = expired_origin(archiver)
    providers.answers = {FLUX_PATH: flux_record(result, origin), DOWNLOAD_URL_PATH: json_response(body, status_code)}

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert (archiver.item()["status"], archiver.states()) == ("ARCHIVED", ["EXPIRED", "ARCHIVED"])
    assert archiver.item()["images"][0]["url"] == origin


def test_a_failed_download_from_a_fresh_url_counts_as_a_try(archiver: Archiver, providers: Providers) -> None:
    _, result = expired_origin(archiver)
    providers.answers = {FLUX_PATH: flux_record(result, archiver.serve("fresh", status(404)))}

    assert archiver.run() == [TASK]
    assert archiver.states() == ["PENDING", "ARCHIVED"]

    archiver.serve("fresh", JPEG)
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "ARCHIVED"


@pytest.mark.parametrize("respond", [running, failed, json_response({"code": 422, "msg": "Record does not exist"})])
def test_an_image_is_expired_if_the_provider_reports_no_result(
    archiver: Archiver, providers: Providers, respond: object
) -> None:
    expired_origin(archiver)
    providers.answers = {FLUX_PATH: respond}  # type: ignore[dict-item]

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert (archiver.item()["status"], archiver.states()) == ("ARCHIVED", ["EXPIRED", "ARCHIVED"])


@pytest.mark.parametrize("respond", INCONCLUSIVE.values(), ids=INCONCLUSIVE)
def test_no_image_is_expired_while_its_provider_is_unavailable(
    archiver: Archiver, providers: Providers, respond: object
) -> None:
    expired_origin(archiver)
    providers.answers = {FLUX_PATH: respond}  # type: ignore[dict-item]

    # All URLs have expired: the message becomes a dead letter, which can be redriven, and the image stays PENDING.
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    assert archiver.dead_letters() == [json.dumps({"task": TASK})]

    assert (archiver.item()["status"], archiver.states()) == ("SUCCEEDED", ["PENDING", "ARCHIVED"])


def test_a_concurrent_change_prevents_the_renewal_of_urls(
    archiver: Archiver, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = expired_origin(archiver)
    monkeypatch.setattr(TaskImages, "replace", lambda *_, **__: False)
    providers.answers = {FLUX_PATH: flux_record(result, archiver.serve("fresh", JPEG))}

    assert archiver.run() == [TASK]

    assert archiver.states() == ["PENDING", "ARCHIVED"]


def test_after_a_confirmation_the_record_is_not_requested_again(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("gone", status(404)))
    providers.answers = {FLUX_PATH: flux_record(archiver.serve("gone", status(404)))}

    assert archiver.run() == [TASK]
    assert [request.url.path for request in providers.requests] == [FLUX_PATH, DOWNLOAD_URL_PATH]

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    assert (archiver.item()["status"], archiver.states()) == ("INCOMPLETE", ["EXPIRED"])


def test_the_url_policy_applies_to_fresh_urls(archiver: Archiver, providers: Providers) -> None:
    _, result = expired_origin(archiver)
    providers.answers = {FLUX_PATH: flux_record(result, "https://169.254.169.254/latest/meta-data/")}

    assert archiver.run() == []

    assert archiver.states() == ["REJECTED", "ARCHIVED"]


def test_without_an_api_key_no_fresh_url_is_requested(
    archiver: Archiver, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiver.succeed(archiver.server.serve("gone", status(404), "x.unheard.example"), task="unheard#t1")
    monkeypatch.setenv("ADDITIONAL_IMAGE_HOSTS", "x.unheard.example")

    assert archiver.run("unheard#t1", tries=MAX_ARCHIVE_TRIES) == []

    assert archiver.states("unheard#t1") == ["EXPIRED"]
    assert providers.requests == []


def test_the_record_is_requested_with_the_api_key_in_a_header(archiver: Archiver, providers: Providers) -> None:
    expired_origin(archiver)
    providers.answers = {FLUX_PATH: lambda _: httpx.Response(500)}

    archiver.run()

    assert providers.requests[0].headers["Authorization"].startswith("Bearer ")
