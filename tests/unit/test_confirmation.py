"""CallbackConfirmation: a callback's result is compared with the provider's report."""

from datetime import UTC, datetime
from typing import Any

import pytest

from catchlight.archiving.confirmation import CallbackConfirmation
from catchlight.errors import UnconfirmedError
from catchlight.models import (
    Failure,
    FailureReason,
    GenerationRequest,
    Image,
    ImageKind,
    Reporter,
    TaskReport,
    TaskStatus,
)
from catchlight.tasks.confirmations import ConfirmationResult, Confirmations
from catchlight.tasks.task import Task

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def image(name: str) -> Image:
    return Image(kind=ImageKind.RESULT, url=f"https://h.example/{name}", expires_at=NOW)


def a_task(*images: Image, by: Reporter = Reporter.CALLBACK, **more: Any) -> Task:
    return Task(task="acedata#t1", status=TaskStatus.SUCCEEDED, images=images, reported_by=by, **more)


def provider_report(status: TaskStatus = TaskStatus.SUCCEEDED, *images: Image, request: Any = None) -> TaskReport:
    return TaskReport(
        provider="acedata",
        task_id="t1",
        status=status,
        reported_by=Reporter.POLL,
        reported_at=NOW,
        images=images,
        failure=Failure(reason=FailureReason.INTERNAL) if status is TaskStatus.FAILED else None,
        request=request,
    )


class Harness(Confirmations):
    """A provider that reports `reported`; a correction returns `afterwards`, or None if the task has changed."""

    def __init__(self, reported: TaskReport | None, *, afterwards: Task | None = None) -> None:
        self.reported, self.afterwards = reported, afterwards
        self.polled_keys: list[str] = []
        self.corrections: list[tuple[Task, TaskReport]] = []

    def request_status(self, key: str) -> TaskReport | None:
        self.polled_keys.append(key)
        return self.reported

    def correct(self, task: Task, answer: TaskReport) -> Task | None:
        self.corrections.append((task, answer))
        return self.afterwards

    def check(self, task: Task) -> ConfirmationResult:
        provider: Any = self
        confirmation = CallbackConfirmation(self, provider)
        return confirmation.settle(task, confirmation.request_status(task))


UNCONFIRMED = a_task(image("a"))
CORRECTED = a_task(image("b"), by=Reporter.POLL)


@pytest.mark.parametrize("task", [a_task(image("a"), by=Reporter.POLL), a_task(image("a"), confirmed_at="x")])
def test_a_result_from_the_provider_is_not_confirmed_again(task: Task) -> None:
    harness = Harness(provider_report(TaskStatus.FAILED))

    assert harness.check(task) == ConfirmationResult(task)
    assert harness.polled_keys == []


def test_without_an_api_key_the_task_is_not_confirmed_and_not_changed() -> None:
    assert Harness(None).check(UNCONFIRMED) == ConfirmationResult(UNCONFIRMED)


def test_a_task_that_still_runs_at_the_provider_is_not_contradicted() -> None:
    harness = Harness(provider_report(TaskStatus.PENDING), afterwards=CORRECTED)

    with pytest.raises(UnconfirmedError, match="still reports the task as running"):
        harness.check(UNCONFIRMED)
    assert harness.corrections == []


@pytest.mark.parametrize(
    ("known", "reported", "merged"),
    [
        (None, None, None),
        (GenerationRequest(prompt="a"), None, GenerationRequest(prompt="a")),
        (None, GenerationRequest(seeds=(7,)), GenerationRequest(seeds=(7,))),
        (
            GenerationRequest(prompt="a"),
            GenerationRequest(prompt="b", seeds=(7,)),
            GenerationRequest(prompt="a", seeds=(7,)),
        ),
    ],
)
def test_a_confirmed_result_is_returned_with_the_merged_generation_request(
    known: GenerationRequest | None, reported: GenerationRequest | None, merged: GenerationRequest | None
) -> None:
    task = a_task(image("a"), request=known)
    harness = Harness(provider_report(TaskStatus.SUCCEEDED, image("a"), request=reported))

    checked = harness.check(task)

    assert checked.task == task.model_copy(update={"confirmed_at": "2026-01-31T12:00:00.000Z", "request": merged})
    assert (checked.was_status_requested, checked.is_contradicted, checked.known_request) == (True, False, known)
    assert (harness.polled_keys, harness.corrections) == (["acedata#t1"], [])


@pytest.mark.parametrize(
    ("reported", "is_contradicted"),
    [
        (provider_report(TaskStatus.SUCCEEDED, image("b")), True),
        (provider_report(TaskStatus.FAILED), True),
        (provider_report(TaskStatus.SUCCEEDED, image("a"), image("b")), False),
        (provider_report(TaskStatus.SUCCEEDED, image("a?signed=again")), False),
    ],
)
def test_a_different_result_from_the_provider_corrects_the_task(reported: TaskReport, is_contradicted: bool) -> None:
    harness = Harness(reported, afterwards=CORRECTED)

    assert harness.check(UNCONFIRMED) == ConfirmationResult(
        CORRECTED, is_contradicted=is_contradicted, was_status_requested=True
    )
    assert harness.corrections == [(UNCONFIRMED, reported)]


def test_after_a_concurrent_change_the_confirmation_is_retried() -> None:
    with pytest.raises(UnconfirmedError, match="changed during the request to its provider"):
        Harness(provider_report(TaskStatus.FAILED), afterwards=None).check(UNCONFIRMED)


# ------------------------------------------------------------------------------------------------ confirmed failures

FAILED = Task(
    task="acedata#t1",
    status=TaskStatus.FAILED,
    failure=Failure(reason=FailureReason.INTERNAL),
    reported_by=Reporter.CALLBACK,
)


class Confirming(Confirmations):
    """A table that writes a confirmation if the task is unchanged."""

    def __init__(self, *, is_unchanged: bool) -> None:
        self.is_unchanged = is_unchanged

    def confirm(self, task: Task, answer: TaskReport) -> bool:
        return self.is_unchanged


def test_a_confirmed_failure_is_written_immediately() -> None:
    report = provider_report(TaskStatus.FAILED)

    settled = Confirming(is_unchanged=True).settle(FAILED, report)
    assert settled
    assert (settled.task.confirmed_at, settled.is_contradicted) == ("2026-01-31T12:00:00.000Z", False)

    assert Confirming(is_unchanged=False).settle(FAILED, report) is None
