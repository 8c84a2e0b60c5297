"""Which tasks the hourly run restarts, and the names of the executions that it starts."""

from datetime import UTC, datetime, timedelta

import pytest

from catchlight.dispatch import execution_name
from catchlight.models import TaskStatus
from catchlight.recovery.reconcile import _is_due
from catchlight.tasks.task import Task

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
YESTERDAY = "2026-01-30T12:00:00.000Z"


def a_task(key: str = "acedata#t1", *, updated_at: str | None = None, reconciled_at: str | None = None) -> Task:
    return Task(task=key, status=TaskStatus.SUCCEEDED, updated_at=updated_at, reconciled_at=reconciled_at)


@pytest.mark.parametrize(
    ("updated_at", "reconciled_at", "is_due"),
    [
        ("2026-01-30T11:00:00.000Z", None, True),
        ("2026-01-30T11:00:00.000Z", "2026-01-30T11:59:59.999Z", True),
        ("2026-01-30T11:00:00.000Z", YESTERDAY, False),
        ("2026-01-30T11:00:00.000Z", "2026-01-31T11:00:00.000Z", False),
        # `reconciledAt` is older than the report: polling was restarted, not archiving.
        ("2026-01-31T11:00:00.000Z", "2026-01-31T10:59:59.999Z", True),
        ("2026-01-31T11:00:00.000Z", "2026-01-31T11:00:00.000Z", False),
        (None, "2026-01-31T11:00:00.000Z", False),
        (None, "2026-01-30T11:00:00.000Z", True),
        (None, None, True),
    ],
)
def test_a_task_is_queued_once_a_day(updated_at: str | None, reconciled_at: str | None, is_due: bool) -> None:
    assert _is_due(a_task(updated_at=updated_at, reconciled_at=reconciled_at), NOW, timedelta(days=1)) is is_due


def test_the_name_of_an_execution_is_derived_from_its_batch() -> None:
    batches = [["acedata#t1@1"], ["acedata#t2@1"], ["acedata#t1@2"], ["acedata#t1@1", "acedata#t2@1"]]

    names = [execution_name("reconcile", batch) for batch in batches]

    assert len(set(names)) == len(batches)
    assert names == [execution_name("reconcile", batch) for batch in batches]
    # Step Functions accepts names of up to 80 characters.
    assert all(name.startswith("reconcile-") and len(name) == 50 for name in names)
