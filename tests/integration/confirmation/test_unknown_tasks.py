"""Callbacks of tasks that the provider does not find: polling ends after a few polls, unless they are registered."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from catchlight.archiving.archiver import MAX_UNKNOWN_IMAGES
from catchlight.errors import StoreUnavailableError
from catchlight.models import Image, ImageKind, Reporter, TaskReport, TaskStatus, iso, utc_now
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from catchlight.polling.poll_round import MAX_POLLS_OF_UNKNOWN_TASKS
from catchlight.tasks.by_status import Only, TasksByStatus
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.registration import Registry
from functions.dispatch_changes.app import FollowUp
from tests.image_server import status
from tests.integration.archiver import TASK, Archiver
from tests.integration.confirmation.conftest import Stream
from tests.integration.confirmation.reports import FORGED, INCONCLUSIVE, report_failure
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import a_secret
from tests.integration.providers import ACE_PATH, FLUX_PATH, Providers, json_response, poll, running

NOT_FOUND = json_response({"code": 422, "msg": "recordInfo is null", "data": None})
UNKNOWN_TASK_RESPONSES = {"not found": NOT_FOUND, "HTTP 404": json_response({"code": 404}, 404)}
LAST = MAX_POLLS_OF_UNKNOWN_TASKS - 1


def hint(store: Store, task: str = TASK, images: tuple[Image, ...] = ()) -> None:
    """Records a callback that reports a success without the URL of a result."""
    provider, _, task_id = task.partition("#")
    store.reports.record(
        TaskReport(
            provider=provider,
            task_id=task_id,
            status=TaskStatus.PENDING,
            reported_by=Reporter.CALLBACK,
            reported_at=datetime.now(UTC),
            is_hint=True,
            images=images,
        )
    )


def register(store: Store) -> None:
    Registry(store.table).register("flux-kontext", ["task12345"], now=utc_now())


# ------------------------------------------------------------------------------------------------ polls


@pytest.mark.parametrize("respond", UNKNOWN_TASK_RESPONSES.values(), ids=UNKNOWN_TASK_RESPONSES)
@pytest.mark.parametrize("report_by_callback", [report_failure, hint], ids=["failure", "hint"])
def test_polling_of_unknown_tasks_ends_after_a_few_polls(
    store: Store, providers: Providers, report_by_callback: Callable[[Store], None], respond: Any
) -> None:
    report_by_callback(store)
    providers.answers[FLUX_PATH] = respond

    state, polls = poll(TASK, wait_seconds=0), 1
    while state["tasks"]:
        state = poll(TASK, wait_seconds=state["waitSeconds"], waited_seconds=state["waitedSeconds"], polls=polls)
        polls += 1

    assert (polls, len(providers.requests)) == (MAX_POLLS_OF_UNKNOWN_TASKS,) * 2
    task = store.table.get(TASK)
    assert task is not None
    assert task.not_found_at
    assert not task.needs_polling
    assert task.status in (TaskStatus.FAILED, TaskStatus.TIMED_OUT)
    if task.status is TaskStatus.TIMED_OUT:
        assert task.failure
        assert "after 2 minutes of polling" in task.failure.message


@pytest.mark.parametrize("respond", [running, *INCONCLUSIVE.values()], ids=["running", *INCONCLUSIVE])
@pytest.mark.parametrize("report_by_callback", [report_failure, hint], ids=["failure", "hint"])
def test_other_responses_do_not_end_polling_early(
    store: Store, providers: Providers, report_by_callback: Callable[[Store], None], respond: Any
) -> None:
    report_by_callback(store)
    providers.answers[FLUX_PATH] = respond

    state = poll(TASK, polls=LAST + 10)

    item = store.item(TASK)
    assert item is not None
    assert "notFoundAt" not in item
    # A success without a readable URL ends polling immediately.
    assert state["tasks"] == [TASK] or item["failure"]["reason"] == "OTHER"


@pytest.mark.parametrize("report_by_callback", [report_failure, hint], ids=["failure", "hint"])
@pytest.mark.parametrize("is_first", [True, False], ids=["registered first", "callback first"])
def test_a_registered_task_is_polled_until_polling_gives_up(
    store: Store, providers: Providers, report_by_callback: Callable[[Store], None], is_first: bool
) -> None:
    for step in (register, report_by_callback) if is_first else (report_by_callback, register):
        step(store)
    providers.answers[FLUX_PATH] = NOT_FOUND

    assert poll(TASK, polls=LAST + 10)["tasks"] == [TASK]
    assert poll(TASK, wait_seconds=120, waited_seconds=21_480, polls=300)["tasks"] == []


def test_a_rejected_task_id_counts_as_unknown(store: Store, providers: Providers) -> None:
    task = "acedata#a1"
    report_failure(store, task=task)
    providers.answers[ACE_PATH] = json_response({"error": {"code": "bad_request", "message": "malformed id"}}, 400)

    assert poll(task, polls=LAST - 1)["tasks"] == [task]
    assert poll(task, polls=LAST)["tasks"] == []


def test_without_an_api_key_polling_of_a_hint_ends_after_a_few_polls(
    store: Store, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEYS_SECRET", a_secret("no-keys", "{}"))
    task = "acedata#a1"
    hint(store, task)

    assert poll(task, polls=LAST - 1)["tasks"] == [task]
    assert poll(task, polls=LAST)["tasks"] == []

    item = store.item(task)
    assert item is not None
    assert (item["status"], item["failure"]["lastAnswer"]) == ("TIMED_OUT", "REFUSED")
    assert providers.requests == []


def test_if_the_end_of_polling_cannot_be_written_the_next_poll_writes_it(
    store: Store, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_failure(store)
    providers.answers[FLUX_PATH] = NOT_FOUND

    def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("DynamoDB did not answer")

    with monkeypatch.context() as patches:
        patches.setattr(Confirmations, "note_not_found", fail)
        assert poll(TASK, polls=LAST)["tasks"] == [TASK]

    assert poll(TASK, polls=LAST + 1)["tasks"] == []
    assert store.item(TASK)["notFoundAt"]  # type: ignore[index]


# ------------------------------------------------------------------------------------------------ images


def report_success(archiver: Archiver, images: int, respond: Any = FORGED) -> None:
    archiver.succeed(*(archiver.serve(f"forged-{number}", respond) for number in range(images)))


@pytest.mark.parametrize("respond", UNKNOWN_TASK_RESPONSES.values(), ids=UNKNOWN_TASK_RESPONSES)
@pytest.mark.parametrize("image", [FORGED, status(500)], ids=["served", "unavailable"])
@pytest.mark.parametrize("was_polled", [False, True], ids=["never polled", "polled"])
def test_archiving_an_unknown_task_ends_with_the_last_try_and_one_execution_polls(
    archiver: Archiver, providers: Providers, stream: Stream, image: Any, respond: Any, was_polled: bool
) -> None:
    if was_polled:
        hint(archiver.store)
        (item,) = archiver.store.items()
        archiver.store.put(**item | {"pollingSince": item["updatedAt"]})
    report_success(archiver, 2, image)
    stream.new_follow_ups()
    providers.answers[FLUX_PATH] = respond

    for tries in range(1, MAX_ARCHIVE_TRIES):
        assert archiver.run(tries=tries) == [TASK]
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    item = archiver.item()
    assert (item["status"], "notFoundAt" in item) == ("UNCONFIRMED", was_polled)
    assert len(providers.requests) == MAX_ARCHIVE_TRIES
    # StartPolling reads the item, and starts an execution if there was none.
    assert stream.new_follow_ups() == [(TASK, FollowUp.POLL_NOW)]
    task = archiver.store.table.get(TASK)
    assert task is not None
    assert task.needs_polling is not was_polled


@pytest.mark.parametrize("is_registered", [False, True])
def test_the_original_of_an_unregistered_pending_task_is_tried_five_times(
    archiver: Archiver, is_registered: bool
) -> None:
    if is_registered:
        register(archiver.store)
    url = archiver.serve("original", status(500))
    original = Image(kind=ImageKind.ORIGIN, url=url, expires_at=utc_now() + timedelta(minutes=10))
    hint(archiver.store, images=(original,))

    for tries in range(1, MAX_ARCHIVE_TRIES):
        assert archiver.run(tries=tries) == [TASK]

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == ([TASK] if is_registered else [])


def test_only_the_first_images_of_an_unregistered_task_are_quarantined(
    archiver: Archiver, providers: Providers
) -> None:
    report_success(archiver, MAX_UNKNOWN_IMAGES + 3)
    providers.answers[FLUX_PATH] = NOT_FOUND

    for tries in range(1, MAX_ARCHIVE_TRIES + 1):
        archiver.run(tries=tries)

    assert len(archiver.objects()) == MAX_UNKNOWN_IMAGES
    assert archiver.item()["status"] == "UNCONFIRMED"


def test_all_images_of_a_registered_task_are_quarantined(archiver: Archiver, providers: Providers) -> None:
    register(archiver.store)
    report_success(archiver, MAX_UNKNOWN_IMAGES + 3)
    providers.answers[FLUX_PATH] = NOT_FOUND

    archiver.run()

    assert len(archiver.objects()) == MAX_UNKNOWN_IMAGES + 3


def test_a_task_is_confirmed_once_the_provider_returns_its_record(archiver: Archiver, providers: Providers) -> None:
    url = archiver.serve("real", FORGED)
    archiver.succeed(url)
    providers.answers[FLUX_PATH] = NOT_FOUND
    assert archiver.run() == [TASK]

    providers.answers[FLUX_PATH] = lambda request: httpx.Response(
        200,
        json={"code": 200, "data": {"taskId": "task12345", "successFlag": 1, "response": {"resultImageUrl": url}}},
    )
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    assert archiver.item()["status"] == "ARCHIVED"


# ------------------------------------------------------------------------------------------------ hourly run


def test_the_hourly_run_ignores_failures_of_unknown_unregistered_tasks(store: Store) -> None:
    now = iso(utc_now() - timedelta(hours=2))
    failed = {"status": "FAILED", "rank": 20, "reportedBy": "callback", "deliveries": 1, "updatedAt": now}
    store.put("flux-kontext#unknown", **failed, notFoundAt=now)
    store.put("flux-kontext#registered", **failed, notFoundAt=now, registeredAt=now)
    store.put("flux-kontext#polled", **failed)
    index = TasksByStatus(TABLE_NAME, store.client)

    found = {task.task for task in index.tasks(TaskStatus.FAILED, only=Only.UNCONFIRMED)}

    assert found == {"flux-kontext#registered", "flux-kontext#polled"}
    assert sum(page.tasks for page in index.count(TaskStatus.FAILED, only=Only.UNCONFIRMED)) == 2
