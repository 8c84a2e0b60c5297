"""Collects stuck tasks and redrives them. Deletes a dead letter when all tasks that it refers to are redriven."""

import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Self

from catchlight.client.stack import Stack
from catchlight.models import Model, TaskStatus
from catchlight.recovery.dead_letters import DeadLetter, DeadLetterQueue
from catchlight.recovery.redrive import Redriven
from catchlight.recovery.stream_positions import StreamPositions, new_status_of, task_of
from catchlight_cli.factories import reconciliation, redrive, tasks_by_status

# If the command ends before it releases the messages, they become visible again after this time.
_VISIBILITY_TIMEOUT_SECONDS = 900
# Each thread sends requests to a provider. With more threads, providers respond with HTTP 429.
_THREADS = 8
# Statuses for which DispatchChanges starts polling or archiving.
_DISPATCHED_STATUSES = {TaskStatus.PENDING, TaskStatus.SUCCEEDED, TaskStatus.UNCONFIRMED, TaskStatus.FAILED}
# Longest time between a write and the arrival of its record in the stream.
_MAX_ARRIVAL_DELAY = timedelta(minutes=5)


class Kind(StrEnum):
    """Why a task is redriven."""

    ARCHIVE_DEAD_LETTERS = "archive-dead-letters"  # its URLs expired before it was archived
    DISPATCH_DEAD_LETTERS = "dispatch-dead-letters"  # its change was never dispatched to polling or archiving
    POLL_DEAD_LETTERS = "poll-dead-letters"  # its polling could not be started in ten tries
    INCOMPLETE = "incomplete"  # at least one image could not be archived
    STUCK_ARCHIVING = "stuck-archiving"  # it has waited for archiving for over an hour
    TIMED_OUT = "timed-out"  # polling ended without a result
    UNCONFIRMED = "unconfirmed"  # the provider has not confirmed a callback
    NAMED = "named"  # it was named on the command line


# The kinds of --all. TIMED_OUT and UNCONFIRMED are regular outcomes, so these tasks are redriven on request only.
ALL_KINDS = (
    Kind.ARCHIVE_DEAD_LETTERS,
    Kind.DISPATCH_DEAD_LETTERS,
    Kind.POLL_DEAD_LETTERS,
    Kind.INCOMPLETE,
    Kind.STUCK_ARCHIVING,
)
_QUEUES = {
    Kind.ARCHIVE_DEAD_LETTERS: "ArchiveDeadLetters",
    Kind.DISPATCH_DEAD_LETTERS: "DispatchDeadLetters",
    Kind.POLL_DEAD_LETTERS: "PollDeadLetters",
}


class RedrivenTask(Model):
    """A redriven task, the reasons why it was collected, and the outcome."""

    kinds: tuple[Kind, ...]
    dead_letters: int  # number of messages that refer to the task or to its changes
    outcome: Redriven


class DeadLetterCounts(Model):
    """Number of dead letters by outcome."""

    deleted: int = 0
    kept: int = 0  # a task failed, or SQS did not delete the message
    unreadable: int = 0  # kept in the queue


class RedriveResult(Model):
    """The result of a redrive: its tasks and dead letters."""

    dry_run: bool
    tasks: tuple[RedrivenTask, ...]
    dead_letters: DeadLetterCounts
    unreadable: tuple[str, ...] = ()  # keys of malformed items, which were skipped
    has_more: bool  # the limit was reached: there may be more

    @property
    def has_failed(self) -> bool:
        """Whether a task could not be redriven, or a message or an item could not be read."""
        return bool(self.dead_letters.unreadable or self.unreadable) or any(
            task.outcome.is_failed for task in self.tasks
        )


@dataclass(eq=False)
class _Message:
    """A dead letter and the tasks that it refers to."""

    kind: Kind
    dead_letter: DeadLetter
    tasks: list[str] | None = None  # None: not read yet, or unreadable
    is_deleted: bool = False


class StuckTasks:
    """Collects the stuck tasks of a stack and the dead letters that refer to them, and redrives the tasks.

    A context manager: other consumers cannot receive the collected dead letters until it ends. At its end it releases
    the dead letters that `redrive` has not deleted, also after an exception.
    """

    def __init__(self, stack: Stack, *, limit: int, on_progress: Callable[[], None]) -> None:
        self._stack = stack
        self._limit = limit  # of tasks or messages of each kind
        self._on_progress = on_progress
        self._kinds: dict[str, set[Kind]] = {}  # by task
        self._received: list[_Message] = []
        self._messages: list[_Message] = []  # the received messages whose tasks are redriven
        self.malformed: dict[str, str] = {}  # the skipped items, by key: the names of their malformed attributes
        self._has_more = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for kind_of_queue in _QUEUES:
            kept = [each.dead_letter for each in self._received if each.kind is kind_of_queue and not each.is_deleted]
            self._queue(kind_of_queue).release(kept)

    def __len__(self) -> int:
        return len(self._kinds)

    def collect(self, kinds: Collection[Kind]) -> None:
        """Collects the tasks of these kinds."""
        for kind in _QUEUES:
            if kind in kinds:
                self._messages += self._receive(kind)
        for kind, tasks in self._by_status():
            if kind in kinds:
                for number, task in enumerate(islice(tasks, self._limit), start=1):
                    self._add(task, kind)
                    self._has_more |= number == self._limit
                    self._on_progress()

    def collect_named(self, tasks: Collection[str]) -> None:
        """Collects these tasks, and the dead letters that refer to none but these tasks."""
        for task in tasks:
            self._add(task, Kind.NAMED)
        for kind in _QUEUES:
            # A dead letter may be deleted only if all its tasks are redriven.
            self._messages += (each for each in self._receive(kind) if each.tasks and set(each.tasks) <= set(tasks))
        self._kinds = {task: self._kinds[task] for task in tasks}

    def plan(self) -> Generator[RedrivenTask, None, None]:
        """Yields each task with the step that `redrive` would take. Changes nothing."""
        with redrive(self._stack) as redriver:
            yield from self._processed(redriver.plan)

    def redrive(self) -> Generator[RedrivenTask, None, None]:
        """Redrives the tasks and yields each one with its outcome; then deletes dead letters without a failed task."""
        nonce = f"redrive-{uuid.uuid4().hex}"
        outcomes: dict[str, Redriven] = {}
        with redrive(self._stack) as redriver:
            for task in self._processed(lambda key: redriver.redrive(key, nonce=nonce)):
                outcomes[task.outcome.task] = task.outcome
                yield task
        for kind in _QUEUES:
            processed = [
                each
                for each in self._messages
                if each.kind is kind
                and each.tasks is not None
                and not any(outcomes[task].is_failed for task in each.tasks)
            ]
            left = self._queue(kind).delete([each.dead_letter for each in processed])
            for each in processed:
                each.is_deleted = each.dead_letter not in left

    def _processed(self, process: Callable[[str], Redriven]) -> Iterator[RedrivenTask]:
        with ThreadPoolExecutor(_THREADS) as pool:
            for outcome in pool.map(process, self._kinds):
                yield RedrivenTask(
                    kinds=tuple(sorted(self._kinds[outcome.task])),
                    dead_letters=sum(outcome.task in (each.tasks or ()) for each in self._messages),
                    outcome=outcome,
                )

    def _add(self, task: str, kind: Kind) -> None:
        self._kinds.setdefault(task, set()).add(kind)

    def _queue(self, kind: Kind) -> DeadLetterQueue:
        return DeadLetterQueue(self._stack.client("sqs"), self._stack.resource(_QUEUES[kind]))

    def _receive(self, kind: Kind) -> list[_Message]:
        messages = []
        queue = self._queue(kind)
        for dead_letter in queue.receive(limit=self._limit, visibility_timeout=_VISIBILITY_TIMEOUT_SECONDS):
            messages.append(_Message(kind, dead_letter))
            self._received.append(messages[-1])
            self._on_progress()
        self._has_more |= len(messages) == self._limit
        for message in messages:
            message.tasks = self._tasks_of(message)
            for task in message.tasks or ():
                self._add(task, kind)
        return messages

    def _tasks_of(self, message: _Message) -> list[str] | None:
        # DispatchChanges sends a message with the task's key if it cannot read a record; Lambda's messages contain only
        # stream positions.
        if message.dead_letter.task or message.kind is not Kind.DISPATCH_DEAD_LETTERS:
            return [message.dead_letter.task] if message.dead_letter.task else None
        positions = StreamPositions.of(message.dead_letter)
        if positions is None:
            return None
        records = positions.records(self._stack.client("dynamodbstreams"))
        if records is None:  # expired from the stream after 24 hours
            return list(self._possible_tasks(positions.last_arrived_at))
        dispatched = (record for record in records if new_status_of(record) in _DISPATCHED_STATUSES)
        return list(dict.fromkeys(map(task_of, dispatched)))

    def _possible_tasks(self, arrived_at: datetime) -> Iterator[str]:
        """Yields the tasks that were PENDING or SUCCEEDED at this time and still are.

        This time is more than a day ago, so polling and archiving of these tasks have ended.
        """
        index = tasks_by_status(self._stack, unreadable=self.malformed.__setitem__)
        for status in (TaskStatus.PENDING, TaskStatus.SUCCEEDED):
            for task in index.tasks(status, before=arrived_at + _MAX_ARRIVAL_DELAY):
                yield task.task

    def _by_status(self) -> Iterator[tuple[Kind, Iterator[str]]]:
        index = tasks_by_status(self._stack, unreadable=self.malformed.__setitem__)
        repair = reconciliation(self._stack)
        yield Kind.INCOMPLETE, (task.task for task in index.tasks(TaskStatus.INCOMPLETE))
        yield Kind.STUCK_ARCHIVING, (task.task for task in repair.unarchived())
        self.malformed |= repair.unreadable
        yield Kind.TIMED_OUT, (task.task for task in index.tasks(TaskStatus.TIMED_OUT))
        yield Kind.UNCONFIRMED, (task.task for task in index.tasks(TaskStatus.UNCONFIRMED))

    def result(self, tasks: Iterable[RedrivenTask], *, dry_run: bool) -> RedriveResult:
        """Returns the result, after `plan` or `redrive` has yielded the tasks."""
        readable = [each for each in self._messages if each.tasks is not None]
        deleted = sum(each.is_deleted for each in readable)
        return RedriveResult(
            dry_run=dry_run,
            tasks=tuple(tasks),
            dead_letters=DeadLetterCounts(
                deleted=deleted, kept=len(readable) - deleted, unreadable=len(self._messages) - len(readable)
            ),
            unreadable=tuple(self.malformed),
            has_more=self._has_more,
        )
