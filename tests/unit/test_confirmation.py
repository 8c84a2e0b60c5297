"""The confirmation of a callback's result, for each answer of the provider and each concurrent change."""

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
    Task,
    TaskReport,
    TaskStatus,
)
from catchlight.tasks.confirmations import ConfirmationResult, Confirmations

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def image(name: str) -> Image:
    return Image(kind=ImageKind.RESULT, url=f"https://h.example/{name}", expires_at=NOW)


def a_task(*images: Image, by: Reporter = Reporter.CALLBACK, **more: Any) -> Task:
    return Task(task="acedata#t1", status=TaskStatus.SUCCEEDED, images=images, reported_by=by, **more)


def answer(status: TaskStatus = TaskStatus.SUCCEEDED, *images: Image, request: Any = None) -> TaskReport:
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


class World(Confirmations):
    """A provider with an answer, and a table whose task is `afterwards` after a correction, or has changed (None)."""

    def __init__(self, answered: TaskReport | None, *, afterwards: Task | None = None) -> None:
        self.answered, self.afterwards = answered, afterwards
        self.asked: list[str] = []
        self.corrections: list[tuple[Task, TaskReport]] = []

    def ask(self, key: str) -> TaskReport | None:
        self.asked.append(key)
        return self.answered

    def correct(self, task: Task, answer: TaskReport) -> Task | None:
        self.corrections.append((task, answer))
        return self.afterwards

    def check(self, task: Task) -> ConfirmationResult:
        provider: Any = self
        confirmation = CallbackConfirmation(self, provider)
        return confirmation.settle(task, confirmation.ask(task))


UNCONFIRMED = a_task(image("a"))
CORRECTED = a_task(image("b"), by=Reporter.POLL)


@pytest.mark.parametrize("task", [a_task(image("a"), by=Reporter.POLL), a_task(image("a"), confirmed_at="x")])
def test_a_result_from_the_provider_is_not_confirmed_again(task: Task) -> None:
    world = World(answer(TaskStatus.FAILED))

    assert world.check(task) == ConfirmationResult(task)
    assert world.asked == []


def test_without_an_api_key_the_task_stays_unchanged() -> None:
    assert World(None).check(UNCONFIRMED) == ConfirmationResult(UNCONFIRMED)


def test_still_running_is_no_contradiction() -> None:
    world = World(answer(TaskStatus.PENDING), afterwards=CORRECTED)

    with pytest.raises(UnconfirmedError, match="still reports the task as running"):
        world.check(UNCONFIRMED)
    assert world.corrections == []


@pytest.mark.parametrize(
    ("known", "answered", "together"),
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
def test_a_confirmed_result_is_noted_with_the_generation_request(
    known: GenerationRequest | None, answered: GenerationRequest | None, together: GenerationRequest | None
) -> None:
    task = a_task(image("a"), request=known)
    world = World(answer(TaskStatus.SUCCEEDED, image("a"), request=answered))

    checked = world.check(task)

    assert checked.task == task.model_copy(update={"confirmed_at": "2026-01-31T12:00:00.000Z", "request": together})
    assert (checked.was_asked, checked.is_contradicted, checked.known_request) == (True, False, known)
    assert (world.asked, world.corrections) == (["acedata#t1"], [])


@pytest.mark.parametrize(
    ("answered", "is_contradicted"),
    [
        (answer(TaskStatus.SUCCEEDED, image("b")), True),
        (answer(TaskStatus.FAILED), True),
        (answer(TaskStatus.SUCCEEDED, image("a"), image("b")), False),
        (answer(TaskStatus.SUCCEEDED, image("a?signed=again")), False),
    ],
)
def test_another_answer_corrects_the_task(answered: TaskReport, is_contradicted: bool) -> None:
    world = World(answered, afterwards=CORRECTED)

    assert world.check(UNCONFIRMED) == ConfirmationResult(CORRECTED, is_contradicted=is_contradicted, was_asked=True)
    assert world.corrections == [(UNCONFIRMED, answered)]


def test_a_task_that_changes_meanwhile_is_tried_again() -> None:
    with pytest.raises(UnconfirmedError, match="changed while its provider was asked"):
        World(answer(TaskStatus.FAILED), afterwards=None).check(UNCONFIRMED)


# ------------------------------------------------------------------------------------------------ failures, when polled

FAILED = Task(
    task="acedata#t1",
    status=TaskStatus.FAILED,
    failure=Failure(reason=FailureReason.INTERNAL),
    reported_by=Reporter.CALLBACK,
)


class Confirming(Confirmations):
    """A table that writes a confirmation, or refuses it because the task has changed."""

    def __init__(self, *, is_unchanged: bool) -> None:
        self.is_unchanged = is_unchanged

    def confirm(self, task: Task, answer: TaskReport) -> bool:
        return self.is_unchanged


def test_a_confirmed_failure_is_written_at_once() -> None:
    said = answer(TaskStatus.FAILED)

    settled = Confirming(is_unchanged=True).settle(FAILED, said)
    assert settled
    assert (settled.task.confirmed_at, settled.is_contradicted) == ("2026-01-31T12:00:00.000Z", False)

    assert Confirming(is_unchanged=False).settle(FAILED, said) is None
