"""Finds the tasks of a message in DispatchDeadLetters, which holds positions in the table's stream, not the records."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from catchlight.models import TaskStatus
from catchlight.tasks.by_status import TasksByStatus
from catchlight_cli.repair.stream_positions import StreamPositions, new_status_of, task_of

# Statuses that trigger polling or archiving: see DispatchChanges.
_FOLLOWED = {TaskStatus.PENDING, TaskStatus.SUCCEEDED, TaskStatus.FAILED}
# Longest time between a write and the arrival of its record.
_ARRIVES_WITHIN = timedelta(minutes=5)


def tasks_in_stream(streams: Any, positions: StreamPositions) -> list[str] | None:
    """Reads from the stream which tasks the records at these positions are about; None if they expired (24 hours)."""
    records = positions.records(streams)
    if records is None:
        return None
    return list(dict.fromkeys(task_of(record) for record in records if new_status_of(record) in _FOLLOWED))


def tasks_by_time(index: TasksByStatus, arrived_at: datetime) -> Iterator[str]:
    """Yields the tasks that such a message may refer to if its records have expired from the stream.

    These are the tasks that were PENDING or SUCCEEDED at that time and still are. That is over a day ago, so none of
    them is being polled or archived any more.
    """
    for status in (TaskStatus.PENDING, TaskStatus.SUCCEEDED):
        for task in index.tasks(status, before=arrived_at + _ARRIVES_WITHIN):
            yield task.task
