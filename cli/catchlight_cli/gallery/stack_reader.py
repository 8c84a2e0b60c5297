"""Reads for the gallery what the tasks API does not return: tasks by status, and what a provider sent for a task."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import cached_property
from threading import Lock

from catchlight.api.response_models import TaskResponse
from catchlight.aws.secrets import Redactor
from catchlight.client.stack import Stack
from catchlight.models import Model, TaskStatus
from catchlight.recovery.deliveries import ACCEPTED_PREFIX, PREFIX, DeliveryStore
from catchlight_cli.health.task_counts import cost_of_counting, count_tasks

# Each count reads the whole index: half a read unit for every 4 KB. Pages that are opened meanwhile share it.
_COUNT_LASTS_SECONDS = 300
_MAX_KEPT_COUNTS = 16
# A task has one report, or a hint and a report; conflicts are evidence of more of them.
_MAX_MOMENTS = 4


class StatusCounts(Model):
    """Number of tasks by status; None if they were not counted."""

    counts: dict[TaskStatus, int] | None = None


class ReceivedDelivery(Model):
    """A callback, or an answer that could not be read, as it was received, with its secrets overwritten."""

    key: str
    received_at: datetime
    outcome: str  # of an accepted delivery; else why it could not be read
    headers: dict[str, str]
    body: str


class TaskDeliveries(Model):
    """What is kept of the deliveries for one task."""

    deliveries: tuple[ReceivedDelivery, ...] = ()


class StackReader:
    """Reads a stack with the user's own credentials. Thread-safe; `close` closes its connections."""

    def __init__(self, find_stack: Callable[[], Stack]) -> None:
        self._find_stack = find_stack
        self._lock = Lock()
        self._release = ExitStack()
        self._counts: dict[datetime | None, tuple[float, StatusCounts]] = {}

    def close(self) -> None:
        """Closes the connections to the stack."""
        self._release.close()

    def count(self, since: datetime | None) -> StatusCounts:
        """Counts the tasks that have changed since a time. A table of 100,000 tasks is counted only from a time on.

        Raises:
            StoreUnavailableError, ClientError: DynamoDB did not answer, or the credentials do not allow it.
        """
        with self._lock:
            counted_at, counts = self._counts.get(since, (0.0, None))
            if counts is None or time.monotonic() - counted_at > _COUNT_LASTS_SECONDS:
                counts = self._count(since)
                if len(self._counts) >= _MAX_KEPT_COUNTS:
                    self._counts.clear()
                self._counts[since] = time.monotonic(), counts
            return counts

    def _count(self, since: datetime | None) -> StatusCounts:
        if since is None and cost_of_counting(self._stack):
            return StatusCounts()
        return StatusCounts(counts=count_tasks(self._stack, since=since, on_progress=lambda _: None).by_status)

    def deliveries(self, task: TaskResponse) -> TaskDeliveries:
        """Returns the kept deliveries that name a task, from about the times at which something was reported of it.

        Raises:
            ClientError: the credentials do not allow it.
        """
        with self._lock:
            found = sorted(self._deliveries(task), key=lambda each: each.received_at)
        return TaskDeliveries(deliveries=tuple({each.key: each for each in found}.values()))

    def _deliveries(self, task: TaskResponse) -> Iterator[ReceivedDelivery]:
        s3, redactor = self._stack.client("s3"), Redactor()
        times = (task.reported_at, task.hinted_at, *(conflict.reported_at for conflict in task.conflicts))
        moments = sorted({datetime.fromisoformat(each) for each in times if each})
        for prefix in (ACCEPTED_PREFIX, PREFIX):
            store = DeliveryStore(s3, self._stack.bucket, prefix)
            for moment in moments[:_MAX_MOMENTS]:
                for key, delivery in store.received_about(moment):
                    if task.task_id.encode() in delivery.body:
                        yield ReceivedDelivery(
                            key=key,
                            received_at=delivery.received_at,
                            outcome=delivery.reason,
                            headers=dict(delivery.headers),
                            # Deliveries that earlier versions stored contain their callback URL.
                            body=_readable(redactor.redact(delivery.body)),
                        )

    @cached_property
    def _stack(self) -> Stack:
        stack = self._find_stack()
        self._release.callback(stack.close)
        return stack


def _readable(body: bytes) -> str:
    """Returns a body as indented JSON, or as text if it is not JSON."""
    text = body.decode(errors="replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
