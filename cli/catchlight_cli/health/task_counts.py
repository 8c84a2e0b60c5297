"""Counts tasks by status with the index `byStatus`, finds items with an unknown status, and estimates the cost."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Lock
from typing import Any

from catchlight.aws.dynamodb import store_errors
from catchlight.client.stack import Stack
from catchlight.models import PROBE_STATUS, Model, TaskStatus
from catchlight_cli.factories import tasks_by_status

# An eventually consistent read of 4 KB is half a request unit, and a million of those are $0.125 in us-east-1.
_BYTES_PER_UNIT = 8192
_DOLLARS_PER_UNIT = 0.125 / 1_000_000
# Counting fewer items costs little: two cents for a table of a gigabyte.
_MIN_ITEMS = 100_000
# Concurrent reads of the table.
_SEGMENTS = 8


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


def unknown_statuses(stack: Stack) -> dict[str, str]:
    """Returns the unknown statuses of items, by the key of the item. Reads the whole table.

    Users have written these items by hand. Searches of the index by status do not find them.

    Raises:
        StoreUnavailableError: a DynamoDB call fails.
    """
    known = {f":{number}": {"S": status} for number, status in enumerate((*TaskStatus, PROBE_STATUS))}
    arguments: Any = {
        "TableName": stack.table,
        # Records of submissions have no status.
        "FilterExpression": f"attribute_exists(#status) AND NOT #status IN ({', '.join(known)})",
        "ProjectionExpression": "task, #status",
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": known,
        "TotalSegments": _SEGMENTS,
    }
    client = stack.client("dynamodb")

    def read(segment: int) -> dict[str, str]:
        found: dict[str, str] = {}
        with store_errors():
            for page in client.get_paginator("scan").paginate(**arguments, Segment=segment):
                found |= {item["task"]["S"]: str(next(iter(item["status"].values()))) for item in page["Items"]}
        return found

    with ThreadPoolExecutor(_SEGMENTS) as pool:
        return {task: status for found in pool.map(read, range(_SEGMENTS)) for task, status in found.items()}


def cost_of_counting(stack: Stack) -> str | None:
    """Returns the estimated cost of counting all tasks, from figures that DynamoDB updates every six hours.

    None if the table has fewer than 100,000 items.
    """
    table = stack.client("dynamodb").describe_table(TableName=stack.table)["Table"]
    items, size = table.get("ItemCount", 0), table.get("TableSizeBytes", 0)
    if items < _MIN_ITEMS:
        return None
    units = 2 * size / _BYTES_PER_UNIT
    return (
        f"Counting reads the whole index and the whole table: about {items:,} tasks, {units:,.0f} read units, "
        f"${units * _DOLLARS_PER_UNIT:.2f}. With --since 1d, only tasks that have changed within a day are read."
    )
