"""Queries of the index by status, limited to a period."""

from datetime import UTC, datetime, timedelta

import pytest

from catchlight.models import TaskStatus, iso
from catchlight.tasks.by_status import TasksByStatus
from tests.integration.conftest import TABLE_NAME, Store

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def index(store: Store) -> TasksByStatus:
    for hour in range(4):
        changed = iso(NOON + hour * HOUR)
        store.put(
            f"acedata#t{hour}", provider="acedata", taskId=f"t{hour}", status="FAILED", rank=20, updatedAt=changed
        )
    return TasksByStatus(TABLE_NAME, store.client)


@pytest.mark.parametrize(
    ("since", "before", "hours"),
    [
        (None, None, [0, 1, 2, 3]),
        (NOON + HOUR, None, [1, 2, 3]),
        (None, NOON + HOUR, [0]),
        (NOON + HOUR, NOON + 3 * HOUR, [1, 2]),
        (NOON + HOUR, NOON + HOUR + timedelta(milliseconds=1), [1]),
        (NOON + HOUR, NOON + HOUR, []),
        (NOON + 2 * HOUR, NOON + HOUR, []),
    ],
)
def test_since_is_inclusive_and_before_is_exclusive(
    index: TasksByStatus, since: datetime | None, before: datetime | None, hours: list[int]
) -> None:
    found = [task.task for task in index.tasks(TaskStatus.FAILED, since=since, before=before)]
    assert found == [f"acedata#t{hour}" for hour in hours]
    counted = index.count(TaskStatus.FAILED, since=since, before=before)
    assert sum(page.tasks for page in counted) == len(hours)
