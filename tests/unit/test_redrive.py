"""What a redrive does for each status, and what its result says."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from catchlight.errors import ProviderBusyError, StoreUnavailableError
from catchlight.models import Image, ImageKind, ImageState, Media, Reporter, SkippedOutput, Task, TaskStatus
from catchlight.recovery.redrive import Redrive, Redriven, Step

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TASK = "acedata#t1"


def image(name: str, state: ImageState = ImageState.PENDING) -> Image:
    reason = "words" if state in (ImageState.EXPIRED, ImageState.REJECTED) else None
    return Image(kind=ImageKind.RESULT, url=f"https://h.example/{name}", expires_at=NOW, state=state, reason=reason)


class World:
    """The table, the providers and AWS, as a redrive uses them; `done` is the list of its calls."""

    def __init__(self, task: Task | None, fresh: Mapping[int, Image] | Exception | None = None) -> None:
        self.task = task
        self.fresh = fresh or {}
        self.is_unchanged = True
        self.done: list[tuple[Any, ...]] = []

    def get(self, key: str) -> Task | None:
        if isinstance(self.task, Exception):
            raise self.task
        return self.task if key == TASK else None

    def replace(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> bool:
        self.done.append(("renew", {index: (image.url, image.state) for index, image in images.items()}, now))
        assert all(image.reason is None for image in images.values())
        return self.is_unchanged

    def reopen(self, task: Task, *, now: datetime) -> bool:
        self.done.append(("restart", task.task, now))
        return self.is_unchanged

    def search_again(self, task: Task) -> bool:
        self.done.append(("search again", task.task))
        return self.is_unchanged

    def find(self, task: Task, stale: Any) -> Mapping[int, Image]:
        self.done.append(("find", list(stale)))
        if isinstance(self.fresh, Exception):
            raise self.fresh
        return self.fresh

    def queue_archiving(self, tasks: list[str], *, nonce: str) -> None:
        self.done.append(("queue", tasks, nonce))

    def start_polling(self, tasks: list[str], *, name: str) -> None:
        self.done.append(("poll", tasks, name))

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
def test_a_plan_follows_from_the_status_and_does_nothing(task: Task | None, step: Step, detail: str) -> None:
    world = World(task)

    plan = world.redrive().plan(TASK)

    assert plan == Redriven(task=TASK, status=task.status if task else None, step=step, detail=detail)
    assert world.done == []


@pytest.mark.parametrize("key", ["t1", "acedata#", "#submission#key"])
def test_what_is_no_task_key_needs_nothing(key: str) -> None:
    world = World(a_task(TaskStatus.PENDING))

    assert world.redrive().plan(key) == world.run(key)
    assert world.run(key) == Redriven(
        task=key, status=None, step=Step.NOTHING, detail="not a task key: expected provider#taskId"
    )
    assert world.done == []


@pytest.mark.parametrize(("task", "step", "detail"), [plan for plan in PLANS if plan[1] is Step.NOTHING])
def test_a_task_that_needs_nothing_is_not_touched(task: Task | None, step: Step, detail: str) -> None:
    world = World(task)

    assert world.run() == world.redrive().plan(TASK)
    assert world.done == []


def test_a_task_without_images_is_not_tried_again() -> None:
    task = a_task(TaskStatus.INCOMPLETE).model_copy(update={"skipped": (SkippedOutput(media=Media.VIDEO),)})
    world = World(task)

    redriven = world.run()

    assert (redriven.step, redriven.detail) == (Step.NOTHING, "the provider returned no image")
    assert world.done == []


def test_a_task_that_was_given_up_is_restarted() -> None:
    world = World(a_task(TaskStatus.TIMED_OUT))

    assert world.run().is_failed is False
    assert world.done == [("restart", TASK, NOW)]


def test_polling_starts_at_once_under_a_name_of_this_run() -> None:
    world = World(a_task(TaskStatus.PENDING))

    for nonce in ("run-1", "run-1", "run-2"):
        assert world.run(nonce=nonce).step is Step.POLL

    names = [call[2] for call in world.done]
    assert [call[:2] for call in world.done] == [("poll", [TASK])] * 3
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("redrive-") and len(name) == 48 for name in names)


def test_a_task_is_queued_with_all_its_missing_images_pending_and_fresh() -> None:
    states = (ImageState.ARCHIVED, ImageState.PENDING, ImageState.EXPIRED, ImageState.REJECTED)
    task = a_task(TaskStatus.SUCCEEDED, *(image(state.lower(), state) for state in states))
    world = World(task, fresh={2: image("fresh")})

    done = world.run()

    assert (done.fresh_urls, done.detail, done.is_failed, done.status) == (1, "", False, TaskStatus.SUCCEEDED)
    pending = ImageState.PENDING
    renewed = {2: ("https://h.example/fresh", pending), 3: ("https://h.example/rejected", pending)}
    assert world.done == [("find", [1, 2, 3]), ("renew", renewed, NOW), ("queue", [TASK], "run-1")]


def test_a_task_without_anything_to_renew_is_queued_as_it_is() -> None:
    world = World(a_task(TaskStatus.SUCCEEDED, image("a")))

    assert world.run().is_failed is False
    assert world.done == [("find", [0]), ("queue", [TASK], "run-1")]


def test_an_incomplete_task_is_opened_again_and_queued_by_the_stream() -> None:
    world = World(a_task(TaskStatus.INCOMPLETE, image("a", ImageState.ARCHIVED), image("b", ImageState.EXPIRED)))

    assert world.run().step is Step.REOPEN
    assert world.done == [("find", [1]), ("renew", {1: ("https://h.example/b", ImageState.PENDING)}, NOW)]


def test_a_provider_that_gives_no_fresh_urls_is_no_obstacle() -> None:
    world = World(a_task(TaskStatus.INCOMPLETE, image("b", ImageState.EXPIRED)), fresh=ProviderBusyError("busy"))

    done = world.run()

    assert (done.is_failed, done.fresh_urls) == (False, 0)
    assert done.detail == "fresh URLs could not be requested: busy"
    assert [call[0] for call in world.done] == ["find", "renew"]


@pytest.mark.parametrize(
    "task",
    [a_task(TaskStatus.TIMED_OUT), a_task(TaskStatus.SUCCEEDED, image("a", ImageState.EXPIRED))],
    ids=lambda task: task.status,
)
def test_a_task_that_has_changed_meanwhile_is_reported_and_left_alone(task: Task) -> None:
    world = World(task)
    world.is_unchanged = False

    done = world.run()

    assert (done.is_failed, done.detail) == (True, "the task has changed meanwhile")
    assert done.status is task.status
    assert "queue" not in [call[0] for call in world.done]


def test_a_fault_is_reported_with_its_task() -> None:
    world = World(None)
    world.task = StoreUnavailableError("DynamoDB did not answer")  # type: ignore[assignment] # raised by `get`

    assert world.run() == Redriven(
        task=TASK, status=None, step=Step.NOTHING, detail="DynamoDB did not answer", is_failed=True
    )
    with pytest.raises(StoreUnavailableError):
        world.redrive().plan(TASK)


def test_a_task_that_its_provider_did_not_know_is_searched_again() -> None:
    task = Task(
        task=TASK, status=TaskStatus.UNCONFIRMED, reported_by=Reporter.CALLBACK, not_found_at="2026-01-31T11:00Z"
    )
    world = World(task)

    assert not world.run().is_failed
    assert [what for what, *_ in world.done] == ["search again", "poll"]

    changed = World(task)
    changed.is_unchanged = False
    assert changed.run().is_failed
    assert [what for what, *_ in changed.done] == ["search again"]
