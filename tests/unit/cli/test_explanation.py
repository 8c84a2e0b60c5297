"""What is said of a task, for each place where it may stand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchlight.models import Failure, FailureReason, Image, Task, TaskStatus, iso
from catchlight_cli.health.archive_log import FailedTry
from catchlight_cli.health.explanation import DeadLetter, Explanation, explain
from catchlight_cli.health.polling_executions import PollingExecution, Search

NOW = datetime(2026, 1, 6, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LETTER = DeadLetter(id="1", since=NOW)
NOBODY = Search(executions=(), is_exhaustive=True)


def a_task(status: TaskStatus, age: timedelta = timedelta(minutes=1), **attributes: Any) -> Task:
    changed = iso(NOW - age)
    values = {"task": "acedata#1", "status": status, "registered_at": changed, "updated_at": changed, **attributes}
    return Task.model_validate(values)


def polled(seconds: float | None) -> Search:
    at = None if seconds is None else NOW + timedelta(seconds=seconds)
    return Search(executions=(PollingExecution(name="x-1", started_at=NOW, polls_next_at=at),), is_exhaustive=True)


def explained(
    task: Task,
    polling: Search | None = None,
    dead_letters: tuple[DeadLetter, ...] = (),
    tries: tuple[FailedTry, ...] = (),
) -> Explanation:
    return explain(
        task, polling=polling, dead_letters=dead_letters, failed_tries=tries, longest_polling=7 * HOUR, now=NOW
    )


def image(state: str, **more: Any) -> Image:
    values = {"kind": "result", "url": "https://x.example/1", "expiresAt": NOW + HOUR, "state": state, **more}
    return Image.model_validate(values)


@pytest.mark.parametrize(
    ("task", "polling", "dead_letters", "says"),
    [
        (a_task(TaskStatus.PENDING), polled(12), (), "Polled next in 12 s, by execution x-1."),
        (a_task(TaskStatus.PENDING), polled(-1), (), "It is being polled for, by execution x-1."),
        (a_task(TaskStatus.PENDING), polled(None), (), "It is being polled for, by execution x-1."),
        (a_task(TaskStatus.PENDING), NOBODY, (), "after 6 h 59 min, `catchlight redrive` with its id does so now."),
        (a_task(TaskStatus.PENDING), Search(executions=(), is_exhaustive=False), (), "too many executions"),
        (a_task(TaskStatus.PENDING, 8 * HOUR), NOBODY, (), "`catchlight reconcile` does so now."),
        (a_task(TaskStatus.PENDING, updated_at=None), NOBODY, (), "has no updatedAt"),
        (a_task(TaskStatus.SUCCEEDED), None, (), "Its images are being archived"),
        (a_task(TaskStatus.SUCCEEDED), None, (LETTER,), "among the dead letters: `catchlight redrive`"),
        (a_task(TaskStatus.SUCCEEDED, 2 * HOUR), None, (), "It has waited for 2 h: nobody archives it"),
        (a_task(TaskStatus.TIMED_OUT), None, (), "`catchlight redrive` with its id starts polling anew."),
        (a_task(TaskStatus.INCOMPLETE), None, (), "asks for fresh URLs and tries once more."),
        (a_task(TaskStatus.FAILED, reported_by="callback"), None, (), "rests on a callback alone"),
        (a_task(TaskStatus.FAILED, reported_by="poll"), None, (), "A success that comes later is still taken."),
        (a_task(TaskStatus.ARCHIVED), None, (), "this is the end"),
        # Archived meanwhile: the letter is of no account.
        (a_task(TaskStatus.ARCHIVED), None, (LETTER,), "this is the end"),
    ],
)
def test_what_happens_next(task: Task, polling: Search | None, dead_letters: tuple[DeadLetter, ...], says: str) -> None:
    assert says in explained(task, polling, dead_letters).next


@pytest.mark.parametrize("reason", FailureReason)
def test_every_failure_is_told_in_words(reason: FailureReason) -> None:
    why = explained(a_task(TaskStatus.FAILED, failure=Failure(reason=reason, code="400", message="no"))).why

    assert why[0].isupper()
    assert why.endswith(". (code 400) It said: no")


def test_images_that_were_given_up_say_why() -> None:
    images = (image("ARCHIVED"), image("EXPIRED", reason="the server answers 403"), image("REJECTED", reason="a page"))

    why = explained(a_task(TaskStatus.INCOMPLETE, images=images)).why

    assert why == "result image EXPIRED: the server answers 403; result image REJECTED: a page"


def test_failed_tries_are_told() -> None:
    tries = tuple(FailedTry(at=NOW - HOUR / each, reason=f"reason {each}") for each in (2, 4))

    told = explained(a_task(TaskStatus.SUCCEEDED, HOUR), tries=tries)

    assert told.why.endswith("The last try: reason 4.")
    assert [event.what for event in told.history] == ["registered", "not archived: reason 2", "not archived: reason 4"]


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.SUCCEEDED, TaskStatus.ARCHIVED])
def test_other_statuses_have_a_reason_too(status: TaskStatus) -> None:
    assert explained(a_task(status)).why


def test_history_is_told_in_its_order() -> None:
    task = a_task(
        TaskStatus.SUCCEEDED,
        registered_at=iso(NOW - 3 * HOUR),
        reported_at=iso(NOW - 2 * HOUR),
        reported_by="callback",
        confirmed_at=iso(NOW - HOUR),
        reconciled_at=iso(NOW),
        images=(image("PENDING"), image("ARCHIVED", archivedAt=NOW - HOUR / 2, key="images/1")),
    )

    assert [(event.at, event.what) for event in explained(task).history] == [
        (NOW - 3 * HOUR, "registered"),
        (NOW - 2 * HOUR, "its callback brought a result of 2 images"),
        (NOW - HOUR, "the service confirmed what the callback had said"),
        (NOW - HOUR / 2, "result image archived as images/1"),
        (NOW, "nobody worked on it any more: its work was started again"),
    ]


def test_giving_up_is_told_as_that() -> None:
    failure = Failure(reason=FailureReason.NO_NEWS, message="six hours")
    task = a_task(TaskStatus.TIMED_OUT, reported_at=iso(NOW), reported_by="poll", failure=failure)

    assert [event.what for event in explained(task).history] == ["registered", "polling gave up"]


def test_times_that_somebody_wrote_by_hand_are_left_out() -> None:
    assert explained(a_task(TaskStatus.ARCHIVED, registered_at="yesterday", archived_at="")).history == ()
