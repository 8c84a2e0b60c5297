"""Each waiting request holds a slot; requests without a slot are answered immediately."""

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
    """The recorded pauses of a waiting request, without the actual sleep."""
    durations: list[float] = []
    monkeypatch.setattr(app.dependencies().api.queries, "_sleep", durations.append)
    monkeypatch.setattr(app.dependencies().api.queries, "_clock", lambda: sum(durations))
    return durations


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
def test_a_request_beyond_the_limit_does_not_wait(api: TasksApiHarness, pauses: list[float]) -> None:
    api.register("task12345")

    response = api.send("GET", PATH, query={"wait": 20})

    assert (response.status, response.body["done"], pauses) == (200, False, [])
    assert response.headers["retry-after"] == str(BUSY_RETRY_SECONDS)


def test_a_slot_is_released_after_its_request(api: TasksApiHarness, pauses: list[float], others: ExitStack) -> None:
    api.register("task12345")
    others.close()

    for count in (1, 2, 3):
        response = api.send("GET", PATH, query={"wait": 20})

        assert "retry-after" not in response.headers
        assert sum(pauses) == 20 * count


@pytest.mark.usefixtures("others")
def test_the_slot_of_an_interrupted_request_expires(slots: WaitSlots, clock: Clock) -> None:
    clock.pass_by(seconds=SLOT_TIME.total_seconds() - 1)
    with slots.slot() as may_wait:
        assert not may_wait
    clock.pass_by(seconds=2)
    with slots.slot() as may_wait:
        assert may_wait


def test_slots_expire_after_the_functions_timeout() -> None:
    assert SLOT_TIME.total_seconds() > FUNCTIONS["ServeTasksApiFunction"]["Timeout"]


def test_a_late_release_does_not_release_the_slot_of_the_next_holder(store: Store, clock: Clock) -> None:
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

    assert "retry-after" not in api.send("GET", PATH, query=query).headers


@pytest.mark.usefixtures("others")
def test_a_task_that_is_done_needs_no_slot(api: TasksApiHarness) -> None:
    api.store.put("flux-kontext#task12345", status="FAILED")

    response = api.send("GET", PATH, query={"wait": 20})

    assert response.body["done"]
    assert "retry-after" not in response.headers


def test_without_slots_no_request_waits(
    api: TasksApiHarness, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.dependencies().api.wait_slots, "_count", 0)
    api.register("task12345")

    assert api.send("GET", PATH, query={"wait": 20}).headers["retry-after"] == str(BUSY_RETRY_SECONDS)
    assert pauses == []


def test_a_slot_that_cannot_be_released_is_not_an_error(
    store: Store, slots: WaitSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slots.slot() as may_wait:
        assert may_wait
        monkeypatch.setattr(store.client, "update_item", lost(store.client.update_item, arrives=False))


def test_a_request_does_not_wait_if_its_slot_cannot_be_written(
    store: Store, slots: WaitSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.client, "update_item", lost(store.client.update_item, arrives=False))

    with pytest.raises(StoreUnavailableError), slots.slot():
        pytest.fail("it waited")


def test_concurrent_requests_share_the_slots(slots: WaitSlots) -> None:
    number = 8
    have_tried = Barrier(number)

    def wait(_: int) -> bool:
        with slots.slot() as may_wait:
            have_tried.wait(60)
            return may_wait

    with ThreadPoolExecutor(number) as pool:
        assert sum(pool.map(wait, range(number))) == 2


@pytest.mark.usefixtures("others")
def test_slots_are_not_listed_as_tasks(api: TasksApiHarness) -> None:
    assert api.send("GET", "/tasks").body == {"tasks": [], "unreadable": []}
    assert api.tasks() == []
