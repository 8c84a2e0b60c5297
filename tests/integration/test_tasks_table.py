"""Reports are written by one conditional write, and are applied, counted, or kept as evidence of a conflict."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError

from catchlight.aws.batches import MAX_KEYS_PER_GET
from catchlight.errors import StoreUnavailableError
from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    MAX_URL_LENGTH,
    Failure,
    FailureReason,
    Image,
    ImageKind,
    ImageState,
    Reporter,
    TaskReport,
    TaskStatus,
)
from catchlight.tasks.reports import MAX_CONFLICTS, Recorded, ReportOutcome
from catchlight.tasks.task import Task
from tests.integration.conftest import TABLE_NAME, Store

NOW = datetime(2026, 1, 6, 0, 17, 5, 120_000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
TASK = "flux-kontext#task12345"


def an_image(name: str = "a", kind: ImageKind = ImageKind.RESULT) -> Image:
    return Image(kind=kind, url=f"https://host.example/{name}.png?sig=1", expires_at=NOW + timedelta(days=14))


def a_report(
    status: TaskStatus,
    *,
    images: tuple[Image, ...] = (),
    reason: FailureReason | None = None,
    reporter: Reporter = Reporter.CALLBACK,
    at: datetime = NOW,
) -> TaskReport:
    return TaskReport(
        provider="flux-kontext",
        task_id="task12345",
        status=status,
        reported_by=reporter,
        reported_at=at,
        images=images,
        failure=Failure(reason=reason, code="400", message="words") if reason else None,
    )


def success(*images: Image, reporter: Reporter = Reporter.CALLBACK, at: datetime = NOW) -> TaskReport:
    return a_report(TaskStatus.SUCCEEDED, images=images or (an_image(),), reporter=reporter, at=at)


def failure(reason: FailureReason = FailureReason.CONTENT_POLICY, at: datetime = NOW) -> TaskReport:
    return a_report(TaskStatus.FAILED, reason=reason, at=at)


def given_up() -> TaskReport:
    return a_report(TaskStatus.TIMED_OUT, reason=FailureReason.NO_RESULT, reporter=Reporter.POLL)


def hint(at: datetime = NOW) -> TaskReport:
    return a_report(TaskStatus.PENDING, at=at).model_copy(update={"is_hint": True})


# ------------------------------------------------------------------------------------------------ hints


def test_a_hint_creates_a_pending_task(store: Store) -> None:
    assert store.reports.record(hint()) == Recorded(ReportOutcome.APPLIED, None)

    (item,) = store.items()
    assert (item["status"], item["rank"], item["deliveries"]) == ("PENDING", 0, 1)
    assert item["hintedAt"] == item["updatedAt"] == item["arrivedAt"] == "2026-01-06T00:17:05.120Z"
    assert "registeredAt" not in item


def test_a_hint_leaves_the_time_of_the_last_change_of_status(store: Store) -> None:
    """This time decides whether an execution already polls for the task."""
    store.put(TASK, status="PENDING", rank=0, updatedAt="2026-01-06T00:00:00.000Z")

    store.reports.record(hint())

    item = store.item(TASK)
    assert item is not None
    assert item["updatedAt"] == "2026-01-06T00:00:00.000Z"


def test_the_number_of_recorded_hints_of_a_task_is_limited(store: Store) -> None:
    outcomes = [store.reports.record(hint(NOW + timedelta(minutes=minute))).outcome for minute in range(20)]

    assert outcomes == [ReportOutcome.APPLIED] * 11 + [ReportOutcome.DUPLICATE] * 9


@pytest.mark.parametrize(("reporter", "is_registered"), [(Reporter.CALLBACK, False), (Reporter.POLL, True)])
def test_a_report_of_a_running_task_registers_it_only_if_it_comes_from_a_poll(
    store: Store, reporter: Reporter, is_registered: bool
) -> None:
    store.reports.record(a_report(TaskStatus.PENDING, reporter=reporter))

    item = store.item(TASK)
    assert item is not None
    assert ("registeredAt" in item) is is_registered


# ------------------------------------------------------------------------------------------------ full evidence


def fill_evidence(store: Store) -> None:
    for number in range(MAX_CONFLICTS):
        contradiction = a_report(TaskStatus.FAILED, reason=FailureReason.OTHER).model_copy(
            update={"failure": Failure(reason=FailureReason.OTHER, message=f"failure {number}")}
        )
        assert store.reports.record(contradiction).outcome is ReportOutcome.CONFLICT


@pytest.mark.parametrize("is_confirmed", [False, True], ids=["reported by a poll", "confirmed"])
def test_callbacks_of_a_task_with_full_evidence_do_not_replace_the_providers_own_answer(
    store: Store, is_confirmed: bool
) -> None:
    """Otherwise, each forged callback would replace the result and be corrected again, without end."""
    store.put(
        TASK,
        status="FAILED",
        rank=20,
        failure={"reason": "INTERNAL", "message": ""},
        **({"reportedBy": "callback", "confirmedAt": "2026-01-06T00:00:00.000Z"} if is_confirmed else {}),
        **({} if is_confirmed else {"reportedBy": "poll"}),
    )
    fill_evidence(store)
    before = store.item(TASK)

    assert store.reports.record(success()) == Recorded(ReportOutcome.CONFLICT, TaskStatus.FAILED)
    assert store.item(TASK) == before

    assert store.reports.record(success(reporter=Reporter.POLL)).outcome is ReportOutcome.APPLIED


def test_a_success_replaces_an_unconfirmed_failure_also_with_full_evidence(store: Store) -> None:
    """Without an API key, only a callback can report the success."""
    store.reports.record(failure())
    fill_evidence(store)

    assert store.reports.record(success()).outcome is ReportOutcome.APPLIED


@pytest.mark.parametrize("status", ["PENDING", "TIMED_OUT"])
def test_hints_of_a_task_without_a_result_are_recorded_once_a_minute(store: Store, status: str) -> None:
    store.put(TASK, status=status, rank=TaskStatus(status).rank)

    assert store.reports.record(hint()) == Recorded(ReportOutcome.APPLIED, None)
    for after, outcome in ((59, ReportOutcome.DUPLICATE), (60, ReportOutcome.APPLIED)):
        assert store.reports.record(hint(NOW + timedelta(seconds=after))).outcome is outcome

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["hintedAt"], item["deliveries"]) == (status, "2026-01-06T00:18:05.120Z", 2)


@pytest.mark.parametrize("status", ["FAILED", "SUCCEEDED", "INCOMPLETE", "ARCHIVED"])
def test_a_hint_does_not_change_a_task_with_a_result(store: Store, status: str) -> None:
    store.put(TASK, status=status, rank=TaskStatus(status).rank)
    before = store.items()

    assert store.reports.record(hint()) == Recorded(ReportOutcome.DUPLICATE, TaskStatus(status))
    assert store.items() == before


def test_repeated_callbacks_of_an_unconfirmed_task_are_recorded_once_a_minute(store: Store) -> None:
    image = an_image()
    images = [{"kind": "result", "url": image.url, "expiresAt": "2026-01-20T00:17:05.120Z", "state": "PENDING"}]
    store.put(TASK, status="UNCONFIRMED", rank=35, reportedBy="callback", deliveries=1, images=images)

    for after, deliveries, minute in ((0, 2, "17"), (59, 2, "17"), (60, 3, "18")):
        recorded = store.reports.record(success(image, at=NOW + timedelta(seconds=after)))
        assert recorded == Recorded(ReportOutcome.DUPLICATE, TaskStatus.UNCONFIRMED)
        item = store.item(TASK)
        assert item is not None
        assert (item["status"], item["deliveries"]) == ("UNCONFIRMED", deliveries)
        assert item["hintedAt"] == f"2026-01-06T00:{minute}:05.120Z"


# ------------------------------------------------------------------------------------------------ applied


def test_a_success_of_an_unregistered_task_creates_an_item(store: Store) -> None:
    recorded = store.reports.record(success(an_image("o", ImageKind.ORIGIN), an_image("r")))

    assert recorded == Recorded(ReportOutcome.APPLIED, None)
    assert store.items() == [
        {
            "task": TASK,
            "provider": "flux-kontext",
            "taskId": "task12345",
            "status": "SUCCEEDED",
            "rank": 30,
            "images": [
                {
                    "kind": "origin",
                    "url": "https://host.example/o.png?sig=1",
                    "expiresAt": "2026-01-20T00:17:05.120Z",
                    "state": "PENDING",
                },
                {
                    "kind": "result",
                    "url": "https://host.example/r.png?sig=1",
                    "expiresAt": "2026-01-20T00:17:05.120Z",
                    "state": "PENDING",
                },
            ],
            "feed": "tasks",
            "arrivedAt": "2026-01-06T00:17:05.120Z",
            "reportedBy": "callback",
            "reportedAt": "2026-01-06T00:17:05.120Z",
            "updatedAt": "2026-01-06T00:17:05.120Z",
            "deliveries": 1,
        }
    ]


def test_a_failure_is_stored_with_its_reason(store: Store) -> None:
    store.reports.record(failure())

    item = store.item(TASK)
    assert item is not None
    assert item["status"] == "FAILED"
    assert item["rank"] == 20
    assert item["failure"] == {"reason": "CONTENT_POLICY", "code": "400", "message": "words"}
    assert "images" not in item


def test_a_report_keeps_the_users_attributes_of_a_registered_task(store: Store) -> None:
    store.put(TASK, status="PENDING", rank=0, registeredAt="2026-01-06T00:16:00.000Z", customer="7", prompt="a cat")

    assert store.reports.record(success()) == Recorded(ReportOutcome.APPLIED, TaskStatus.PENDING)

    item = store.item(TASK)
    assert item is not None
    assert item["status"] == "SUCCEEDED"
    assert item["registeredAt"] == "2026-01-06T00:16:00.000Z"
    assert (item["customer"], item["prompt"]) == ("7", "a cat")


@pytest.mark.parametrize("attributes", [{"status": "PENDING"}, {}, {"note": "put by hand"}])
def test_an_item_without_a_rank_is_below_all_reports(store: Store, attributes: dict[str, Any]) -> None:
    store.put(TASK, **attributes)

    assert store.reports.record(failure()).outcome is ReportOutcome.APPLIED

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"]) == ("FAILED", 20)


def test_a_late_success_replaces_a_failure(store: Store) -> None:
    store.reports.record(failure())

    assert store.reports.record(success(at=LATER)) == Recorded(ReportOutcome.APPLIED, TaskStatus.FAILED)

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"], item["deliveries"]) == ("SUCCEEDED", 30, 2)
    assert "failure" not in item
    assert item["updatedAt"] == "2026-01-06T00:22:05.120Z"


@pytest.mark.parametrize("better", [failure(), success()])
def test_a_result_replaces_a_timeout(store: Store, better: TaskReport) -> None:
    store.reports.record(given_up())

    assert store.reports.record(better) == Recorded(ReportOutcome.APPLIED, TaskStatus.TIMED_OUT)

    item = store.item(TASK)
    assert item is not None
    assert item["status"] == better.status
    assert item["reportedBy"] == "callback"


def test_a_polls_report_is_not_counted_as_a_delivery(store: Store) -> None:
    store.reports.record(success(reporter=Reporter.POLL))

    item = store.item(TASK)
    assert item is not None
    assert item["reportedBy"] == "poll"
    assert "deliveries" not in item


def test_a_callback_about_a_running_task_creates_an_unregistered_task(store: Store) -> None:
    assert store.reports.record(a_report(TaskStatus.PENDING)).outcome is ReportOutcome.APPLIED
    assert store.reports.record(a_report(TaskStatus.PENDING, at=LATER)).outcome is ReportOutcome.DUPLICATE

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"], item["deliveries"]) == ("PENDING", 0, 1)
    assert item["arrivedAt"] == item["updatedAt"] == "2026-01-06T00:17:05.120Z"
    assert "registeredAt" not in item
    assert "reportedAt" not in item


# ------------------------------------------------------------------------------------------------ not applied


@pytest.mark.parametrize("reporter", Reporter)
def test_a_repeated_report_changes_nothing(store: Store, reporter: Reporter) -> None:
    store.reports.record(success())
    before = store.item(TASK)

    for _ in range(3):
        again = store.reports.record(success(reporter=reporter, at=LATER))
        assert again == Recorded(ReportOutcome.DUPLICATE, TaskStatus.SUCCEEDED)

    assert store.item(TASK) == before


def test_the_same_object_with_another_signature_is_a_duplicate(store: Store) -> None:
    store.reports.record(success())
    signed_again = an_image().model_copy(update={"url": "https://host.example/a.png?sig=2"})

    assert store.reports.record(success(signed_again)).outcome is ReportOutcome.DUPLICATE


@pytest.mark.parametrize("status", [TaskStatus.SUCCEEDED, TaskStatus.INCOMPLETE, TaskStatus.ARCHIVED])
def test_a_late_failure_does_not_replace_a_success(store: Store, status: TaskStatus) -> None:
    store.reports.record(success())
    finish(store, status)
    before = store.item(TASK)
    assert before is not None

    assert store.reports.record(failure(at=LATER)) == Recorded(ReportOutcome.CONFLICT, status)

    assert store.item(TASK) == before | {
        "deliveries": 2,
        "conflicts": [
            {
                "reportedBy": "callback",
                "reportedAt": "2026-01-06T00:22:05.120Z",
                "status": "FAILED",
                "urls": [],
                "failure": {"reason": "CONTENT_POLICY", "code": "400", "message": "words"},
            }
        ],
    }


def finish(store: Store, status: TaskStatus) -> None:
    task = store.table.get(TASK)
    assert task is not None
    if status is not TaskStatus.SUCCEEDED:
        state = ImageState.ARCHIVED if status is TaskStatus.ARCHIVED else ImageState.REJECTED
        settled = {index: image.model_copy(update={"state": state}) for index, image in enumerate(task.images)}
        assert store.images.save(task, settled, now=NOW).status is status


def test_different_images_of_a_task_with_images_are_kept_as_evidence(store: Store) -> None:
    store.reports.record(success())

    assert store.reports.record(success(an_image("b"))).outcome is ReportOutcome.CONFLICT

    item = store.item(TASK)
    assert item is not None
    assert [image["url"] for image in item["images"]] == ["https://host.example/a.png?sig=1"]
    assert [conflict["urls"] for conflict in item["conflicts"]] == [["https://host.example/b.png?sig=1"]]


def test_timeouts_and_reports_of_running_tasks_are_not_kept_as_evidence(store: Store) -> None:
    store.reports.record(success())
    before = store.item(TASK)

    assert store.reports.record(given_up()).outcome is ReportOutcome.DUPLICATE
    assert store.reports.record(a_report(TaskStatus.PENDING, reporter=Reporter.POLL)).outcome is ReportOutcome.DUPLICATE

    assert store.item(TASK) == before


def test_evidence_is_kept_once(store: Store) -> None:
    store.reports.record(success())

    for minute in range(5):
        report = failure(at=NOW + timedelta(minutes=minute))
        assert store.reports.record(report).outcome is ReportOutcome.CONFLICT

    item = store.item(TASK)
    assert item is not None
    assert len(item["conflicts"]) == 1
    assert item["deliveries"] == 2


def test_evidence_is_bounded(store: Store) -> None:
    store.reports.record(success())

    for number in range(MAX_CONFLICTS + 5):
        assert store.reports.record(success(an_image(f"forged-{number}"))).outcome is ReportOutcome.CONFLICT

    item = store.item(TASK)
    assert item is not None
    assert [conflict["urls"] for conflict in item["conflicts"]] == [
        [f"https://host.example/forged-{number}.png?sig=1"] for number in range(MAX_CONFLICTS)
    ]
    assert item["deliveries"] == 1 + MAX_CONFLICTS


def test_evidence_of_concurrent_reports_is_bounded(store: Store) -> None:
    store.reports.record(success())

    with ThreadPoolExecutor(16) as pool:
        reports = [success(an_image(f"forged-{number}")) for number in range(64)]
        assert {recorded.outcome for recorded in pool.map(store.reports.record, reports)} == {ReportOutcome.CONFLICT}

    item = store.item(TASK)
    assert item is not None
    assert len(item["conflicts"]) == MAX_CONFLICTS
    assert item["deliveries"] == 1 + MAX_CONFLICTS


def test_forged_callbacks_cannot_fill_an_item(store: Store) -> None:
    """At 400 KB, DynamoDB would refuse every further write, of reports and of archived images."""
    store.reports.record(success())

    for number in range(MAX_CONFLICTS + 1):
        long_urls = [an_image("x" * (MAX_URL_LENGTH - 40) + f"-{number}-{n}") for n in range(MAX_IMAGES_PER_TASK)]
        store.reports.record(success(*long_urls))

    assert len(json.dumps(store.item(TASK), default=str)) < 100_000


@pytest.mark.parametrize(
    "attributes", [{"status": "NEW", "rank": 30}, {"status": "SUCCEEDED", "rank": 30, "images": "?"}]
)
def test_a_report_about_a_malformed_item_is_an_error(store: Store, attributes: dict[str, Any]) -> None:
    """Such an item cannot be compared: the answer is 503, and the provider sends the report again after the repair."""
    store.put(TASK, **attributes)
    before = store.item(TASK)
    wrong = "images" if "images" in attributes else "status"

    with pytest.raises(StoreUnavailableError, match=rf"malformed, repair it by hand: {wrong}$"):
        store.reports.record(failure())

    assert store.item(TASK) == before


# ------------------------------------------------------------------------------------------------ races


def test_one_of_many_concurrent_equal_reports_is_applied(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        outcomes = [recorded.outcome for recorded in pool.map(store.reports.record, [success()] * 64)]

    assert sorted(outcomes) == [ReportOutcome.APPLIED, *[ReportOutcome.DUPLICATE] * 63]
    (item,) = store.items()
    assert item["deliveries"] == 1


# ------------------------------------------------------------------------------------------------ reading


def test_a_missing_task_is_read_as_none(store: Store) -> None:
    assert store.table.get(TASK) is None
    assert store.table.get_many([TASK]) == {}
    assert store.table.get_many([]) == {}


def test_a_task_reads_as_it_was_written(store: Store) -> None:
    store.reports.record(success(an_image("o", ImageKind.ORIGIN), an_image("r")))

    task = store.table.get(TASK)

    assert task is not None
    assert task.images == (an_image("o", ImageKind.ORIGIN), an_image("r"))
    assert (task.status, task.rank, task.deliveries) == (TaskStatus.SUCCEEDED, 30, 1)
    assert store.table.get_many([TASK]) == {TASK: task}


def test_more_tasks_can_be_read_than_one_call_accepts(store: Store) -> None:
    tasks = [f"flux-kontext#{number}" for number in range(MAX_KEYS_PER_GET + 30)]
    store.register(*tasks)

    found = store.table.get_many([*tasks, "flux-kontext#missing", *tasks])

    assert found.keys() == set(tasks)


def test_unprocessed_keys_are_requested_again(store: Store) -> None:
    tasks = [f"flux-kontext#{number}" for number in range(7)]
    store.register(*tasks)

    def at_most_three(parsed: dict[str, Any], **_: Any) -> None:
        found = parsed["Responses"][TABLE_NAME]
        left = [{"task": item["task"]} for item in found[3:]]
        parsed["Responses"][TABLE_NAME] = found[:3]
        parsed["UnprocessedKeys"] = {TABLE_NAME: {"Keys": left}} if left else {}

    store.client.meta.events.register("after-call.dynamodb.BatchGetItem", at_most_three)

    assert store.table.get_many(tasks).keys() == set(tasks)


def test_a_malformed_item_does_not_prevent_reading_the_others(store: Store) -> None:
    store.put("flux-kontext#malformed", status="NEW")
    store.register("flux-kontext#1")

    assert store.table.get_many(["flux-kontext#malformed", "flux-kontext#1"]).keys() == {"flux-kontext#1"}


# ------------------------------------------------------------------------------------------------ images


def two_images(store: Store) -> Task:
    store.reports.record(success(an_image("o", ImageKind.ORIGIN), an_image("r")))
    task = store.table.get(TASK)
    assert task is not None
    return task


def archived(image: Image) -> Image:
    return image.model_copy(
        update={
            "state": ImageState.ARCHIVED,
            "bucket": "images",
            "key": "images/x.png",
            "bytes": 7,
            "sha256": "00",
            "content_type": "image/png",
            "width": 8,
            "height": 6,
            "archived_at": LATER,
        }
    )


def test_a_task_is_archived_when_all_its_images_are(store: Store) -> None:
    task = two_images(store)

    after = store.images.save(task, dict(enumerate(map(archived, task.images))), now=LATER)

    assert after.status is TaskStatus.ARCHIVED
    assert after.images == tuple(map(archived, task.images))
    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"]) == ("ARCHIVED", 50)
    assert item["archivedAt"] == item["updatedAt"] == "2026-01-06T00:22:05.120Z"
    assert item["images"][1] == {
        "kind": "result",
        "url": "https://host.example/r.png?sig=1",
        "expiresAt": "2026-01-20T00:17:05.120Z",
        "state": "ARCHIVED",
        "bucket": "images",
        "key": "images/x.png",
        "bytes": 7,
        "sha256": "00",
        "contentType": "image/png",
        "width": 8,
        "height": 6,
        "archivedAt": "2026-01-06T00:22:05.120Z",
    }


def test_images_are_saved_one_after_the_other(store: Store) -> None:
    task = two_images(store)

    assert store.images.save(task, {1: archived(task.images[1])}, now=LATER).status is TaskStatus.SUCCEEDED
    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"]) == ("SUCCEEDED", 30)
    assert [image["state"] for image in item["images"]] == ["PENDING", "ARCHIVED"]
    assert "archivedAt" not in item

    halfway = store.table.get(TASK)
    assert halfway is not None
    assert store.images.save(halfway, {0: archived(task.images[0])}, now=LATER).status is TaskStatus.ARCHIVED


@pytest.mark.parametrize("state", [ImageState.EXPIRED, ImageState.REJECTED])
def test_a_task_with_a_missing_image_is_incomplete(store: Store, state: ImageState) -> None:
    task = two_images(store)
    lost = task.images[0].model_copy(update={"state": state, "reason": "the URL has expired"})

    after = store.images.save(task, {0: lost, 1: archived(task.images[1])}, now=LATER)

    assert after.status is TaskStatus.INCOMPLETE
    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"]) == ("INCOMPLETE", 40)
    assert item["images"][0]["reason"] == "the URL has expired"


def test_a_run_that_read_an_outdated_item_does_not_lower_the_status(store: Store) -> None:
    task = two_images(store)
    lost = {index: image.model_copy(update={"state": ImageState.EXPIRED}) for index, image in enumerate(task.images)}
    store.images.save(task, dict(enumerate(map(archived, task.images))), now=LATER)
    before = store.item(TASK)

    # This run read the task before the write of the other run.
    store.images.save(task, lost, now=LATER)

    assert store.item(TASK) == before


def test_the_different_images_that_two_runs_settled_are_both_stored(store: Store) -> None:
    task = two_images(store)

    store.images.save(task, {0: archived(task.images[0])}, now=LATER)
    store.images.save(task, {1: archived(task.images[1])}, now=LATER)

    item = store.item(TASK)
    assert item is not None
    assert [image["state"] for image in item["images"]] == ["ARCHIVED", "ARCHIVED"]


def lost(image: Image) -> Image:
    return image.model_copy(update={"state": ImageState.EXPIRED, "reason": "the URL has expired"})


def states(store: Store) -> tuple[str, list[str]]:
    item = store.item(TASK)
    assert item is not None
    return item["status"], [image["state"] for image in item["images"]]


def test_an_image_that_another_run_has_archived_does_not_become_expired(store: Store) -> None:
    task = two_images(store)
    store.images.save(task, {0: archived(task.images[0])}, now=LATER)

    # This run read the task before the write of the other run, and downloaded after the URL had expired.
    store.images.save(task, {0: lost(task.images[0]), 1: archived(task.images[1])}, now=LATER)

    assert states(store) == ("SUCCEEDED", ["ARCHIVED", "PENDING"])


def test_an_image_that_was_renewed_in_the_meantime_is_not_settled_by_its_old_url(store: Store) -> None:
    task = two_images(store)
    fresh = task.images[0].model_copy(update={"url": "https://host.example/o.png?sig=2"})
    assert store.images.replace(task, {0: fresh}, now=LATER)

    store.images.save(task, {0: lost(task.images[0]), 1: archived(task.images[1])}, now=LATER)

    assert states(store) == ("SUCCEEDED", ["PENDING", "PENDING"])


def test_a_final_status_is_not_written_if_another_image_was_renewed(store: Store) -> None:
    task = two_images(store)
    store.images.save(task, {1: archived(task.images[1])}, now=LATER)
    halfway = store.table.get(TASK)
    assert halfway is not None
    renewed = task.images[1].model_copy(update={"url": "https://host.example/r.png?sig=2"})
    assert store.images.replace(halfway, {1: renewed}, now=NOW)

    store.images.save(halfway, {0: archived(task.images[0])}, now=LATER)

    assert states(store) == ("SUCCEEDED", ["PENDING", "PENDING"])


def test_a_result_that_another_run_has_confirmed_is_not_corrected(store: Store) -> None:
    """Some providers sign the URLs of each response again: a different signature is not a contradiction."""
    unconfirmed = two_images(store)
    confirmed = unconfirmed.model_copy(update={"confirmed_at": "2026-01-06T00:18:00.000Z"})
    store.images.save(confirmed, {1: archived(unconfirmed.images[1])}, now=LATER)
    signed_again = an_image("o", ImageKind.ORIGIN).model_copy(update={"url": "https://host.example/o.png?sig=2"})

    assert not store.confirmations.correct(
        unconfirmed, success(signed_again, an_image("r"), reporter=Reporter.POLL, at=LATER)
    )

    assert states(store) == ("SUCCEEDED", ["PENDING", "ARCHIVED"])


# ------------------------------------------------------------------------------------------------ renewed URLs


def test_a_renewed_url_moves_an_incomplete_task_back_to_succeeded(store: Store) -> None:
    task = two_images(store)
    lost = task.images[0].model_copy(update={"state": ImageState.EXPIRED, "reason": "the URL has expired"})
    store.images.save(task, {0: lost, 1: archived(task.images[1])}, now=LATER)
    incomplete = store.table.get(TASK)
    assert incomplete is not None
    fresh = task.images[0].model_copy(update={"url": "https://host.example/o.png?sig=2"})

    assert store.images.replace(incomplete, {0: fresh}, now=NOW)

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"], "archivedAt" in item) == ("SUCCEEDED", 30, False)
    assert [image["state"] for image in item["images"]] == ["PENDING", "ARCHIVED"]
    assert item["images"][0]["url"].endswith("sig=2")
    assert "reason" not in item["images"][0]
    assert store.table.get(TASK) == incomplete.with_images({0: fresh}, now=NOW)


def test_a_task_that_has_changed_meanwhile_is_not_renewed(store: Store) -> None:
    task = two_images(store)
    store.images.save(task, dict(enumerate(map(archived, task.images))), now=LATER)
    before = store.item(TASK)

    assert not store.images.replace(task, {0: task.images[0]}, now=NOW)

    assert store.item(TASK) == before


# ------------------------------------------------------------------------------------------------ retention


def test_only_finished_tasks_have_a_time_of_deletion(store: Store) -> None:
    kept = Store(store.client, retention=timedelta(days=30))

    def end() -> Any:
        return (store.item(TASK) or {}).get("deleteAfter")

    kept.reports.record(failure())
    assert end() == int((NOW + timedelta(days=30)).timestamp())

    # The success has replaced the failure: the task is not finished until it is archived.
    kept.reports.record(success())
    assert end() is None

    task = kept.table.get(TASK)
    assert task is not None
    kept.images.save(task, {0: archived(task.images[0])}, now=LATER)
    assert end() == int((LATER + timedelta(days=30)).timestamp())

    finished = kept.table.get(TASK)
    assert finished is not None
    kept.images.replace(finished, {0: task.images[0]}, now=LATER)
    assert end() is None


def test_without_a_retention_tasks_have_no_time_of_deletion(store: Store) -> None:
    store.reports.record(failure())

    assert "deleteAfter" not in (store.item(TASK) or {})


# ------------------------------------------------------------------------------------------------ faults

CALLS: list[Callable[[Store], object]] = [
    lambda store: store.reports.record(success()),
    lambda store: store.table.get(TASK),
    lambda store: store.table.get_many([TASK]),
    lambda store: store.images.save(
        Task(task=TASK, status=TaskStatus.SUCCEEDED, rank=30, images=(an_image(),)), {0: archived(an_image())}, now=NOW
    ),
]
FAULTS: list[Exception] = [
    ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "UpdateItem"),
    ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem"),
    ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "UpdateItem"),
    ClientError({"Error": {"Code": "AccessDeniedException"}}, "UpdateItem"),
    EndpointConnectionError(endpoint_url="https://dynamodb.example"),
    ConnectTimeoutError(endpoint_url="https://dynamodb.example"),
]


@contextmanager
def failing(store: Store, fault: Exception) -> Iterator[None]:
    def fail(**_: Any) -> None:
        raise fault

    store.client.meta.events.register("before-call.dynamodb", fail)
    try:
        yield
    finally:
        store.client.meta.events.unregister("before-call.dynamodb", fail)


@pytest.mark.parametrize("call", CALLS, ids=["record", "get", "get_many", "save_images"])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_error_of_dynamodb_is_a_store_unavailable_error(
    store: Store, call: Callable[[Store], object], fault: Exception
) -> None:
    with failing(store, fault), pytest.raises(StoreUnavailableError):
        call(store)

    assert store.items() == []


def test_a_report_whose_evidence_could_not_be_written_can_be_recorded_again(store: Store) -> None:
    store.reports.record(success())
    before = store.item(TASK)
    calls = 0

    def fail_second(**_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem")

    store.client.meta.events.register("before-call.dynamodb.UpdateItem", fail_second)

    with pytest.raises(StoreUnavailableError):
        store.reports.record(failure())
    assert calls == 2
    assert store.item(TASK) == before

    assert store.reports.record(failure()).outcome is ReportOutcome.CONFLICT
    assert len((store.item(TASK) or {})["conflicts"]) == 1


# ------------------------------------------------------------------------------------------------ calls


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Yields the list of DynamoDB operations that are called in the block."""
    calls: list[str] = []

    def count(model: Any, **_: Any) -> None:
        calls.append(model.name)

    store.client.meta.events.register("before-call.dynamodb", count)
    try:
        yield calls
    finally:
        store.client.meta.events.unregister("before-call.dynamodb", count)


def evidence(number: int) -> TaskReport:
    return success(an_image(f"other-{number}"))


# Earlier reports, the report, and the number of calls that it costs. Callbacks and polls cost the same.
COSTS: dict[str, tuple[tuple[TaskReport, ...], TaskReport, int]] = {
    "a success of a new task": ((), success(), 1),
    "a failure": ((), failure(), 1),
    "a success of a pending task": ((a_report(TaskStatus.PENDING),), success(), 1),
    "a success after a timeout": ((given_up(),), success(), 1),
    "a repeated success": ((success(),), success(at=LATER), 1),
    "a repeated failure": ((failure(),), failure(at=LATER), 1),
    "a late report of a running task": ((success(),), a_report(TaskStatus.PENDING), 1),
    "a late timeout": ((success(),), given_up(), 1),
    "a late failure: evidence": ((success(),), failure(), 2),
    "other images: evidence": ((success(),), evidence(1), 2),
    "the same evidence again": ((success(), failure()), failure(at=LATER), 1),
    "new evidence when the maximum is stored": (
        (success(), *(evidence(number) for number in range(MAX_CONFLICTS))),
        evidence(MAX_CONFLICTS),
        1,
    ),
    "a success that replaces a failure: evidence": ((failure(),), success(at=LATER), 2),
}


@pytest.mark.parametrize("reporter", Reporter)
@pytest.mark.parametrize("case", COSTS)
def test_a_report_costs_one_call_and_new_evidence_a_second_one(store: Store, case: str, reporter: Reporter) -> None:
    before, report, expected = COSTS[case]
    for earlier in before:
        store.reports.record(earlier.model_copy(update={"reported_by": reporter}))

    with counted(store) as calls:
        store.reports.record(report.model_copy(update={"reported_by": reporter}))

    assert calls == ["UpdateItem"] * expected


# ------------------------------------------------------------------------------------------------ the index


def test_tasks_are_found_by_status_newest_first(store: Store) -> None:
    store.reports.record(success())
    for number in range(3):
        report = failure(at=NOW + timedelta(minutes=number)).model_copy(update={"task_id": f"failed-{number}"})
        store.reports.record(report)

    answer = store.client.query(
        TableName=TABLE_NAME,
        IndexName="byStatus",
        KeyConditionExpression="#status = :status",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":status": {"S": "FAILED"}},
        ScanIndexForward=False,
    )

    assert [item["taskId"]["S"] for item in answer["Items"]] == ["failed-2", "failed-1", "failed-0"]
