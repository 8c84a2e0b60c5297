"""Counts tasks by status with the index `byStatus`, and estimates the cost of counting."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Lock

from catchlight.client.stack import Stack
from catchlight.models import Model, TaskStatus
from catchlight_cli.factories import tasks_by_status

# An eventually consistent read of 4 KB is half a request unit, and a million of those are $0.125 in us-east-1.
_BYTES_PER_UNIT = 8192
_DOLLARS_PER_UNIT = 0.125 / 1_000_000
# The cost of counting fewer items is negligible: two cents for a table of a gigabyte.
_MIN_ITEMS = 100_000


class TaskCounts(Model):
    """Number of tasks by status, and the read units that counting them consumed."""

    by_status: dict[TaskStatus, int]
    read_units: float


def count_tasks(stack: Stack, *, since: datetime | None, on_progress: Callable[[int], None]) -> TaskCounts:
    """Counts the tasks that changed at or after `since`, or all tasks if it is None.

    `on_progress` is called with the number of tasks of each page.

    Raises:
        StoreUnavailableError: a DynamoDB call fails.
    """
    index = tasks_by_status(stack)
    lock = Lock()

    def count(status: TaskStatus) -> tuple[int, float]:
        tasks, units = 0, 0.0
        for page in index.count(status, since=since):
            tasks, units = tasks + page.tasks, units + page.read_units
            with lock:
                on_progress(page.tasks)
        return tasks, units

    # In parallel: each status is a separate partition of the index.
    with ThreadPoolExecutor(len(TaskStatus)) as pool:
        counted = dict(zip(TaskStatus, pool.map(count, TaskStatus), strict=True))
    return TaskCounts(
        by_status={status: tasks for status, (tasks, _) in counted.items()},
        read_units=sum(units for _, units in counted.values()),
    )


def cost_of_counting(stack: Stack) -> str | None:
    """Returns the estimated cost of counting all tasks, from figures that DynamoDB updates every six hours.

    None if the table has fewer than 100,000 items.
    """
    table = stack.client("dynamodb").describe_table(TableName=stack.table)["Table"]
    items, size = table.get("ItemCount", 0), table.get("TableSizeBytes", 0)
    if items < _MIN_ITEMS:
        return None
    units = size / _BYTES_PER_UNIT
    return (
        f"Counting reads the whole index: about {items:,} tasks, {units:,.0f} read units, "
        f"${units * _DOLLARS_PER_UNIT:.2f}. With --since 1d, only tasks that have changed within a day are read."
    )
