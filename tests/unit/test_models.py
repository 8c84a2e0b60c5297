"""Models: ranks of statuses, validation of reports, contradictions, and stored formats."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from catchlight.dispatch import MAX_TASKS_PER_EXECUTION, PollState
from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    Failure,
    FailureReason,
    Image,
    ImageKind,
    Reporter,
    TaskReport,
    TaskStatus,
    iso,
    split_task_key,
    task_key,
)
from catchlight.tasks.task import Task

NOW = datetime(2026, 1, 6, 0, 17, 5, 120_000, tzinfo=UTC)
POLICY = Failure(reason=FailureReason.CONTENT_POLICY)
INTERNAL = Failure(reason=FailureReason.INTERNAL)


def an_image(url: str = "https://host.example/a.png", kind: ImageKind = ImageKind.RESULT) -> Image:
    return Image(kind=kind, url=url, expires_at=NOW)


def a_report(
    status: TaskStatus, *, images: tuple[Image, ...] = (), failure: Failure | None = None, task_id: str = "task12345"
) -> TaskReport:
    return TaskReport(
        provider="flux-kontext",
        task_id=task_id,
        status=status,
        reported_by=Reporter.CALLBACK,
        reported_at=NOW,
        images=images,
        failure=failure,
    )


# ------------------------------------------------------------------------------------------------ status and rank


def test_ranks_rise_from_pending_to_archived() -> None:
    assert {status.value: status.rank for status in sorted(TaskStatus, key=lambda status: status.rank)} == {
        "PENDING": 0,
        "TIMED_OUT": 10,
        "FAILED": 20,
        "SUCCEEDED": 30,
        "UNCONFIRMED": 35,
        "INCOMPLETE": 40,
        "ARCHIVED": 50,
    }


def test_no_two_statuses_share_a_rank() -> None:
    # With equal ranks, the first report would win, and the order would matter.
    assert len({status.rank for status in TaskStatus}) == len(TaskStatus)


# ------------------------------------------------------------------------------------------------ reports


@pytest.mark.parametrize(
    ("status", "images", "failure"),
    [
        (TaskStatus.PENDING, (), None),
        (TaskStatus.TIMED_OUT, (), INTERNAL),
        (TaskStatus.FAILED, (), INTERNAL),
        (TaskStatus.SUCCEEDED, (an_image(),), None),
    ],
)
def test_a_report_whose_content_matches_its_status_is_valid(
    status: TaskStatus, images: tuple[Image, ...], failure: Failure | None
) -> None:
    assert a_report(status, images=images, failure=failure).status is status


@pytest.mark.parametrize(
    ("status", "images", "failure"),
    [
        (TaskStatus.SUCCEEDED, (), None),
        (TaskStatus.SUCCEEDED, (an_image(),), INTERNAL),
        (TaskStatus.FAILED, (), None),
        (TaskStatus.FAILED, (an_image(),), INTERNAL),
        (TaskStatus.TIMED_OUT, (), None),
        (TaskStatus.PENDING, (an_image(),), None),
        (TaskStatus.PENDING, (), INTERNAL),
    ],
)
def test_a_report_whose_content_does_not_match_its_status_is_refused(
    status: TaskStatus, images: tuple[Image, ...], failure: Failure | None
) -> None:
    with pytest.raises(ValidationError):
        a_report(status, images=images, failure=failure)


@pytest.mark.parametrize("task_id", ["a", "A-Z_09", "x" * 128, "2db0168c-2373-4367-8d9a-9dc778802e8a"])
def test_valid_task_ids(task_id: str) -> None:
    assert a_report(TaskStatus.PENDING, task_id=task_id).task == f"flux-kontext#{task_id}"


@pytest.mark.parametrize("task_id", ["", "x" * 129, "a b", "a#b", "a/b", "../a", "ä", "a\n", "a\x00", "٣"])
def test_invalid_task_ids_are_refused(task_id: str) -> None:
    with pytest.raises(ValidationError):
        a_report(TaskStatus.PENDING, task_id=task_id)


def test_the_number_of_images_in_a_report_is_limited() -> None:
    assert a_report(TaskStatus.SUCCEEDED, images=(an_image(),) * MAX_IMAGES_PER_TASK)
    with pytest.raises(ValidationError):
        a_report(TaskStatus.SUCCEEDED, images=(an_image(),) * (MAX_IMAGES_PER_TASK + 1))


def test_validation_errors_do_not_quote_the_input() -> None:
    with pytest.raises(ValidationError) as refused:
        Image.model_validate({"kind": "result", "url": ["https://secret.example/signed"], "expiresAt": "never"})

    assert "secret" not in str(refused.value)
    assert "never" not in str(refused.value)


# ------------------------------------------------------------------------------------------------ contradictions

SUCCEEDED = Task(task="p#1", status=TaskStatus.SUCCEEDED, rank=30, images=(an_image(),))
FAILED = Task(task="p#1", status=TaskStatus.FAILED, rank=20, failure=POLICY)
TIMED_OUT = Failure(reason=FailureReason.NO_RESULT)


@pytest.mark.parametrize(
    ("known", "report", "contradicts"),
    [
        pytest.param(SUCCEEDED, a_report(TaskStatus.SUCCEEDED, images=(an_image(),)), False, id="the same success"),
        pytest.param(
            SUCCEEDED,
            a_report(TaskStatus.SUCCEEDED, images=(an_image("https://host.example/a.png?signature=2"),)),
            False,
            id="the same object with another signature",
        ),
        pytest.param(
            SUCCEEDED,
            a_report(TaskStatus.SUCCEEDED, images=(an_image("https://host.example/b.png"),)),
            True,
            id="another image",
        ),
        pytest.param(
            SUCCEEDED,
            a_report(TaskStatus.SUCCEEDED, images=(an_image(kind=ImageKind.ORIGIN),)),
            True,
            id="another kind",
        ),
        pytest.param(
            SUCCEEDED, a_report(TaskStatus.SUCCEEDED, images=(an_image(), an_image())), True, id="one image more"
        ),
        pytest.param(SUCCEEDED, a_report(TaskStatus.FAILED, failure=POLICY), True, id="a failure after a success"),
        pytest.param(SUCCEEDED, a_report(TaskStatus.PENDING), False, id="still running, late"),
        pytest.param(SUCCEEDED, a_report(TaskStatus.TIMED_OUT, failure=TIMED_OUT), False, id="timed out, late"),
        pytest.param(FAILED, a_report(TaskStatus.FAILED, failure=POLICY), False, id="the same failure"),
        pytest.param(
            FAILED,
            a_report(
                TaskStatus.FAILED,
                failure=Failure(reason=FailureReason.CONTENT_POLICY, code="400", message="other words"),
            ),
            False,
            id="the same failure in other words",
        ),
        pytest.param(FAILED, a_report(TaskStatus.FAILED, failure=INTERNAL), True, id="another failure"),
        pytest.param(FAILED, a_report(TaskStatus.PENDING), False, id="still running after a failure"),
        pytest.param(FAILED, a_report(TaskStatus.TIMED_OUT, failure=TIMED_OUT), False, id="timed out after a failure"),
    ],
)
def test_which_reports_contradict_a_task(known: Task, report: TaskReport, contradicts: bool) -> None:
    assert known.contradicts(report) is contradicts


# ------------------------------------------------------------------------------------------------ poll state


def test_poll_state_has_the_field_names_of_the_state_machine() -> None:
    state = PollState(tasks=("a#1",), wait_seconds=30, waited_seconds=60)

    document = state.model_dump(mode="json", by_alias=True, exclude_none=True)

    assert document == {"tasks": ["a#1"], "waitSeconds": 30, "waitedSeconds": 60, "polls": 0}
    assert PollState.model_validate(document) == state


def test_poll_state_starts_without_waits_and_polls() -> None:
    state = PollState.model_validate({"tasks": [], "waitSeconds": 60})

    assert (state.waited_seconds, state.polls) == (0, 0)


@pytest.mark.parametrize(
    "document",
    [
        {"tasks": ["a#1"] * (MAX_TASKS_PER_EXECUTION + 1), "waitSeconds": 1},
        {"tasks": ["a#1"], "waitSeconds": -1},
        {"tasks": ["a#1"], "waitSeconds": 1, "waitedSeconds": -1},
        {"tasks": ["a#1"], "waitSeconds": 1, "polls": -1},
        {"tasks": ["a#1"]},
        {"tasks": [1], "waitSeconds": 1},
    ],
)
def test_invalid_poll_state_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PollState.model_validate(document)


# ------------------------------------------------------------------------------------------------ keys and times


def test_a_task_key_is_split_into_provider_and_task_id() -> None:
    assert split_task_key(task_key("flux-kontext", "task12345")) == ("flux-kontext", "task12345")


@pytest.mark.parametrize("key", ["", "flux-kontext", "#", "#task", "flux-kontext#", "flux-kontext#a b", "a#b#c"])
def test_an_invalid_task_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not a task key"):
        split_task_key(key)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOW, "2026-01-06T00:17:05.120Z"),
        (NOW.replace(microsecond=0), "2026-01-06T00:17:05.000Z"),
        (NOW.replace(microsecond=999_999), "2026-01-06T00:17:05.999Z"),
        (NOW.astimezone(timezone(timedelta(hours=8))), "2026-01-06T00:17:05.120Z"),
        (NOW.astimezone(timezone(-timedelta(hours=3, minutes=30))), "2026-01-06T00:17:05.120Z"),
    ],
)
def test_times_are_utc_of_equal_length(moment: datetime, text: str) -> None:
    assert iso(moment) == text
