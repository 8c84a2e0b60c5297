"""The explanation of a task, for each status and cause."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchlight.models import (
    Failure,
    FailureReason,
    Image,
    LastAnswer,
    Media,
    SkippedOutput,
    TaskStatus,
    iso,
)
from catchlight.tasks.task import UNANSWERED, Task
from catchlight_cli.health.archive_log import FailedAttempt
from catchlight_cli.health.explanation import ArchiveDeadLetter, Explanation, explain
from catchlight_cli.health.polling_executions import ExecutionSearch, PollingExecution

NOW = datetime(2026, 1, 6, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DEAD_LETTER = ArchiveDeadLetter(id="1", sent_at=NOW)
NO_EXECUTION = ExecutionSearch(executions=(), is_exhaustive=True)


def a_task(status: TaskStatus, age: timedelta = timedelta(minutes=1), **attributes: Any) -> Task:
    changed = iso(NOW - age)
    values = {"task": "acedata#1", "status": status, "registered_at": changed, "updated_at": changed, **attributes}
    return Task.model_validate(values)


def polled(seconds: float | None) -> ExecutionSearch:
    at = None if seconds is None else NOW + timedelta(seconds=seconds)
    return ExecutionSearch(
        executions=(PollingExecution(name="x-1", started_at=NOW, polls_next_at=at),), is_exhaustive=True
    )


def explained(
    task: Task,
    polling: ExecutionSearch | None = None,
    dead_letters: tuple[ArchiveDeadLetter, ...] = (),
    attempts: tuple[FailedAttempt, ...] = (),
) -> Explanation:
    return explain(
        task, polling=polling, dead_letters=dead_letters, failed_attempts=attempts, longest_polling=7 * HOUR, now=NOW
    )


def image(state: str, **more: Any) -> Image:
    values = {"kind": "result", "url": "https://x.example/1", "expiresAt": NOW + HOUR, "state": state, **more}
    return Image.model_validate(values)


ORIGINAL_ONLY = (image("ARCHIVED", kind="origin"),)


@pytest.mark.parametrize(
    ("task", "polling", "dead_letters", "text"),
    [
        (a_task(TaskStatus.PENDING), polled(12), (), "Execution x-1 polls for it in 12 s."),
        (a_task(TaskStatus.PENDING), polled(-1), (), "Execution x-1 is polling for it."),
        (a_task(TaskStatus.PENDING), polled(None), (), "Execution x-1 is polling for it."),
        (
            a_task(TaskStatus.PENDING),
            NO_EXECUTION,
            (),
            "the first hourly run after 6 h 59 min starts polling; `catchlight redrive acedata/1` starts it now.",
        ),
        (a_task(TaskStatus.PENDING), ExecutionSearch(executions=(), is_exhaustive=False), (), "too many executions"),
        (a_task(TaskStatus.PENDING, 8 * HOUR), NO_EXECUTION, (), "`catchlight reconcile` restarts it now."),
        (a_task(TaskStatus.PENDING, updated_at=None), NO_EXECUTION, (), "has no updatedAt"),
        (a_task(TaskStatus.SUCCEEDED), None, (), "Its images are being archived"),
        (
            a_task(TaskStatus.SUCCEEDED),
            None,
            (DEAD_LETTER,),
            "archiving failed until the URLs expired. `catchlight redrive acedata/1` retries it.",
        ),
        (
            a_task(TaskStatus.SUCCEEDED, 2 * HOUR),
            None,
            (),
            "It has waited for archiving for 2 h: archiving has stopped.",
        ),
        (a_task(TaskStatus.TIMED_OUT), None, (), "`catchlight redrive acedata/1` restarts polling."),
        (a_task(TaskStatus.INCOMPLETE), None, (), "requests fresh URLs and retries the images."),
        (a_task(TaskStatus.INCOMPLETE, images=ORIGINAL_ONLY), None, (), "polls for the result again."),
        (a_task(TaskStatus.FAILED, reported_by="callback"), None, (), "Only a callback has reported the failure."),
        (
            a_task(TaskStatus.FAILED, 15 * DAY, reported_by="callback"),
            None,
            (),
            "did not confirm it within 14 days. `catchlight redrive acedata/1` polls for the confirmation again.",
        ),
        (a_task(TaskStatus.FAILED, reported_by="poll"), None, (), "A later success is still applied."),
        (a_task(TaskStatus.ARCHIVED), None, (), "the task is done"),
        # The task was archived meanwhile: its dead letter does not matter.
        (a_task(TaskStatus.ARCHIVED), None, (DEAD_LETTER,), "the task is done"),
    ],
)
def test_the_next_step(
    task: Task, polling: ExecutionSearch | None, dead_letters: tuple[ArchiveDeadLetter, ...], text: str
) -> None:
    assert text in explained(task, polling, dead_letters).next_step


@pytest.mark.parametrize("reason", FailureReason)
def test_every_failure_is_explained(reason: FailureReason) -> None:
    why = explained(a_task(TaskStatus.FAILED, failure=Failure(reason=reason, code="400", message="no"))).reason

    assert why[0].isupper()
    assert why.endswith(". Its code: 400. Its message: no")


def test_images_that_were_not_archived_have_a_reason() -> None:
    images = (image("ARCHIVED"), image("EXPIRED", reason="the server answers 403"), image("REJECTED", reason="a page"))

    why = explained(a_task(TaskStatus.INCOMPLETE, images=images)).reason

    assert why == "result image EXPIRED: the server answers 403; result image REJECTED: a page"


def test_a_success_without_a_result_is_explained() -> None:
    why = explained(a_task(TaskStatus.INCOMPLETE, images=ORIGINAL_ONLY)).reason

    assert why == "The provider reports a success, but no result: only its original is in the bucket."


def test_outputs_that_are_not_images_are_listed() -> None:
    video = SkippedOutput(media=Media.VIDEO, url="https://x.example/1.mp4?signature=secret")
    task = a_task(TaskStatus.INCOMPLETE, reported_by="poll", reported_at=iso(NOW), skipped=(video,))

    explanation = explained(task)

    assert explanation.reason == "The provider returned no image: video."
    assert explanation.next_step.startswith("None: only images are archived.")
    assert "poll reported a result of 0 images, video (skipped)" in [each.description for each in explanation.history]
    assert "secret" not in explanation.model_dump_json()


def test_failed_attempts_are_listed() -> None:
    attempts = tuple(FailedAttempt(at=NOW - HOUR / each, reason=f"reason {each}") for each in (2, 4))

    explanation = explained(a_task(TaskStatus.SUCCEEDED, HOUR), attempts=attempts)

    assert explanation.reason.endswith("The last attempt failed: reason 4.")
    assert [event.description for event in explanation.history] == [
        "registered",
        "archiving failed: reason 2",
        "archiving failed: reason 4",
    ]


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.SUCCEEDED, TaskStatus.ARCHIVED])
def test_other_statuses_have_a_reason_too(status: TaskStatus) -> None:
    assert explained(a_task(status)).reason


def test_history_is_in_chronological_order() -> None:
    task = a_task(
        TaskStatus.SUCCEEDED,
        registered_at=iso(NOW - 3 * HOUR),
        reported_at=iso(NOW - 2 * HOUR),
        reported_by="callback",
        confirmed_at=iso(NOW - HOUR),
        reconciled_at=iso(NOW),
        images=(image("PENDING"), image("ARCHIVED", archivedAt=NOW - HOUR / 2, key="images/1")),
    )

    assert [(event.at, event.description) for event in explained(task).history] == [
        (NOW - 3 * HOUR, "registered"),
        (NOW - 2 * HOUR, "callback reported a result of 2 images"),
        (NOW - HOUR, "the provider confirmed the callback"),
        (NOW - HOUR / 2, "result image archived as images/1"),
        (NOW, "polling or archiving was restarted"),
    ]


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (LastAnswer.REFUSED, "catchlight doctor"),
        (LastAnswer.NOT_FOUND, "belong to one account"),
        *((answer, "The hourly run polls for it again until its provider answers") for answer in UNANSWERED),
        (LastAnswer.STILL_RUNNING, "There is no automatic retry. A later report"),
        (None, "There is no automatic retry. A later report"),
    ],
)
def test_the_next_step_of_a_timed_out_task_depends_on_the_providers_last_answer(
    answer: LastAnswer | None, remedy: str
) -> None:
    failure = Failure(reason=FailureReason.NO_RESULT, message="no callback came: answered 401", last_answer=answer)
    explanation = explained(a_task(TaskStatus.TIMED_OUT, failure=failure))

    assert explanation.reason == "Polling ended without a result. Its message: no callback came: answered 401"
    assert remedy in explanation.next_step


def test_the_hourly_run_does_not_poll_for_older_tasks() -> None:
    failure = Failure(reason=FailureReason.NO_RESULT, message="no callback came", last_answer=LastAnswer.NO_ANSWER)
    explanation = explained(a_task(TaskStatus.TIMED_OUT, 15 * DAY, failure=failure))

    assert explanation.next_step.startswith("There is no automatic retry.")


def test_the_end_of_polling_is_in_the_history() -> None:
    failure = Failure(reason=FailureReason.NO_RESULT, message="six hours")
    task = a_task(TaskStatus.TIMED_OUT, reported_at=iso(NOW), reported_by="poll", failure=failure)

    assert [event.description for event in explained(task).history] == ["registered", "polling ended without a result"]


def test_times_in_another_format_are_left_out() -> None:
    assert explained(a_task(TaskStatus.ARCHIVED, registered_at="yesterday", archived_at="")).history == ()
