"""Originals are stored before the task has a result; the parameter Originals sets whether a task needs its original."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.models import ImageKind, Reporter, TaskReport
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from catchlight.providers import PROVIDERS
from functions.archive_images import app
from tests.image_server import picture, serving, status
from tests.integration.archiver import TASK, Archiver, archiving
from tests.integration.conftest import Store
from tests.integration.functions import metric_lines
from tests.integration.providers import FLUX_PATH, Providers, poll, polling, record, unreachable

PNG, JPEG = picture("PNG"), picture("JPEG")
ORIGIN, RESULT = ImageKind.ORIGIN, ImageKind.RESULT
KEPT_AT = "quarantine/flux-kontext/task12345/origin-0"


@pytest.fixture
def archiver(store: Store, context: LambdaContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archiver]:
    with serving() as server, archiving(store, server, context, monkeypatch, {}) as running_archiver:
        yield running_archiver


@pytest.fixture
def providers(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    with polling(monkeypatch) as fake_providers:
        yield fake_providers


def a_callback(origin: str, result: str | None = None) -> TaskReport:
    info = {"originImageUrl": origin, "resultImageUrl": result}
    body = {"code": 200, "msg": "success", "data": {"taskId": "task12345", "info": info}}
    return PROVIDERS["flux-kontext"].parse_callback(body, received_at=datetime.now(UTC))


def record_of(origin: str, result: str | None = None) -> Any:
    """Returns a handler that responds with the record of a success with these URLs."""
    response = {"originImageUrl": origin, "resultImageUrl": result}
    return lambda request: record(request, successFlag=1, response=response)


def set_originals(monkeypatch: pytest.MonkeyPatch, originals: str) -> None:
    monkeypatch.setenv("ORIGINALS", originals)
    app.dependencies.cache_clear()


# ------------------------------------------------------------------------------------------------ before the result


def test_a_callback_with_the_original_only_leaves_the_task_pending(store: Store) -> None:
    store.register(TASK)

    store.reports.record(a_callback("https://tempfile.aiquickdraw.com/o.png"))
    store.reports.record(a_callback("https://tempfile.aiquickdraw.com/other.png"))

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"], item["deliveries"], "hintedAt" in item) == ("PENDING", 0, 1, True)
    assert [image["url"] for image in item["images"]] == ["https://tempfile.aiquickdraw.com/o.png"]


def test_the_original_is_kept_and_archived_with_the_result_after_its_url_has_expired(archiver: Archiver) -> None:
    origin = archiver.serve("o", JPEG)
    archiver.store.reports.record(a_callback(origin))
    before = archiver.item()["updatedAt"]

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["updatedAt"], archiver.objects()) == ("PENDING", before, {KEPT_AT: JPEG})
    assert item["images"][0]["quarantine"]["key"] == KEPT_AT
    assert archiver.run() == []
    assert archiver.server.requests == ["/o"]

    archiver.serve("o", status(403))
    archiver.succeed((ORIGIN, origin, 10), (RESULT, archiver.serve("r", PNG), 1440))
    assert archiver.run() == []
    assert archiver.item()["status"] == "ARCHIVED"
    assert archiver.images() == {
        "images/flux-kontext/task12345/origin-0.jpg": JPEG,
        "images/flux-kontext/task12345/result-0.png": PNG,
    }


def test_an_original_that_cannot_be_downloaded_is_tried_again_until_the_last_try(archiver: Archiver) -> None:
    archiver.store.reports.record(a_callback(archiver.serve("o", status(404))))

    assert archiver.run() == [TASK]
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert (archiver.item()["status"], archiver.states(), archiver.dead_letters()) == ("PENDING", ["PENDING"], [])


def test_polling_continues_after_a_poll_that_found_only_the_original(store: Store, providers: Providers) -> None:
    store.register(TASK)
    before = store.item(TASK)
    providers.answers = {FLUX_PATH: record_of("https://delivery.bfl.ai/o.png")}

    assert poll(TASK)["tasks"] == [TASK]
    noted = store.item(TASK)
    assert poll(TASK)["tasks"] == [TASK]

    assert before is not None
    assert noted is not None
    assert store.item(TASK) == noted
    assert [image["url"] for image in noted["images"]] == ["https://delivery.bfl.ai/o.png"]
    # The number of callbacks and `updatedAt`, which the hourly run sorts by, do not change.
    assert {name: noted.get(name) for name in before} == before
    assert "deliveries" not in noted

    providers.answers = {FLUX_PATH: record_of("https://delivery.bfl.ai/o.png", "https://delivery.bfl.ai/r.png")}
    assert poll(TASK)["tasks"] == []
    item = store.item(TASK)
    assert item is not None
    assert (item["status"], [image["kind"] for image in item["images"]]) == ("SUCCEEDED", ["origin", "result"])


def test_a_failure_replaces_the_original(store: Store, providers: Providers) -> None:
    store.reports.record(a_callback("https://tempfile.aiquickdraw.com/o.png"))
    providers.answers = {FLUX_PATH: lambda request: record(request, successFlag=3, errorCode=501)}

    assert poll(TASK)["tasks"] == []

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], "images" in item) == ("FAILED", False)


# ------------------------------------------------------------------------------------------------ no result at the end


def test_if_polling_ends_with_only_the_original_the_task_is_incomplete(
    archiver: Archiver, providers: Providers
) -> None:
    origin = archiver.serve("o", JPEG)
    archiver.store.reports.record(a_callback(origin))
    providers.answers = {FLUX_PATH: record_of(origin)}

    assert poll(TASK, wait_seconds=120, waited_seconds=21_480)["tasks"] == []
    assert (archiver.item()["status"], archiver.item()["reportedBy"]) == ("SUCCEEDED", "poll")

    assert archiver.run() == []
    assert (archiver.item()["status"], archiver.states()) == ("INCOMPLETE", ["ARCHIVED"])
    assert archiver.images() == {"images/flux-kontext/task12345/origin-0.jpg": JPEG}


def test_a_redrive_polls_a_task_with_only_its_original_again(
    archiver: Archiver, providers: Providers, store: Store
) -> None:
    origin = archiver.serve("o", JPEG)
    archiver.store.reports.record(a_callback(origin))
    archiver.run()
    providers.answers = {FLUX_PATH: record_of(origin)}
    poll(TASK, wait_seconds=120, waited_seconds=21_480)
    archiver.run()
    task = store.table.get(TASK)
    assert task is not None
    assert store.restarts.reopen(task, now=datetime.now(UTC))
    archiver.serve("o", status(403))

    providers.answers = {FLUX_PATH: record_of(origin, archiver.serve("r", PNG))}
    assert poll(TASK, wait_seconds=0)["tasks"] == []
    assert archiver.run() == []

    assert (archiver.item()["status"], archiver.states()) == ("ARCHIVED", ["ARCHIVED", "ARCHIVED"])


def test_a_task_whose_original_only_a_callback_reported_becomes_unconfirmed(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.store.reports.record(a_callback(archiver.serve("o", JPEG)))
    archiver.run()
    providers.answers = {FLUX_PATH: unreachable}

    assert poll(TASK, wait_seconds=120, waited_seconds=21_480)["tasks"] == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], item["deliveries"]) == ("UNCONFIRMED", "callback", 1)
    assert (item["failure"]["reason"], item["failure"]["lastAnswer"]) == ("UNCONFIRMED", "NO_ANSWER")
    assert item["images"][0]["quarantine"]["key"] == KEPT_AT
    assert archiver.objects() == {KEPT_AT: JPEG}


# ------------------------------------------------------------------------------------------------ Originals


@pytest.mark.parametrize(
    ("originals", "lifetime", "final_status"),
    [
        ("BestEffort", -5, "ARCHIVED"),  # the provider's record has the time of completion
        ("BestEffort", 10, "ARCHIVED"),  # the URL has expired early: the image is older than its report
        ("Required", -5, "INCOMPLETE"),
        ("Required", 10, "INCOMPLETE"),
    ],
)
def test_an_original_that_expired_before_its_report_is_needed_only_if_required(
    archiver: Archiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    originals: str,
    lifetime: int,
    final_status: str,
) -> None:
    set_originals(monkeypatch, originals)
    origin, result = archiver.serve("o", status(403)), archiver.serve("r", PNG)
    archiver.succeed((ORIGIN, origin, lifetime), (RESULT, result, 1440), reported_by=Reporter.POLL)

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert (archiver.item()["status"], archiver.states()) == (final_status, ["EXPIRED", "ARCHIVED"])
    (line,) = metric_lines(capsys)
    assert ("ImagesExpired" in line) is (originals == "Required")


def test_a_task_whose_original_expires_between_tries_is_incomplete(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, result = archiver.serve("o", status(503)), archiver.serve("r", PNG)
    archiver.succeed((ORIGIN, origin, 10), (RESULT, result, 1440), reported_by=Reporter.POLL)
    assert archiver.run() == [TASK]
    archiver.serve("o", status(403))
    later = datetime.now(UTC) + timedelta(minutes=11)
    monkeypatch.setattr(app.dependencies().archive, "_now", lambda: later)

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert (archiver.item()["status"], archiver.states()) == ("INCOMPLETE", ["EXPIRED", "ARCHIVED"])


def test_an_original_that_is_not_an_image_makes_the_task_incomplete(archiver: Archiver) -> None:
    archiver.succeed((ORIGIN, archiver.serve("o", b"<!DOCTYPE html>"), 10), archiver.serve("r", PNG))

    assert archiver.run() == []

    assert (archiver.item()["status"], archiver.states()) == ("INCOMPLETE", ["REJECTED", "ARCHIVED"])


def test_ignored_originals_are_neither_downloaded_nor_needed(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_originals(monkeypatch, "Ignored")
    origin, result = archiver.serve("o", JPEG), archiver.serve("r", PNG)
    archiver.store.reports.record(a_callback(origin))
    assert archiver.run() == []
    archiver.succeed((ORIGIN, origin, 10), (RESULT, result, 1440))

    assert archiver.run() == []

    assert (archiver.item()["status"], archiver.states()) == ("ARCHIVED", ["REJECTED", "ARCHIVED"])
    assert "the parameter Originals is Ignored" in archiver.item()["images"][0]["reason"]
    assert list(archiver.objects()) == ["images/flux-kontext/task12345/result-0.png"]
    assert archiver.server.requests == ["/r"]
    assert not any("ImagesRejected" in line for line in metric_lines(capsys))


@pytest.mark.parametrize("originals", ["Required", "BestEffort", "Ignored"])
def test_a_task_without_a_result_is_never_archived(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch, originals: str
) -> None:
    set_originals(monkeypatch, originals)
    archiver.succeed((ORIGIN, archiver.serve("o", JPEG), 10))

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert archiver.item()["status"] == "INCOMPLETE"


def test_an_item_without_a_report_needs_its_original(archiver: Archiver) -> None:
    """A user has written the item, so it has no time at which its URLs were reported."""
    url = archiver.serve("o", status(403))
    expires_at = "2026-01-01T00:00:00.000Z"
    images = [
        {"kind": kind, "url": address, "expiresAt": expires_at, "state": "PENDING"}
        for kind, address in (("origin", url), ("result", archiver.serve("r", PNG)))
    ]
    archiver.store.put(TASK, status="SUCCEEDED", rank=30, images=images)

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert archiver.item()["status"] == "INCOMPLETE"
