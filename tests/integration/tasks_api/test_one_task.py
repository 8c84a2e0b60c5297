"""One task: all attributes of its item, links to its images, and waiting until it is done."""

import itertools
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from catchlight.api.queries import WAIT_STEPS, TaskQueries
from catchlight.api.schemas import MAX_LINK_SECONDS
from catchlight.models import (
    Failure,
    FailureReason,
    Image,
    ImageKind,
    ImageState,
    Quarantined,
    Reporter,
    TaskReport,
    TaskStatus,
)
from functions.serve_tasks_api import app
from tests.canary_secrets import URL_QUERY
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.tasks_api.api_harness import BUCKET, NOW, TasksApiHarness

TASK = "flux-kontext#task12345"
PATH = "/tasks/flux-kontext/task12345"


def an_image(kind: ImageKind = ImageKind.RESULT, **changes: Any) -> Image:
    return Image(
        kind=kind,
        url=f"https://tempfile.aiquickdraw.com/r/1.png?{URL_QUERY}",
        expires_at=datetime(2026, 12, 1, tzinfo=UTC),
    ).model_copy(update=changes)


def archived(kind: ImageKind = ImageKind.RESULT, index: int = 0, **changes: Any) -> Image:
    facts = {
        "state": ImageState.ARCHIVED,
        "bucket": BUCKET,
        "key": f"images/flux-kontext/task12345/{kind}-{index}.png",
        "bytes": 3,
        "sha256": "ab" * 32,
        "content_type": "image/png",
        "width": 640,
        "height": 480,
        "archived_at": NOW,
    }
    return an_image(kind, **{**facts, **changes})


def a_success(api: TasksApiHarness, *images: Image) -> None:
    """Stores a task that a callback has reported, with these images."""
    report = TaskReport(
        provider="flux-kontext",
        task_id="task12345",
        status=TaskStatus.SUCCEEDED,
        reported_by=Reporter.CALLBACK,
        reported_at=NOW,
        images=images,
    )
    api.store.reports.record(report)
    task = api.store.table.get(TASK)
    assert task
    api.store.images.save(task, dict(enumerate(images)), now=NOW)


# ------------------------------------------------------------------------------------------------ shown


def test_a_pending_task(api: TasksApiHarness) -> None:
    api.submit(prompt="a lighthouse")

    assert api.ask("GET", PATH).body == {
        "task": TASK,
        "provider": "flux-kontext",
        "taskId": "task12345",
        "status": "PENDING",
        "done": False,
        "images": [],
        "request": {"prompt": "a lighthouse"},
        "deliveries": 0,
        "skipped": [],
        "conflicts": [],
        "idempotencyKey": "order-1",
        "arrivedAt": "2026-11-21T12:00:00.000Z",
        "registeredAt": "2026-11-21T12:00:00.000Z",
        "updatedAt": "2026-11-21T12:00:00.000Z",
    }


def test_an_archived_task_has_links(api: TasksApiHarness) -> None:
    a_success(api, archived(ImageKind.ORIGIN), archived(), archived(index=1))

    task = api.ask("GET", PATH).body

    assert (task["status"], task["done"], task["reportedBy"], task["deliveries"]) == ("ARCHIVED", True, "callback", 1)
    assert [(image["kind"], image["index"]) for image in task["images"]] == [
        ("origin", 0),
        ("result", 0),
        ("result", 1),
    ]
    image = task["images"][2]
    assert urlsplit(image.pop("link")).path == "/images/flux-kontext/task12345/result-1.png"
    assert image == {
        "kind": "result",
        "index": 1,
        "state": "ARCHIVED",
        "linkExpiresAt": "2026-11-21T12:15:00.000Z",
        "url": f"https://tempfile.aiquickdraw.com/r/1.png?{URL_QUERY}",
        "expiresAt": "2026-12-01T00:00:00.000Z",
        "bucket": BUCKET,
        "key": "images/flux-kontext/task12345/result-1.png",
        "bytes": 3,
        "sha256": "ab" * 32,
        "contentType": "image/png",
        "width": 640,
        "height": 480,
        "archivedAt": "2026-11-21T12:00:00.000Z",
    }


def test_an_incomplete_task_says_why_and_links_to_the_rest(api: TasksApiHarness) -> None:
    rejected = an_image(state=ImageState.REJECTED, reason="not an image")
    a_success(api, archived(ImageKind.ORIGIN), rejected)

    task = api.ask("GET", PATH).body

    assert (task["status"], task["done"]) == ("INCOMPLETE", True)
    assert ["link" in image for image in task["images"]] == [True, False]
    assert task["images"][1]["reason"] == "not an image"


def test_a_failure_with_evidence_against_it(api: TasksApiHarness) -> None:
    def report(status: TaskStatus, **rest: Any) -> TaskReport:
        return TaskReport(
            provider="flux-kontext",
            task_id="task12345",
            status=status,
            reported_by=Reporter.CALLBACK,
            reported_at=NOW,
            **rest,
        )

    policy = Failure(reason=FailureReason.CONTENT_POLICY, code="400", message="flagged")
    api.store.reports.record(report(TaskStatus.FAILED, failure=policy))
    api.store.reports.record(report(TaskStatus.FAILED, failure=Failure(reason=FailureReason.INTERNAL)))

    task = api.ask("GET", PATH).body

    assert task["failure"] == {"reason": "CONTENT_POLICY", "code": "400", "message": "flagged"}
    assert task["conflicts"] == [
        {
            "reportedBy": "callback",
            "reportedAt": "2026-11-21T12:00:00.000Z",
            "status": "FAILED",
            "urls": [],
            "failure": {"reason": "INTERNAL", "message": ""},
        }
    ]


def test_an_item_that_was_put_by_hand_is_shown_with_the_fields_that_it_has(api: TasksApiHarness) -> None:
    api.store.put("midjourney#a", status="PENDING")

    assert api.ask("GET", "/tasks/midjourney/a").body == {
        "task": "midjourney#a",
        "provider": "midjourney",
        "taskId": "a",
        "status": "PENDING",
        "done": False,
        "images": [],
        "deliveries": 0,
        "skipped": [],
        "conflicts": [],
    }


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"status": "DONE"},
        {"status": "PENDING", "images": "none"},
        {"status": "PENDING", "deliveries": "many"},
        {"status": "PENDING", "arrivedAt": 5},
    ],
)
def test_a_malformed_item_is_an_error(api: TasksApiHarness, attributes: dict[str, Any]) -> None:
    api.store.put(TASK, **attributes)

    answer = api.ask("GET", PATH)

    assert (answer.status, answer.problem) == (409, "unreadable-item")


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/flux-kontext/unknown",
        "/tasks/flux-kontext/a%20b",
        "/tasks/flux-kontext/%23",
        "/tasks/%23submission/order-1",
    ],
)
def test_an_unknown_task(api: TasksApiHarness, path: str) -> None:
    api.submit()

    answer = api.ask("GET", path)

    assert (answer.status, answer.problem) == (404, "no-such-task")


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ({"wait": "soon"}, "wait"),
        ({"wait": "-1"}, "wait"),
        ({"wait": "21"}, "wait"),
        ({"wait": "1,1"}, "wait"),
        ({"wait": ""}, "wait"),
        ({"linkSeconds": "59"}, "linkSeconds"),
        ({"linkSeconds": MAX_LINK_SECONDS + 1}, "linkSeconds"),
        ({"verbose": "1"}, "verbose"),
    ],
)
def test_a_parameter_that_is_none(api: TasksApiHarness, query: dict[str, Any], at: str) -> None:
    answer = api.ask("GET", PATH, query=query)

    assert (answer.status, answer.problem) == (400, "invalid-parameter")
    assert [error["at"] for error in answer.body["errors"]] == [at]


# ------------------------------------------------------------------------------------------------ waiting


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch, api: TasksApiHarness) -> list[float]:
    """The pauses between two reads of a task; they take no time in tests."""
    made: list[float] = []
    queries = app.dependencies().api.queries
    monkeypatch.setattr(queries, "_sleep", made.append)
    monkeypatch.setattr(queries, "_clock", lambda: sum(made))
    return made


def test_a_task_that_is_done_is_not_waited_for(api: TasksApiHarness, pauses: list[float]) -> None:
    a_success(api, archived())

    assert api.ask("GET", PATH, query={"wait": 20}).body["done"]
    assert pauses == []


def test_waiting_ends_when_the_task_is_done(api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    api.register("task12345")
    pauses: list[float] = []

    def succeed_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        a_success(api, archived())

    monkeypatch.setattr(app.dependencies().api.queries, "_sleep", succeed_meanwhile)

    answer = api.ask("GET", PATH, query={"wait": 20})

    assert (answer.body["status"], answer.body["done"]) == ("ARCHIVED", True)
    assert len(pauses) == 1


def test_waiting_ends_when_the_time_is_over(api: TasksApiHarness, pauses: list[float]) -> None:
    api.register("task12345")

    answer = api.ask("GET", PATH, query={"wait": 1})

    assert (answer.status, answer.body["done"]) == (200, False)
    assert sum(pauses) == pytest.approx(1)


def test_waiting_leaves_the_function_time_to_answer(api: TasksApiHarness, pauses: list[float]) -> None:
    api.register("task12345")

    assert api.ask("GET", PATH, query={"wait": 20}, remaining_seconds=3.5).status == 200
    assert sum(pauses) == pytest.approx(3.5 - app.RESERVED_SECONDS)


@pytest.mark.parametrize("status", ["ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"])
def test_a_task_in_a_final_status_is_not_waited_for(store: Store, status: str) -> None:
    store.put(TASK, status=status)
    slept: list[float] = []

    assert TaskQueries(TABLE_NAME, store.client, sleep=slept.append).item(TASK, wait_seconds=20)
    assert slept == []


@pytest.mark.parametrize("status", ["PENDING", "SUCCEEDED"])
def test_reads_become_rarer_and_end_in_time(store: Store, status: str) -> None:
    store.put(TASK, status=status)
    slept: list[float] = []

    assert TaskQueries(TABLE_NAME, store.client, sleep=slept.append).item(TASK, wait_seconds=20)
    assert slept[: len(WAIT_STEPS)] == list(WAIT_STEPS)
    assert slept[:-1] == sorted(slept[:-1])
    assert sum(slept) == 20
    assert len(slept) <= 14


def test_slow_reads_are_part_of_the_waiting_time(store: Store) -> None:
    store.put(TASK, status="PENDING")
    slept: list[float] = []
    clock = itertools.count(0, 5)

    queries = TaskQueries(TABLE_NAME, store.client, sleep=slept.append, clock=lambda: next(clock))

    assert queries.item(TASK, wait_seconds=20)
    assert slept == [0.25, 0.5, 0.75, 1.0]


def test_a_task_that_is_deleted_meanwhile_is_gone(store: Store) -> None:
    store.register(TASK)

    def delete(_: float) -> None:
        store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})

    assert TaskQueries(TABLE_NAME, store.client, sleep=delete).item(TASK, wait_seconds=20) is None


# ------------------------------------------------------------------------------------------------ images


def test_a_redirect_leads_to_the_image(api: TasksApiHarness) -> None:
    a_success(api, archived(ImageKind.ORIGIN), archived())
    boto3.client("s3").put_object(Bucket=BUCKET, Key="images/flux-kontext/task12345/result-0.png", Body=b"png")

    answer = api.ask("GET", f"{PATH}/images/result-0", query={"linkSeconds": 60})

    assert (answer.status, answer.body) == (302, None)
    link = urlsplit(answer.headers["location"])
    assert (link.scheme, link.hostname) == ("https", f"{BUCKET}.s3.us-east-1.amazonaws.com")
    assert link.path == "/images/flux-kontext/task12345/result-0.png"
    query = parse_qs(link.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["60"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_redirect_leads_to_the_bytes_in_quarantine(api: TasksApiHarness) -> None:
    kept = Quarantined(key="quarantine/flux-kontext/task12345/result-0", bytes=4112, sha256="0" * 64)
    a_success(api, an_image(state=ImageState.REJECTED, reason="it is HEIC", quarantine=kept))

    answer = api.ask("GET", f"{PATH}/images/result-0", query={"quarantined": "true"})

    assert answer.status == 302
    assert urlsplit(answer.headers["location"]).path == f"/{kept.key}"
    (shown,) = api.ask("GET", PATH).body["images"]
    assert shown["quarantine"] == {"key": kept.key, "bytes": 4112, "sha256": "0" * 64}
    assert "link" not in shown


@pytest.mark.parametrize("name", ["result-0", "result-1"])
def test_nothing_is_in_quarantine_for_an_image(api: TasksApiHarness, name: str) -> None:
    a_success(api, archived())

    answer = api.ask("GET", f"{PATH}/images/{name}", query={"quarantined": "true"})

    assert (answer.status, answer.problem) == (404, "no-such-image")


@pytest.mark.parametrize(
    "name", ["result-1", "origin-0", "result-00", "result", "thumb-0", "result-0.png", "result-100"]
)
def test_there_is_no_such_image(api: TasksApiHarness, name: str) -> None:
    a_success(api, archived())

    answer = api.ask("GET", f"{PATH}/images/{name}")

    assert (answer.status, answer.problem) == (404, "no-such-image")


@pytest.mark.parametrize(
    ("image", "status", "problem"),
    [
        (an_image(), 409, "image-not-archived"),
        (an_image(state=ImageState.EXPIRED, reason="the URL has expired"), 404, "no-such-image"),
        (an_image(state=ImageState.REJECTED, reason="not an image"), 404, "no-such-image"),
        (archived(bucket="another-bucket"), 404, "no-such-image"),
        (archived(key=None), 404, "no-such-image"),
    ],
)
def test_an_image_that_is_not_in_the_bucket(api: TasksApiHarness, image: Image, status: int, problem: str) -> None:
    a_success(api, image)

    answer = api.ask("GET", f"{PATH}/images/result-0")

    assert (answer.status, answer.problem) == (status, problem)
    assert ("retry-after" in answer.headers) == (status == 409)
    assert image.reason is None or image.reason in answer.body["detail"]
    (shown,) = api.ask("GET", PATH).body["images"]
    assert "link" not in shown


@pytest.mark.parametrize(
    ("status", "problem"),
    [("PENDING", "image-not-archived"), ("FAILED", "no-such-image"), ("TIMED_OUT", "no-such-image")],
)
def test_a_task_without_images(api: TasksApiHarness, status: str, problem: str) -> None:
    """Only the answer about a task that is not done has a Retry-After."""
    api.store.put(TASK, status=status)

    answer = api.ask("GET", f"{PATH}/images/result-0")

    assert answer.problem == problem
    assert ("retry-after" in answer.headers) == (status == "PENDING")


def test_an_image_of_an_unknown_task(api: TasksApiHarness) -> None:
    answer = api.ask("GET", "/tasks/acedata/unknown/images/result-0")
    assert answer.problem == "no-such-task"
    assert "acedata/unknown" in answer.body["detail"]
