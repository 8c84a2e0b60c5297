"""Reads data for the gallery that the tasks API does not return: task counts by status, and deliveries of a task."""

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
from catchlight.models import Model, TaskStatus, parse_time
from catchlight.recovery.deliveries import ACCEPTED_PREFIX, PREFIX, DeliveryStore
from catchlight_cli.health.task_counts import cost_of_counting, count_tasks

# Each count reads the whole index, half a read unit for every 4 KB. Pages of the gallery share it for this time.
_COUNT_MAX_AGE_SECONDS = 300
_MAX_KEPT_COUNTS = 16
# A task has one report, or a hint and a report; further ones are stored as conflicts.
_MAX_MOMENTS = 4


class StatusCounts(Model):
    """Number of tasks by status; None if they were not counted."""

    counts: dict[TaskStatus, int] | None = None


class ReceivedDelivery(Model):
    """A callback, or a provider's answer that could not be read, as it was received, with secrets overwritten."""

    key: str
    received_at: datetime
    outcome: str  # the outcome of an accepted delivery, or why a rejected one could not be read
    headers: dict[str, str]
    body: str


class TaskDeliveries(Model):
    """The kept deliveries of one task."""

    deliveries: tuple[ReceivedDelivery, ...] = ()


class StackReader:
    """Reads a stack with the user's own credentials. Thread-safe."""

    def __init__(self, find_stack: Callable[[], Stack]) -> None:
        self._find_stack = find_stack
        self._lock = Lock()
        self._release = ExitStack()
        self._counts: dict[datetime | None, tuple[float, StatusCounts]] = {}

    def close(self) -> None:
        """Closes the connections to the stack."""
        self._release.close()

    def count(self, since: datetime | None) -> StatusCounts:
        """Counts the tasks that have changed since a time. None: counts all tasks, or none if the table has 100,000.

        Raises:
            StoreUnavailableError, ClientError: DynamoDB does not respond, or the credentials do not permit the request.
        """
        with self._lock:
            counted_at, counts = self._counts.get(since, (0.0, None))
            if counts is None or time.monotonic() - counted_at > _COUNT_MAX_AGE_SECONDS:
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
        """Returns the kept deliveries that contain the task's id and were received at about the times of its reports.

        Raises:
            ClientError: the credentials do not permit the request.
        """
        with self._lock:
            found = sorted(self._deliveries(task), key=lambda each: each.received_at)
        return TaskDeliveries(deliveries=tuple({each.key: each for each in found}.values()))

    def _deliveries(self, task: TaskResponse) -> Iterator[ReceivedDelivery]:
        s3, redactor = self._stack.client("s3"), Redactor()
        times = (task.reported_at, task.hinted_at, *(conflict.reported_at for conflict in task.conflicts))
        moments = sorted(set(filter(None, map(parse_time, times))))
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
