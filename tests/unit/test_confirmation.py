"""What an archiver does with a callback's result: each answer of the provider, and each change meanwhile."""

from datetime import UTC, datetime
from typing import Any

import pytest

from catchlight.archiving.confirmation import Confirmation, ConfirmationResult
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


class World:
    """A provider with an answer, and a table that takes a correction, or does not, and has a task afterwards."""

    def __init__(self, told: TaskReport | None, *, is_corrected: bool = True, afterwards: Task | None = None) -> None:
        self.told, self.is_corrected, self.afterwards = told, is_corrected, afterwards
        self.asked: list[str] = []
        self.corrections: list[tuple[Task, TaskReport]] = []

    def ask(self, key: str) -> TaskReport | None:
        self.asked.append(key)
        return self.told

    def correct(self, claimed: Task, told: TaskReport) -> bool:
        self.corrections.append((claimed, told))
        return self.is_corrected

    def get(self, key: str) -> Task | None:
        assert key == "acedata#t1"
        return self.afterwards

    def check(self, task: Task, *, is_last_try: bool = False) -> ConfirmationResult:
        parts: Any = self
        return Confirmation(parts, parts).check(task, is_last_try=is_last_try)


CLAIM = a_task(image("a"))
CORRECTED = a_task(image("b"), by=Reporter.POLL)


@pytest.mark.parametrize("task", [a_task(image("a"), by=Reporter.POLL), a_task(image("a"), confirmed_at="x")])
def test_what_the_provider_has_said_is_not_asked_again(task: Task) -> None:
    world = World(answer(TaskStatus.FAILED))

    assert world.check(task) == ConfirmationResult(task)
    assert world.asked == []


@pytest.mark.parametrize("is_last_try", [False, True])
def test_what_cannot_be_asked_stays_as_it_is(is_last_try: bool) -> None:
    assert World(None).check(CLAIM, is_last_try=is_last_try) == ConfirmationResult(CLAIM)


def test_still_running_is_no_contradiction_before_the_last_try() -> None:
    world = World(answer(TaskStatus.PENDING), afterwards=CORRECTED)

    with pytest.raises(UnconfirmedError, match="does not confirm the callback's result yet"):
        world.check(CLAIM)
    assert world.corrections == []

    assert world.check(CLAIM, is_last_try=True) == ConfirmationResult(CORRECTED, is_contradicted=True, was_asked=True)
    assert world.corrections == [(CLAIM, world.told)]


@pytest.mark.parametrize(
    ("known", "told", "together"),
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
def test_a_confirmed_result_is_noted_with_what_was_asked(
    known: GenerationRequest | None, told: GenerationRequest | None, together: GenerationRequest | None
) -> None:
    task = a_task(image("a"), request=known)
    world = World(answer(TaskStatus.SUCCEEDED, image("a"), request=told))

    checked = world.check(task)

    assert checked.task == task.model_copy(update={"confirmed_at": "2026-01-31T12:00:00.000Z", "request": together})
    assert (checked.was_asked, checked.is_contradicted, checked.known_request) == (True, False, known)
    assert (world.asked, world.corrections) == (["acedata#t1"], [])


@pytest.mark.parametrize(
    ("told", "is_contradicted"),
    [
        (answer(TaskStatus.SUCCEEDED, image("b")), True),
        (answer(TaskStatus.FAILED), True),
        (answer(TaskStatus.SUCCEEDED, image("a"), image("b")), False),
        (answer(TaskStatus.SUCCEEDED, image("a?signed=anew")), False),
    ],
)
def test_another_answer_corrects_the_task(told: TaskReport, is_contradicted: bool) -> None:
    world = World(told, afterwards=CORRECTED)

    assert world.check(CLAIM) == ConfirmationResult(CORRECTED, is_contradicted=is_contradicted, was_asked=True)
    assert world.corrections == [(CLAIM, told)]


@pytest.mark.parametrize(
    ("is_corrected", "afterwards", "reason"),
    [
        (False, CORRECTED, "changed while its provider was asked"),
        (True, None, "changed after its correction"),
        (True, a_task(image("c")), "changed after its correction"),
    ],
)
def test_a_task_that_changes_meanwhile_is_tried_again(is_corrected: bool, afterwards: Task | None, reason: str) -> None:
    with pytest.raises(UnconfirmedError, match=reason):
        World(answer(TaskStatus.FAILED), is_corrected=is_corrected, afterwards=afterwards).check(CLAIM)
