"""Waiting work is run in the order of its due time."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from catchlight.archiving.priority_pool import PriorityThreadPool

NOON = datetime(2026, 1, 6, 12, tzinfo=UTC)


@pytest.fixture
def pool() -> Iterator[PriorityThreadPool]:
    pool = PriorityThreadPool(1)
    yield pool
    pool.shutdown()


def test_work_that_is_due_earlier_runs_first(pool: PriorityThreadPool) -> None:
    done: list[int] = []
    gate = threading.Event()
    pool.submit(NOON, gate.wait)
    waiting: list[Future[None]] = []
    for minutes in (3, 1, 2, 1):
        due = NOON + timedelta(minutes=minutes)
        waiting.append(pool.submit(due, partial(done.append, len(waiting) * 10 + minutes)))

    gate.set()
    for future in waiting:
        future.result(60)

    # In the order of their due time; with equal times in the order of submission.
    assert done == [11, 31, 22, 3]


def test_a_result_or_an_error_is_returned_to_its_caller(pool: PriorityThreadPool) -> None:
    def fail() -> None:
        raise ValueError("no")

    failing, fine = pool.submit(NOON, fail), pool.submit(NOON, lambda: 7)

    with pytest.raises(ValueError, match="no"):
        failing.result(60)
    assert fine.result(60) == 7
