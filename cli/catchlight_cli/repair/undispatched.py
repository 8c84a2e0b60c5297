"""Which tasks a message in DispatchDeadLetters is about. It holds positions in the table's stream, not the records."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from catchlight.models import TaskStatus
from catchlight.tasks.by_status import TasksByStatus
from catchlight_cli.repair.stream_positions import StreamPositions, new_status_of, task_of

# What something follows from: see DispatchChanges.
_FOLLOWED = {TaskStatus.PENDING, TaskStatus.SUCCEEDED, TaskStatus.FAILED}
# Between a write and its record's arrival.
_ARRIVES_WITHIN = timedelta(minutes=5)


def tasks_in_stream(streams: Any, positions: StreamPositions) -> list[str] | None:
    """Tasks of the records at these positions, read from the stream; None if it has forgotten them: after 24 hours."""
    records = positions.records(streams)
    if records is None:
        return None
    return list(dict.fromkeys(task_of(record) for record in records if new_status_of(record) in _FOLLOWED))


def tasks_by_time(index: TasksByStatus, arrived_at: datetime) -> Iterator[str]:
    """Tasks that may be meant where the stream has forgotten: what was PENDING or SUCCEEDED then, and still is.

    That is over a day ago, so none of them is being polled for or archived any more.
    """
    for status in (TaskStatus.PENDING, TaskStatus.SUCCEEDED):
        for task in index.tasks(status, before=arrived_at + _ARRIVES_WITHIN):
            yield task.task
