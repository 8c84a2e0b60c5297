"""How many requests wait at the same time: each holds a slot, and those without a slot are answered at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import pytest

from catchlight.api.tasks_api import BUSY_RETRY_SECONDS
from catchlight.api.wait_slots import SLOT_TIME, WaitSlots
from catchlight.errors import StoreUnavailableError
from functions.serve_tasks_api import app
from tests.integration.conftest import Store
from tests.integration.tasks_api.api_harness import Clock, TasksApiHarness, lost
from tests.unit.template.expanded import FUNCTIONS

PATH = "/tasks/flux-kontext/task12345"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch, api: TasksApiHarness) -> list[float]:
    """The pauses of a waiting request; they take no time in tests."""
    made: list[float] = []
    monkeypatch.setattr(app.dependencies().api.queries, "_sleep", made.append)
    monkeypatch.setattr(app.dependencies().api.queries, "_clock", lambda: sum(made))
    return made


@pytest.fixture
def slots(store: Store, clock: Clock) -> WaitSlots:
    return WaitSlots(store.table, 2, now=clock)


@pytest.fixture
def others(slots: WaitSlots) -> Iterator[ExitStack]:
    """Two other requests that wait until the stack is closed."""
    with ExitStack() as stack:
        assert stack.enter_context(slots.slot())
        assert stack.enter_context(slots.slot())
        yield stack


@pytest.mark.usefixtures("others")
def test_a_request_beyond_the_limit_is_answered_at_once(api: TasksApiHarness, pauses: list[float]) -> None:
    api.register("task12345")

    answer = api.ask("GET", PATH, query={"wait": 20})

    assert (answer.status, answer.body["done"], pauses) == (200, False, [])
    assert answer.headers["retry-after"] == str(BUSY_RETRY_SECONDS)


def test_a_slot_is_free_after_its_request(api: TasksApiHarness, pauses: list[float], others: ExitStack) -> None:
    api.register("task12345")
    others.close()

    for count in (1, 2, 3):
        answer = api.ask("GET", PATH, query={"wait": 20})

        assert "retry-after" not in answer.headers
        assert sum(pauses) == 20 * count


@pytest.mark.usefixtures("others")
def test_the_slot_of_a_request_that_was_stopped_becomes_free(slots: WaitSlots, clock: Clock) -> None:
    clock.pass_by(seconds=SLOT_TIME.total_seconds() - 1)
    with slots.slot() as may_wait:
        assert not may_wait
    clock.pass_by(seconds=2)
    with slots.slot() as may_wait:
        assert may_wait


def test_a_slot_is_held_until_its_function_has_ended() -> None:
    assert SLOT_TIME.total_seconds() > FUNCTIONS["ServeTasksApiFunction"]["Timeout"]


def test_a_late_release_leaves_the_slot_to_its_next_holder(store: Store, clock: Clock) -> None:
    one = WaitSlots(store.table, 1, now=clock)
    with one.slot():
        clock.pass_by(seconds=SLOT_TIME.total_seconds() + 1)
        next_holder = one.slot()
        assert next_holder.__enter__()
    with one.slot() as may_wait:
        assert not may_wait


@pytest.mark.parametrize("query", [{}, {"wait": 0}])
@pytest.mark.usefixtures("others")
def test_a_request_that_does_not_wait_needs_no_slot(api: TasksApiHarness, query: dict[str, Any]) -> None:
    api.register("task12345")

    assert "retry-after" not in api.ask("GET", PATH, query=query).headers


@pytest.mark.usefixtures("others")
def test_a_task_that_is_done_needs_no_slot(api: TasksApiHarness) -> None:
    api.store.put("flux-kontext#task12345", status="FAILED")

    answer = api.ask("GET", PATH, query={"wait": 20})

    assert answer.body["done"]
    assert "retry-after" not in answer.headers


def test_without_slots_no_request_waits(
    api: TasksApiHarness, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.dependencies().api.wait_slots, "_count", 0)
    api.register("task12345")

    assert api.ask("GET", PATH, query={"wait": 20}).headers["retry-after"] == str(BUSY_RETRY_SECONDS)
    assert pauses == []


def test_a_slot_that_cannot_be_released_does_not_cost_the_answer(
    store: Store, slots: WaitSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slots.slot() as may_wait:
        assert may_wait
        monkeypatch.setattr(store.client, "update_item", lost(store.client.update_item, arrives=False))


def test_a_table_that_fails_is_not_waited_at(store: Store, slots: WaitSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.client, "update_item", lost(store.client.update_item, arrives=False))

    with pytest.raises(StoreUnavailableError), slots.slot():
        pytest.fail("it waited")


def test_requests_at_once_share_the_slots(slots: WaitSlots) -> None:
    number = 8
    have_tried = Barrier(number)

    def wait(_: int) -> bool:
        with slots.slot() as may_wait:
            have_tried.wait(60)
            return may_wait

    with ThreadPoolExecutor(number) as pool:
        assert sum(pool.map(wait, range(number))) == 2


@pytest.mark.usefixtures("others")
def test_a_slot_is_no_task(api: TasksApiHarness) -> None:
    assert api.ask("GET", "/tasks").body == {"tasks": [], "unreadable": []}
    assert api.tasks() == []
