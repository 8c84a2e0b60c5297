"""Complete items of the tasks table, attribute by attribute: other programs rely on their names and formats."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchlight.api.idempotency import IdempotencyRecord, IdempotencyStore
from catchlight.models import (
    Failure,
    FailureReason,
    GenerationRequest,
    Image,
    ImageKind,
    ImageState,
    ProviderRecord,
    Reporter,
    TaskReport,
    TaskStatus,
)
from catchlight.tasks.registration import Registry, new_task
from catchlight.tasks.task import Task
from tests.integration.conftest import TABLE_NAME, Store

TASK = "acedata#t1"
NOW = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)
TIMES = [f"2026-01-31T12:0{minute}:00.123Z" for minute in range(6)]
EXPIRES_AT = "2026-02-01T12:00:00.123Z"
REQUEST = GenerationRequest(prompt="a lion", model="m", size="16:9", seeds=(7, 8))
STORED_REQUEST = {"prompt": "a lion", "model": "m", "size": "16:9", "seeds": [7, 8]}
RETENTION = timedelta(days=90)


def at(minute: int) -> datetime:
    return NOW + timedelta(minutes=minute)


def delete_after(minute: int) -> int:
    return int((at(minute) + RETENTION).timestamp())


def image(name: str, kind: ImageKind = ImageKind.RESULT) -> Image:
    return Image(kind=kind, url=f"https://h.example/{name}", expires_at=NOW + timedelta(days=1))


def stored_image(name: str, kind: str = "result", **more: Any) -> dict[str, Any]:
    url = f"https://h.example/{name}"
    return {"kind": kind, "url": url, "expiresAt": EXPIRES_AT, "state": "PENDING", **more}


def report(status: TaskStatus, *images: Image, by: Reporter, minute: int, failure: Failure | None = None) -> TaskReport:
    return TaskReport(
        provider="acedata",
        task_id="t1",
        status=status,
        reported_by=by,
        reported_at=at(minute),
        images=images,
        failure=failure,
        request=REQUEST if by is Reporter.POLL else None,
    )


@pytest.fixture
def retaining(store: Store) -> Store:
    """The same table, with a retention of finished tasks."""
    return Store(store.client, retention=RETENTION)


def read(retaining: Store) -> Task:
    task = retaining.table.get(TASK)
    assert task is not None
    return task


REGISTERED = {
    "task": TASK,
    "provider": "acedata",
    "taskId": "t1",
    "status": "PENDING",
    "rank": 0,
    "registeredAt": TIMES[0],
    "updatedAt": TIMES[0],
    "feed": "tasks",
    "arrivedAt": TIMES[0],
}


def test_the_item_of_a_registered_task(store: Store) -> None:
    assert Registry(store.table).register("acedata", ["t1"], now=NOW) == [True]

    assert store.items() == [REGISTERED]


def test_the_items_of_a_submission_and_its_task(store: Store) -> None:
    records = IdempotencyStore(TABLE_NAME, store.client, retention=RETENTION)
    record = IdempotencyRecord(key="order-1", provider="acedata", fingerprint="f", attempt="a", asked_at=TIMES[0])
    records.reserve(record)
    reserved = {
        "task": "#submission#order-1",
        "key": "order-1",
        "provider": "acedata",
        "fingerprint": "f",
        "attempt": "a",
        "askedAt": TIMES[0],
        "state": "IN_PROGRESS",
        "deleteAfter": delete_after(0),
    }
    assert store.items() == [reserved]

    records.record_unknown_outcome(record, "no answer came")
    assert store.items() == [reserved | {"state": "UNKNOWN_OUTCOME", "reason": "no answer came"}]

    records.complete(record, "t1", new_task("acedata", "t1", now=NOW, request=REQUEST, idempotency_key="order-1"))
    assert store.item("#submission#order-1") == reserved | {"state": "COMPLETED", "taskId": "t1"}
    assert store.item(TASK) == REGISTERED | {"request": STORED_REQUEST, "idempotencyKey": "order-1"}


def test_the_item_of_a_released_idempotency_key(store: Store) -> None:
    records = IdempotencyStore(TABLE_NAME, store.client)
    record = IdempotencyRecord(key="order-1", provider="acedata", fingerprint="f", attempt="a", asked_at=TIMES[0])
    records.reserve(record)

    assert records.release(record) is True

    item = store.item("#submission#order-1")
    assert item is not None
    assert item["state"] == "RELEASED"
    assert "deleteAfter" not in item


def test_the_item_of_a_task_at_each_step_of_archiving(store: Store, retaining: Store) -> None:
    Registry(store.table).register("acedata", ["t1"], now=NOW)
    retaining.reports.record(
        report(TaskStatus.SUCCEEDED, image("o", ImageKind.ORIGIN), image("r"), by=Reporter.POLL, minute=1)
    )
    succeeded = REGISTERED | {
        "status": "SUCCEEDED",
        "rank": 30,
        "images": [stored_image("o", "origin"), stored_image("r")],
        "request": STORED_REQUEST,
        "reportedBy": "poll",
        "reportedAt": TIMES[1],
        "updatedAt": TIMES[1],
    }
    assert store.item(TASK) == succeeded

    archived = image("o", ImageKind.ORIGIN).model_copy(
        update={
            "state": ImageState.ARCHIVED,
            "bucket": "images-bucket",
            "key": "images/acedata/t1/origin-0.png",
            "bytes": 123,
            "sha256": "ab" * 32,
            "content_type": "image/png",
            "width": 8,
            "height": 6,
            "archived_at": at(2),
        }
    )
    stored_archived = stored_image(
        "o",
        "origin",
        state="ARCHIVED",
        bucket="images-bucket",
        key="images/acedata/t1/origin-0.png",
        bytes=123,
        sha256="ab" * 32,
        contentType="image/png",
        width=8,
        height=6,
        archivedAt=TIMES[2],
    )
    retaining.images.save(read(retaining), {0: archived}, now=at(2))
    one_archived = succeeded | {"images": [stored_archived, stored_image("r")], "updatedAt": TIMES[2]}
    assert store.item(TASK) == one_archived

    refused = image("r").model_copy(update={"state": ImageState.REJECTED, "reason": "it is no image"})
    retaining.images.save(read(retaining), {1: refused}, now=at(3))
    assert store.item(TASK) == one_archived | {
        "status": "INCOMPLETE",
        "rank": 40,
        "images": [stored_archived, stored_image("r", state="REJECTED", reason="it is no image")],
        "updatedAt": TIMES[3],
        "archivedAt": TIMES[3],
        "deleteAfter": delete_after(3),
    }

    retaining.images.replace(read(retaining), {1: image("r2")}, now=at(4))
    assert store.item(TASK) == one_archived | {
        "images": [stored_archived, stored_image("r2")],
        "updatedAt": TIMES[4],
    }


def test_a_run_that_confirmed_a_task_archives_it_although_another_run_gave_up(store: Store) -> None:
    store.reports.record(report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.CALLBACK, minute=0))
    as_read = read(store)
    checked = store.confirmations.settle(as_read, report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.POLL, minute=1))
    assert checked is not None
    failure = Failure(reason=FailureReason.UNCONFIRMED, message="words")
    assert store.confirmations.mark_unconfirmed(as_read, failure, now=at(1)) is not None

    archived = image("r").model_copy(update={"state": ImageState.ARCHIVED})
    store.images.save(checked.task, {0: archived}, now=at(2))

    item = store.item(TASK)
    assert item is not None
    assert item["status"] == "ARCHIVED"
    assert "failure" not in item


def test_the_item_of_a_failure_that_a_success_replaces(store: Store, retaining: Store) -> None:
    failure = Failure(reason=FailureReason.CONTENT_POLICY, code="400", message="words")
    retaining.reports.record(report(TaskStatus.FAILED, by=Reporter.CALLBACK, minute=0, failure=failure))
    known = {key: value for key, value in REGISTERED.items() if key != "registeredAt"}
    failed = known | {
        "status": "FAILED",
        "rank": 20,
        "failure": {"reason": "CONTENT_POLICY", "code": "400", "message": "words"},
        "reportedBy": "callback",
        "reportedAt": TIMES[0],
        "deliveries": 1,
        "deleteAfter": delete_after(0),
    }
    assert store.item(TASK) == failed

    retaining.confirmations.confirm(
        read(retaining), report(TaskStatus.FAILED, by=Reporter.POLL, minute=1, failure=failure)
    )
    confirmed = failed | {"confirmedAt": TIMES[1], "updatedAt": TIMES[1], "request": STORED_REQUEST}
    assert store.item(TASK) == confirmed

    other = Failure(reason=FailureReason.INTERNAL)
    retaining.reports.record(report(TaskStatus.FAILED, by=Reporter.CALLBACK, minute=2, failure=other))
    evidence = {
        "reportedBy": "callback",
        "reportedAt": TIMES[2],
        "status": "FAILED",
        "urls": [],
        "failure": {"reason": "INTERNAL", "message": ""},
    }
    assert store.item(TASK) == confirmed | {"deliveries": 2, "conflicts": [evidence]}

    retaining.reports.record(report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.CALLBACK, minute=3))
    replaced_failure = {
        "reportedBy": "callback",
        "reportedAt": TIMES[0],
        "status": "FAILED",
        "urls": [],
        "failure": {"reason": "CONTENT_POLICY", "code": "400", "message": "words"},
    }
    succeeded = {key: value for key, value in confirmed.items() if key not in ("failure", "confirmedAt", "deleteAfter")}
    assert store.item(TASK) == succeeded | {
        "status": "SUCCEEDED",
        "rank": 30,
        "images": [stored_image("r")],
        "reportedAt": TIMES[3],
        "updatedAt": TIMES[3],
        "deliveries": 3,
        "conflicts": [evidence, replaced_failure],
    }


def test_the_providers_record_is_completed_by_the_answer_that_confirms_a_callback(store: Store) -> None:
    called_back = ProviderRecord(trace_id="trace", timings="[1]")
    success = report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.CALLBACK, minute=0)
    store.reports.record(success.model_copy(update={"provider_record": called_back}))
    item = store.item(TASK)
    assert item is not None
    assert item["providerRecord"] == {"traceId": "trace", "timings": "[1]"}

    record = ProviderRecord(created_at=TIMES[0], trace_id="trace-2", parameters="{}")
    answer = report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.POLL, minute=1)
    answer = answer.model_copy(update={"provider_record": record})
    checked = store.confirmations.settle(read(store), answer)
    assert checked is not None
    archived = image("r").model_copy(update={"state": ImageState.ARCHIVED})
    store.images.save(checked.task, {0: archived}, now=at(2), known_request=checked.known_request)

    item = store.item(TASK)
    assert item is not None
    assert item["status"] == "ARCHIVED"
    together = {"createdAt": TIMES[0], "traceId": "trace-2", "timings": "[1]", "parameters": "{}"}
    assert item["providerRecord"] == together


def test_the_providers_record_of_a_contradicted_callback_is_removed(store: Store) -> None:
    success = report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.CALLBACK, minute=0)
    store.reports.record(success.model_copy(update={"provider_record": ProviderRecord(trace_id="forged")}))
    store.confirmations.correct(read(store), report(TaskStatus.PENDING, by=Reporter.POLL, minute=1))

    item = store.item(TASK)
    assert item is not None
    assert "providerRecord" not in item


def test_a_provider_record_attribute_that_is_text_does_not_make_the_item_unreadable(store: Store) -> None:
    store.put(TASK, status="PENDING", rank=0, providerRecord="a note of the user")
    assert read(store).provider_record is None


def test_the_item_of_a_success_that_the_provider_reports_as_running(store: Store, retaining: Store) -> None:
    retaining.reports.record(report(TaskStatus.SUCCEEDED, *map(image, "abcde"), by=Reporter.CALLBACK, minute=0))
    retaining.confirmations.correct(read(retaining), report(TaskStatus.PENDING, by=Reporter.POLL, minute=1))

    item = store.item(TASK)
    assert item is not None
    assert item == {
        **REGISTERED,
        # The provider's response that the task is running registers the task.
        "registeredAt": TIMES[1],
        "updatedAt": TIMES[1],
        "deliveries": 1,
        "request": STORED_REQUEST,
        "conflicts": [
            {
                "reportedBy": "callback",
                "reportedAt": TIMES[0],
                "status": "SUCCEEDED",
                "urls": [f"https://h.example/{name}" for name in "abcd"],
            }
        ],
    }


def test_the_item_of_a_reopened_task(store: Store, retaining: Store) -> None:
    given_up = Failure(reason=FailureReason.NO_RESULT, message="words")
    retaining.reports.record(report(TaskStatus.TIMED_OUT, by=Reporter.POLL, minute=0, failure=given_up))
    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["rank"], item["deleteAfter"]) == ("TIMED_OUT", 10, delete_after(0))

    assert retaining.restarts.reopen(read(retaining), now=at(1)) is True

    assert store.item(TASK) == {
        **{key: value for key, value in REGISTERED.items() if key != "registeredAt"},
        "updatedAt": TIMES[1],
        "request": STORED_REQUEST,
    }


def test_a_correction_changes_the_time_of_deletion_with_the_status(store: Store, retaining: Store) -> None:
    other = Failure(reason=FailureReason.INTERNAL, code="500")
    retaining.reports.record(report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.CALLBACK, minute=0))
    retaining.confirmations.correct(
        read(retaining), report(TaskStatus.FAILED, by=Reporter.POLL, minute=1, failure=other)
    )

    item = store.item(TASK)
    assert item is not None
    assert {name: item.get(name) for name in ("status", "rank", "images", "reportedBy", "reportedAt")} == {
        "status": "FAILED",
        "rank": 20,
        "images": None,
        "reportedBy": "poll",
        "reportedAt": TIMES[1],
    }
    assert item["failure"] == {"reason": "INTERNAL", "code": "500", "message": ""}
    assert item["deleteAfter"] == delete_after(1)

    store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
    retaining.reports.record(report(TaskStatus.FAILED, by=Reporter.CALLBACK, minute=2, failure=other))
    retaining.confirmations.correct(
        read(retaining), report(TaskStatus.SUCCEEDED, image("r"), by=Reporter.POLL, minute=3)
    )

    item = store.item(TASK)
    assert item is not None
    assert (item["status"], item["images"]) == ("SUCCEEDED", [stored_image("r")])
    assert "deleteAfter" not in item
    assert "failure" not in item
