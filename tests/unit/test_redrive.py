"""Redrive: the step that each task status requires, and the result that it returns."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from catchlight.errors import ProviderBusyError, StoreUnavailableError
from catchlight.models import Image, ImageKind, ImageState, Media, Reporter, SkippedOutput, TaskStatus
from catchlight.recovery.redrive import Redrive, Redriven, Step
from catchlight.tasks.task import Task

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TASK = "acedata#t1"


def image(name: str, state: ImageState = ImageState.PENDING) -> Image:
    reason = "a reason" if state in (ImageState.EXPIRED, ImageState.REJECTED) else None
    return Image(kind=ImageKind.RESULT, url=f"https://h.example/{name}", expires_at=NOW, state=state, reason=reason)


class Harness:
    """Replaces the table, the providers and AWS; `calls` are the calls that a redrive made."""

    def __init__(self, task: Task | None, fresh: Mapping[int, Image] | Exception | None = None) -> None:
        self.task = task
        self.fresh = fresh or {}
        self.is_unchanged = True
        self.calls: list[tuple[Any, ...]] = []

    def get(self, key: str) -> Task | None:
        if isinstance(self.task, Exception):
            raise self.task
        return self.task if key == TASK else None

    def replace(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> bool:
        self.calls.append(("renew", {index: (image.url, image.state) for index, image in images.items()}, now))
        assert all(image.reason is None for image in images.values())
        return self.is_unchanged

    def reopen(self, task: Task, *, now: datetime) -> bool:
        self.calls.append(("restart", task.task, now))
        return self.is_unchanged

    def search_again(self, task: Task) -> bool:
        self.calls.append(("search_again", task.task))
        return self.is_unchanged

    def find(self, task: Task, stale: Any) -> Mapping[int, Image]:
        self.calls.append(("find", list(stale)))
        if isinstance(self.fresh, Exception):
            raise self.fresh
        return self.fresh

    def queue_archiving(self, tasks: list[str], *, nonce: str) -> None:
        self.calls.append(("queue", tasks, nonce))

    def start_polling(self, tasks: list[str], *, name: str) -> None:
        self.calls.append(("start_polling", tasks, name))

    def redrive(self) -> Redrive:
        parts: Any = self
        redrive = Redrive(parts, parts, parts, now=lambda: NOW)
        redrive._images = redrive._restarts = parts
        return redrive

    def run(self, key: str = TASK, nonce: str = "run-1") -> Redriven:
        return self.redrive().redrive(key, nonce=nonce)


def a_task(status: TaskStatus, *images: Image, reported_by: Reporter | None = None) -> Task:
    return Task(task=TASK, status=status, images=images, reported_by=reported_by)


PLANS: list[tuple[Task | None, Step, str]] = [
    (None, Step.NOTHING, "the task no longer exists"),
    (a_task(TaskStatus.PENDING), Step.POLL, ""),
    (a_task(TaskStatus.TIMED_OUT), Step.RESTART, ""),
    (
        a_task(TaskStatus.INCOMPLETE, image("o", ImageState.ARCHIVED).model_copy(update={"kind": ImageKind.ORIGIN})),
        Step.RESTART,
        "its provider has reported no result",
    ),
    (a_task(TaskStatus.FAILED), Step.NOTHING, "the provider confirmed the failure"),
    (a_task(TaskStatus.FAILED, reported_by=Reporter.CALLBACK), Step.POLL, "its failure is unconfirmed"),
    (a_task(TaskStatus.FAILED, reported_by=Reporter.POLL), Step.NOTHING, "the provider confirmed the failure"),
    (a_task(TaskStatus.SUCCEEDED), Step.ARCHIVE, ""),
    (a_task(TaskStatus.INCOMPLETE), Step.REOPEN, ""),
    (a_task(TaskStatus.ARCHIVED), Step.NOTHING, "all images are archived"),
]


@pytest.mark.parametrize(("task", "step", "detail"), PLANS)
def test_the_status_determines_the_plan_and_planning_changes_nothing(
    task: Task | None, step: Step, detail: str
) -> None:
    harness = Harness(task)

    plan = harness.redrive().plan(TASK)

    assert plan == Redriven(task=TASK, status=task.status if task else None, step=step, detail=detail)
    assert harness.calls == []


@pytest.mark.parametrize("key", ["t1", "acedata#", "#submission#key"])
def test_invalid_task_keys_are_reported_and_not_redriven(key: str) -> None:
    harness = Harness(a_task(TaskStatus.PENDING))

    assert harness.redrive().plan(key) == harness.run(key)
    assert harness.run(key) == Redriven(
        task=key, status=None, step=Step.NOTHING, detail="not a task key: expected provider#taskId"
    )
    assert harness.calls == []


@pytest.mark.parametrize(("task", "step", "detail"), [plan for plan in PLANS if plan[1] is Step.NOTHING])
def test_tasks_that_need_no_redrive_are_not_changed(task: Task | None, step: Step, detail: str) -> None:
    harness = Harness(task)

    assert harness.run() == harness.redrive().plan(TASK)
    assert harness.calls == []


def test_an_incomplete_task_without_images_is_not_redriven() -> None:
    task = a_task(TaskStatus.INCOMPLETE).model_copy(update={"skipped": (SkippedOutput(media=Media.VIDEO),)})
    harness = Harness(task)

    redriven = harness.run()

    assert (redriven.step, redriven.detail) == (Step.NOTHING, "the provider returned no image")
    assert harness.calls == []


def test_polling_of_a_timed_out_task_is_restarted() -> None:
    harness = Harness(a_task(TaskStatus.TIMED_OUT))

    assert harness.run().is_failed is False
    assert harness.calls == [("restart", TASK, NOW)]


def test_polling_starts_under_a_name_derived_from_the_nonce() -> None:
    harness = Harness(a_task(TaskStatus.PENDING))

    for nonce in ("run-1", "run-1", "run-2"):
        assert harness.run(nonce=nonce).step is Step.POLL

    names = [call[2] for call in harness.calls]
    assert [call[:2] for call in harness.calls] == [("start_polling", [TASK])] * 3
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("redrive-") and len(name) == 48 for name in names)


def test_a_task_is_queued_with_all_missing_images_pending_and_with_fresh_urls() -> None:
    states = (ImageState.ARCHIVED, ImageState.PENDING, ImageState.EXPIRED, ImageState.REJECTED)
    task = a_task(TaskStatus.SUCCEEDED, *(image(state.lower(), state) for state in states))
    harness = Harness(task, fresh={2: image("fresh")})

    redriven = harness.run()

    assert (redriven.fresh_urls, redriven.detail, redriven.is_failed, redriven.status) == (
        1,
        "",
        False,
        TaskStatus.SUCCEEDED,
    )
    pending = ImageState.PENDING
    renewed = {2: ("https://h.example/fresh", pending), 3: ("https://h.example/rejected", pending)}
    assert harness.calls == [("find", [1, 2, 3]), ("renew", renewed, NOW), ("queue", [TASK], "run-1")]


def test_a_task_without_fresh_urls_is_queued_unchanged() -> None:
    harness = Harness(a_task(TaskStatus.SUCCEEDED, image("a")))

    assert harness.run().is_failed is False
    assert harness.calls == [("find", [0]), ("queue", [TASK], "run-1")]


def test_an_incomplete_task_is_reopened_and_not_queued_directly() -> None:
    harness = Harness(a_task(TaskStatus.INCOMPLETE, image("a", ImageState.ARCHIVED), image("b", ImageState.EXPIRED)))

    assert harness.run().step is Step.REOPEN
    assert harness.calls == [("find", [1]), ("renew", {1: ("https://h.example/b", ImageState.PENDING)}, NOW)]


def test_a_task_is_redriven_with_its_old_urls_if_the_provider_returns_none() -> None:
    harness = Harness(a_task(TaskStatus.INCOMPLETE, image("b", ImageState.EXPIRED)), fresh=ProviderBusyError("busy"))

    redriven = harness.run()

    assert (redriven.is_failed, redriven.fresh_urls) == (False, 0)
    assert redriven.detail == "fresh URLs could not be requested: busy"
    assert [call[0] for call in harness.calls] == ["find", "renew"]


@pytest.mark.parametrize(
    "task",
    [a_task(TaskStatus.TIMED_OUT), a_task(TaskStatus.SUCCEEDED, image("a", ImageState.EXPIRED))],
    ids=lambda task: task.status,
)
def test_a_concurrent_change_is_reported_and_the_task_is_not_redriven(task: Task) -> None:
    harness = Harness(task)
    harness.is_unchanged = False

    redriven = harness.run()

    assert (redriven.is_failed, redriven.detail) == (True, "the task has changed meanwhile")
    assert redriven.status is task.status
    assert "queue" not in [call[0] for call in harness.calls]


def test_an_error_is_reported_with_its_task() -> None:
    harness = Harness(None)
    harness.task = StoreUnavailableError("DynamoDB did not answer")  # type: ignore[assignment] # raised by `get`

    assert harness.run() == Redriven(
        task=TASK, status=None, step=Step.NOTHING, detail="DynamoDB did not answer", is_failed=True
    )
    with pytest.raises(StoreUnavailableError):
        harness.redrive().plan(TASK)


def test_polling_starts_again_for_a_task_that_the_provider_did_not_know() -> None:
    task = Task(
        task=TASK, status=TaskStatus.UNCONFIRMED, reported_by=Reporter.CALLBACK, not_found_at="2026-01-31T11:00Z"
    )
    harness = Harness(task)

    assert not harness.run().is_failed
    assert [name for name, *_ in harness.calls] == ["search_again", "start_polling"]

    changed = Harness(task)
    changed.is_unchanged = False
    assert changed.run().is_failed
    assert [name for name, *_ in changed.calls] == ["search_again"]
