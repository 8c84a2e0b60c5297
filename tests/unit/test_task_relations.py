"""Comparison of a task with an answer about it, and other relations between models."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from catchlight.models import (
    Failure,
    FailureReason,
    GenerationRequest,
    Image,
    ImageKind,
    ImageState,
    Reporter,
    TaskReport,
    TaskStatus,
    by_place,
    is_task_key,
    split_task_key,
)
from catchlight.tasks.task import Task

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ORIGIN, RESULT = ImageKind.ORIGIN, ImageKind.RESULT
POLICY, INTERNAL = FailureReason.CONTENT_POLICY, FailureReason.INTERNAL


def image(name: str = "a", kind: ImageKind = RESULT, **more: Any) -> Image:
    return Image(kind=kind, url=f"https://h.example/{name}", expires_at=NOW, **more)


def succeeded(*images: Image) -> Task:
    return Task(task="acedata#t1", status=TaskStatus.SUCCEEDED, images=images, reported_by=Reporter.CALLBACK)


def failed(reason: FailureReason) -> Task:
    return Task(task="acedata#t1", status=TaskStatus.FAILED, failure=Failure(reason=reason, code="1"))


def answer(status: TaskStatus, *images: Image, reason: FailureReason | None = None) -> TaskReport:
    return TaskReport(
        provider="acedata",
        task_id="t1",
        status=status,
        reported_by=Reporter.POLL,
        reported_at=NOW,
        images=images,
        failure=Failure(reason=reason, code="2") if reason else None,
    )


def success(*images: Image) -> TaskReport:
    return answer(TaskStatus.SUCCEEDED, *images)


ANSWERS: list[tuple[Task, TaskReport, bool, bool]] = [
    # The known task, the answer, whether the answer confirms the task exactly, and whether it contradicts it.
    (succeeded(image()), success(image()), True, False),
    (succeeded(image("a?s=1")), success(image("a?s=2")), False, False),
    (succeeded(image()), success(image(), image("b")), False, False),
    (succeeded(image()), success(image("b"), image()), False, False),
    (succeeded(image(), image("b")), success(image()), False, True),
    (succeeded(image()), success(image("b")), False, True),
    (succeeded(image()), success(image(kind=ORIGIN)), False, True),
    (succeeded(image()), answer(TaskStatus.FAILED, reason=POLICY), False, True),
    (succeeded(image()), answer(TaskStatus.PENDING), False, True),
    (failed(POLICY), answer(TaskStatus.FAILED, reason=POLICY), True, False),
    (failed(POLICY), answer(TaskStatus.FAILED, reason=INTERNAL), False, False),
    (failed(POLICY), success(image()), False, True),
    (failed(POLICY), answer(TaskStatus.PENDING), False, True),
]


@pytest.mark.parametrize(("known", "answered", "is_same", "is_contradicted"), ANSWERS)
def test_an_answer_confirms_or_contradicts_or_does_neither(
    known: Task, answered: TaskReport, is_same: bool, is_contradicted: bool
) -> None:
    assert known.is_confirmed_by(answered) is is_same
    assert known.is_contradicted_by(answered) is is_contradicted


@pytest.mark.parametrize(
    ("reported_by", "confirmed_at", "is_unconfirmed"),
    [
        (Reporter.CALLBACK, None, True),
        (Reporter.CALLBACK, "x", False),
        (Reporter.POLL, None, False),
        (None, None, False),
    ],
)
def test_a_result_that_only_a_callback_has_reported_is_unconfirmed(
    reported_by: Reporter | None, confirmed_at: str | None, is_unconfirmed: bool
) -> None:
    task = Task(task="a#1", status=TaskStatus.FAILED, reported_by=reported_by, confirmed_at=confirmed_at)

    assert task.is_unconfirmed is is_unconfirmed


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T12:00:00.000Z", NOW),
        ("2026-01-31T13:00:00+01:00", NOW),
        ("2026-01-31T12:00:00", NOW),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_the_reported_time_is_parsed_or_none(text: str | None, time: datetime | None) -> None:
    assert Task(task="a#1", status=TaskStatus.PENDING, reported_at=text).reported_time == time


def test_renewed_images_keep_their_positions_and_the_task_is_reopened() -> None:
    task = succeeded(image("a"), image("b")).model_copy(
        update={"status": TaskStatus.INCOMPLETE, "rank": 40, "archived_at": "2026-01-31T11:00:00.000Z"}
    )

    renewed = task.with_images({1: image("c")}, now=NOW)

    assert [each.url for each in renewed.images] == ["https://h.example/a", "https://h.example/c"]
    assert (renewed.status, renewed.rank) == (TaskStatus.SUCCEEDED, 30)
    assert (renewed.updated_at, renewed.archived_at) == ("2026-01-31T12:00:00.000Z", None)


def test_images_are_counted_within_their_kind() -> None:
    images = [image("a"), image("o", ORIGIN), image("b"), image("p", ORIGIN), image("c")]

    assert list(by_place(images)) == [(RESULT, 0), (ORIGIN, 0), (RESULT, 1), (ORIGIN, 1), (RESULT, 2)]
    assert list(by_place(images).values()) == images


# ------------------------------------------------------------------------------------------------ generation requests

FULL = GenerationRequest(prompt="a", model="m", size="1x1", seeds=(7,))


@pytest.mark.parametrize("name", ["prompt", "model", "size", "seeds"])
def test_a_generation_request_is_completed_field_by_field(name: str) -> None:
    missing = FULL.model_copy(update={name: None})
    only = GenerationRequest(**{name: getattr(FULL, name)})
    other = GenerationRequest(prompt="b", model="n", size="2x2", seeds=(8,))

    assert missing.completed_by(FULL) == FULL
    assert FULL.completed_by(other) == FULL
    assert FULL.completed_by(None) == FULL
    assert FULL.missing_in(missing) == only
    assert FULL.missing_in(only) == missing
    assert only.missing_in(FULL) == GenerationRequest()


# ------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("model", "fits", "is_too_long"),
    [
        (lambda text: image(text[len("https://h.example/") :]), "x" * 8193, "x" * 8194),
        (lambda text: GenerationRequest(prompt=text), "x" * 8000, "x" * 8001),
        (lambda text: Failure(reason=INTERNAL, message=text), "x" * 500, "x" * 501),
    ],
    ids=["url", "prompt", "message"],
)
def test_the_length_of_texts_is_limited(model: Any, fits: str, is_too_long: str) -> None:
    assert model(fits)
    with pytest.raises(ValidationError):
        model(is_too_long)


def test_an_image_needs_a_url_and_is_pending_by_default() -> None:
    assert image().state is ImageState.PENDING
    with pytest.raises(ValidationError):
        Image(kind=RESULT, url="", expires_at=NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("acedata#t1", ("acedata", "t1")),
        ("a#" + "x" * 128, ("a", "x" * 128)),
        ("a#" + "x" * 129, None),
        ("#t1", None),
        ("a#", None),
        ("a", None),
        ("a#b#c", None),
        ("#submission#key", None),
    ],
)
def test_a_key_is_a_provider_and_a_task_id(key: str, parts: tuple[str, str] | None) -> None:
    assert is_task_key(key) is (parts is not None)
    if parts:
        assert split_task_key(key) == parts


# ------------------------------------------------------------------------------------------------ values in items

VALUES = {
    TaskStatus: ["PENDING", "TIMED_OUT", "FAILED", "SUCCEEDED", "UNCONFIRMED", "INCOMPLETE", "ARCHIVED"],
    ImageKind: ["origin", "result"],
    ImageState: ["PENDING", "ARCHIVED", "EXPIRED", "REJECTED"],
    FailureReason: [
        "CONTENT_POLICY",
        "INTERNAL",
        "GENERATION_FAILED",
        "CREATE_FAILED",
        "NO_RESULT",
        "UNCONFIRMED",
        "OTHER",
    ],
    Reporter: ["callback", "poll"],
}


@pytest.mark.parametrize("kind", VALUES)
def test_the_values_in_items_do_not_change(kind: Any) -> None:
    assert [str(member) for member in kind] == VALUES[kind]
