"""GET /tasks/{provider}/{taskId}: attributes, links to images, and waiting until the task is done."""

import itertools
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from catchlight.api.queries import WAIT_STEPS, TaskQueries
from catchlight.api.request_models import MAX_LINK_SECONDS
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
    """Stores a task that a callback has reported as successful, with these images."""
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


# ------------------------------------------------------------------------------------------------ attributes


def test_a_pending_task_is_returned_with_its_request(api: TasksApiHarness) -> None:
    api.submit(prompt="a lighthouse")

    assert api.send("GET", PATH).body == {
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


def test_an_archived_task_has_links_to_its_images(api: TasksApiHarness) -> None:
    a_success(api, archived(ImageKind.ORIGIN), archived(), archived(index=1))

    task = api.send("GET", PATH).body

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


def test_an_incomplete_task_has_the_reasons_and_the_links_of_its_images(api: TasksApiHarness) -> None:
    rejected = an_image(state=ImageState.REJECTED, reason="not an image")
    a_success(api, archived(ImageKind.ORIGIN), rejected)

    task = api.send("GET", PATH).body

    assert (task["status"], task["done"]) == ("INCOMPLETE", True)
    assert ["link" in image for image in task["images"]] == [True, False]
    assert task["images"][1]["reason"] == "not an image"


def test_a_failed_task_is_returned_with_conflicting_reports(api: TasksApiHarness) -> None:
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

    task = api.send("GET", PATH).body

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


def test_an_item_written_by_hand_is_returned_with_the_fields_that_it_has(api: TasksApiHarness) -> None:
    api.store.put("midjourney#a", status="PENDING")

    assert api.send("GET", "/tasks/midjourney/a").body == {
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
def test_a_malformed_item_is_a_409(api: TasksApiHarness, attributes: dict[str, Any]) -> None:
    api.store.put(TASK, **attributes)

    response = api.send("GET", PATH)

    assert (response.status, response.problem) == (409, "unreadable-item")


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/flux-kontext/unknown",
        "/tasks/flux-kontext/a%20b",
        "/tasks/flux-kontext/%23",
        "/tasks/%23submission/order-1",
    ],
)
def test_an_unknown_task_is_a_404(api: TasksApiHarness, path: str) -> None:
    api.submit()

    response = api.send("GET", path)

    assert (response.status, response.problem) == (404, "no-such-task")


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
def test_invalid_parameters_are_rejected(api: TasksApiHarness, query: dict[str, Any], at: str) -> None:
    response = api.send("GET", PATH, query=query)

    assert (response.status, response.problem) == (400, "invalid-parameter")
    assert [error["at"] for error in response.body["errors"]] == [at]


# ------------------------------------------------------------------------------------------------ waiting


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch, api: TasksApiHarness) -> list[float]:
    """The recorded pauses between two reads of a task, without the actual sleep."""
    durations: list[float] = []
    queries = app.dependencies().api.queries
    monkeypatch.setattr(queries, "_sleep", durations.append)
    monkeypatch.setattr(queries, "_clock", lambda: sum(durations))
    return durations


def test_a_request_does_not_wait_for_a_task_that_is_done(api: TasksApiHarness, pauses: list[float]) -> None:
    a_success(api, archived())

    assert api.send("GET", PATH, query={"wait": 20}).body["done"]
    assert pauses == []


def test_waiting_ends_when_the_task_is_done(api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    api.register("task12345")
    pauses: list[float] = []

    def succeed_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        a_success(api, archived())

    monkeypatch.setattr(app.dependencies().api.queries, "_sleep", succeed_meanwhile)

    response = api.send("GET", PATH, query={"wait": 20})

    assert (response.body["status"], response.body["done"]) == ("ARCHIVED", True)
    assert len(pauses) == 1


def test_waiting_ends_after_the_requested_time(api: TasksApiHarness, pauses: list[float]) -> None:
    api.register("task12345")

    response = api.send("GET", PATH, query={"wait": 1})

    assert (response.status, response.body["done"]) == (200, False)
    assert sum(pauses) == pytest.approx(1)


def test_waiting_ends_before_the_functions_timeout(api: TasksApiHarness, pauses: list[float]) -> None:
    api.register("task12345")

    assert api.send("GET", PATH, query={"wait": 20}, remaining_seconds=3.5).status == 200
    assert sum(pauses) == pytest.approx(3.5 - app.RESERVED_SECONDS)


@pytest.mark.parametrize("status", ["ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"])
def test_reads_are_not_repeated_for_a_task_in_a_final_status(store: Store, status: str) -> None:
    store.put(TASK, status=status)
    slept: list[float] = []

    assert TaskQueries(TABLE_NAME, store.client, sleep=slept.append).item(TASK, wait_seconds=20)
    assert slept == []


@pytest.mark.parametrize("status", ["PENDING", "SUCCEEDED"])
def test_the_intervals_between_reads_grow_and_add_up_to_the_waiting_time(store: Store, status: str) -> None:
    store.put(TASK, status=status)
    slept: list[float] = []

    assert TaskQueries(TABLE_NAME, store.client, sleep=slept.append).item(TASK, wait_seconds=20)
    assert slept[: len(WAIT_STEPS)] == list(WAIT_STEPS)
    assert slept[:-1] == sorted(slept[:-1])
    assert sum(slept) == 20
    assert len(slept) <= 14


def test_the_duration_of_reads_counts_as_waiting_time(store: Store) -> None:
    store.put(TASK, status="PENDING")
    slept: list[float] = []
    clock = itertools.count(0, 5)

    queries = TaskQueries(TABLE_NAME, store.client, sleep=slept.append, clock=lambda: next(clock))

    assert queries.item(TASK, wait_seconds=20)
    assert slept == [0.25, 0.5, 0.75, 1.0]


def test_waiting_ends_without_a_result_if_the_task_is_deleted(store: Store) -> None:
    store.register(TASK)

    def delete(_: float) -> None:
        store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})

    assert TaskQueries(TABLE_NAME, store.client, sleep=delete).item(TASK, wait_seconds=20) is None


# ------------------------------------------------------------------------------------------------ images


def test_an_archived_image_is_a_redirect_to_a_presigned_url(api: TasksApiHarness) -> None:
    a_success(api, archived(ImageKind.ORIGIN), archived())
    boto3.client("s3").put_object(Bucket=BUCKET, Key="images/flux-kontext/task12345/result-0.png", Body=b"png")

    response = api.send("GET", f"{PATH}/images/result-0", query={"linkSeconds": 60})

    assert (response.status, response.body) == (302, None)
    link = urlsplit(response.headers["location"])
    assert (link.scheme, link.hostname) == ("https", f"{BUCKET}.s3.us-east-1.amazonaws.com")
    assert link.path == "/images/flux-kontext/task12345/result-0.png"
    query = parse_qs(link.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["60"]
    assert response.headers["cache-control"] == "no-store"


def test_a_quarantined_image_is_a_redirect_on_request(api: TasksApiHarness) -> None:
    quarantined = Quarantined(key="quarantine/flux-kontext/task12345/result-0", bytes=4112, sha256="0" * 64)
    a_success(api, an_image(state=ImageState.REJECTED, reason="it is HEIC", quarantine=quarantined))

    response = api.send("GET", f"{PATH}/images/result-0", query={"quarantined": "true"})

    assert response.status == 302
    assert urlsplit(response.headers["location"]).path == f"/{quarantined.key}"
    (returned,) = api.send("GET", PATH).body["images"]
    assert returned["quarantine"] == {"key": quarantined.key, "bytes": 4112, "sha256": "0" * 64}
    assert "link" not in returned


@pytest.mark.parametrize("name", ["result-0", "result-1"])
def test_an_image_without_quarantined_bytes_is_a_404(api: TasksApiHarness, name: str) -> None:
    a_success(api, archived())

    response = api.send("GET", f"{PATH}/images/{name}", query={"quarantined": "true"})

    assert (response.status, response.problem) == (404, "no-such-image")


@pytest.mark.parametrize(
    "name", ["result-1", "origin-0", "result-00", "result", "thumb-0", "result-0.png", "result-100"]
)
def test_an_unknown_image_is_a_404(api: TasksApiHarness, name: str) -> None:
    a_success(api, archived())

    response = api.send("GET", f"{PATH}/images/{name}")

    assert (response.status, response.problem) == (404, "no-such-image")


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
def test_an_image_that_is_not_archived_is_an_error(
    api: TasksApiHarness, image: Image, status: int, problem: str
) -> None:
    a_success(api, image)

    response = api.send("GET", f"{PATH}/images/result-0")

    assert (response.status, response.problem) == (status, problem)
    assert ("retry-after" in response.headers) == (status == 409)
    assert image.reason is None or image.reason in response.body["detail"]
    (returned,) = api.send("GET", PATH).body["images"]
    assert "link" not in returned


@pytest.mark.parametrize(
    ("status", "problem"),
    [("PENDING", "image-not-archived"), ("FAILED", "no-such-image"), ("TIMED_OUT", "no-such-image")],
)
def test_images_of_a_task_without_images_are_not_found(api: TasksApiHarness, status: str, problem: str) -> None:
    """Only the response for a task that is not done has a Retry-After header."""
    api.store.put(TASK, status=status)

    response = api.send("GET", f"{PATH}/images/result-0")

    assert response.problem == problem
    assert ("retry-after" in response.headers) == (status == "PENDING")


def test_an_image_of_an_unknown_task_is_a_404(api: TasksApiHarness) -> None:
    response = api.send("GET", "/tasks/acedata/unknown/images/result-0")
    assert response.problem == "no-such-task"
    assert "acedata/unknown" in response.body["detail"]
