"""Collects stuck tasks, redrives each of them, and deletes dead letters unless one of their tasks failed."""

import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from catchlight.client.stack import Stack
from catchlight.models import Model, TaskStatus
from catchlight.recovery.redrive import Redriven
from catchlight.tasks.by_status import TasksByStatus
from catchlight_cli.factories import reconciliation, redrive, tasks_by_status
from catchlight_cli.repair.dead_letters import DeadLetter, DeadLetterQueue
from catchlight_cli.repair.stream_positions import StreamPositions
from catchlight_cli.repair.undispatched import tasks_by_time, tasks_in_stream

# Visibility timeout: messages become visible again after this time if the command ends before it gives them back.
_HOLD_SECONDS = 900
# Each thread sends requests to a provider; more of them would cause HTTP 429.
_THREADS = 8


class Kind(StrEnum):
    """Why a task is redriven."""

    DEAD_LETTERS = "dead-letters"  # its archiving failed five times
    DISPATCH_FAILURES = "dispatch-failures"  # polling or archiving was never started after its change
    INCOMPLETE = "incomplete"  # an image could not be archived
    STUCK = "stuck"  # it has waited for archiving for over an hour
    TIMED_OUT = "timed-out"  # polling gave up
    NAMED = "named"  # it was named on the command line


# The kinds of --all. TIMED_OUT is a regular end of polling, so it is redriven only on explicit request.
ALL_KINDS = (Kind.DEAD_LETTERS, Kind.DISPATCH_FAILURES, Kind.INCOMPLETE, Kind.STUCK)
QUEUES = {Kind.DEAD_LETTERS: "ArchiveDeadLetters", Kind.DISPATCH_FAILURES: "DispatchDeadLetters"}


class RedrivenTask(Model):
    """A redriven task, the reasons why it was collected, and the outcome."""

    kinds: tuple[Kind, ...]
    dead_letters: int  # number of messages that refer to the task or to its changes
    outcome: Redriven


class DeadLetterCounts(Model):
    """Number of dead letters by outcome."""

    removed: int = 0
    kept: int = 0  # a task failed, or SQS did not delete the message: visible again
    unreadable: int = 0  # they could not be read: also kept


class Redrive(Model):
    """The result of a redrive: its tasks and dead letters."""

    dry_run: bool
    tasks: tuple[RedrivenTask, ...]
    dead_letters: DeadLetterCounts
    unreadable: tuple[str, ...] = ()  # keys of malformed items, which were skipped
    more: bool  # the limit was reached: there may be more

    @property
    def is_wrong(self) -> bool:
        """Whether a task could not be redriven, or a message or an item could not be read."""
        return bool(self.dead_letters.unreadable or self.unreadable) or any(
            task.outcome.is_failed for task in self.tasks
        )


@dataclass
class StuckTasks:
    """Stuck tasks, and the dead letters that refer to them."""

    kinds: dict[str, set[Kind]] = field(default_factory=dict)  # by task
    dead_letters: dict[Kind, dict[DeadLetter, list[str]]] = field(
        default_factory=dict
    )  # the tasks of each message, by kind
    unreadable: dict[Kind, list[DeadLetter]] = field(default_factory=dict)
    malformed: dict[str, str] = field(default_factory=dict)  # why an item of the table was skipped, by task
    more: bool = False

    def add(self, task: str, kind: Kind) -> None:
        """Adds a task, or another kind to a task that was added before."""
        self.kinds.setdefault(task, set()).add(kind)


def collect(
    stack: Stack,
    kinds: Collection[Kind],
    *,
    named: Sequence[str] = (),
    limit: int,
    found: StuckTasks,
    on_progress: Callable[[], None],
) -> None:
    """Collects the stuck tasks of these kinds into `found`, at most `limit` per kind; holds their dead letters.

    With `named`, collects only those tasks and the dead letters about them. After an exception, `found` has the
    messages received so far, so that the caller can give them back.
    """
    for task in named:
        found.add(task, Kind.NAMED)
    for kind, queue in QUEUES.items():
        if kind in kinds or named:
            box = DeadLetterQueue(stack.client("sqs"), stack.resource(queue))
            held = 0
            for dead_letter in box.take(limit=limit, hold_seconds=_HOLD_SECONDS):
                # Counts as unreadable until it is parsed, so that it is given back if an exception occurs before that.
                found.unreadable.setdefault(kind, []).append(dead_letter)
                held += 1
                on_progress()
            _read_letters(stack, kind, found)
            found.more |= held == limit
    if named:
        _keep_named(stack, set(named), found)
        return
    for kind, tasks in _by_index(stack, found.malformed):
        if kind in kinds:
            for number, task in enumerate(islice(tasks, limit), start=1):
                found.add(task, kind)
                found.more |= number == limit
                on_progress()


def _read_letters(stack: Stack, kind: Kind, found: StuckTasks) -> None:
    index = tasks_by_status(stack, unreadable=found.malformed.__setitem__)
    for dead_letter in list(found.unreadable.get(kind, ())):
        tasks = _tasks_of(stack, index, kind, dead_letter)
        if tasks is None:
            continue
        found.unreadable[kind].remove(dead_letter)
        found.dead_letters.setdefault(kind, {})[dead_letter] = tasks
        for task in tasks:
            found.add(task, kind)


def _tasks_of(stack: Stack, index: TasksByStatus, kind: Kind, dead_letter: DeadLetter) -> list[str] | None:
    if kind is Kind.DEAD_LETTERS:
        return [dead_letter.task] if dead_letter.task else None
    positions = StreamPositions.of(dead_letter)
    if positions is None:
        return None
    tasks = tasks_in_stream(stack.client("dynamodbstreams"), positions)
    return list(tasks_by_time(index, positions.last_arrived_at)) if tasks is None else tasks


def _keep_named(stack: Stack, named: set[str], found: StuckTasks) -> None:
    """Gives back dead letters that also refer to other tasks: one may be deleted only if all its tasks are redriven."""
    for kind, queue in QUEUES.items():
        dead_letters = found.dead_letters.get(kind, {})
        others = [dead_letter for dead_letter, tasks in dead_letters.items() if not (tasks and set(tasks) <= named)]
        found.dead_letters[kind] = {
            dead_letter: tasks for dead_letter, tasks in dead_letters.items() if dead_letter not in others
        }
        others += found.unreadable.pop(kind, [])
        DeadLetterQueue(stack.client("sqs"), stack.resource(queue)).give_back(others)
    found.kinds = {task: kinds for task, kinds in found.kinds.items() if task in named}


def _by_index(stack: Stack, malformed: dict[str, str]) -> Iterator[tuple[Kind, Iterator[str]]]:
    index, repair = tasks_by_status(stack, unreadable=malformed.__setitem__), reconciliation(stack)
    yield Kind.INCOMPLETE, (task.task for task in index.tasks(TaskStatus.INCOMPLETE))
    yield Kind.STUCK, (task.task for task in repair.unarchived())
    malformed |= repair.unreadable
    yield Kind.TIMED_OUT, (task.task for task in index.tasks(TaskStatus.TIMED_OUT))


def look(stack: Stack, found: StuckTasks) -> Redrive:
    """Returns what `work` would do, as a dry run, and gives the dead letters back."""
    with redrive(stack) as one, ThreadPoolExecutor(_THREADS) as pool:
        outcomes = dict(zip(found.kinds, pool.map(one.plan, found.kinds), strict=True))
    give_back(stack, found)
    held = sum(map(len, found.dead_letters.values()))
    unreadable = sum(map(len, found.unreadable.values()))
    return _result(found, outcomes, DeadLetterCounts(kept=held, unreadable=unreadable), dry_run=True)


def work(stack: Stack, found: StuckTasks, *, on_progress: Callable[[], None]) -> Redrive:
    """Redrives all tasks. Deletes their dead letters, except for those with a failed task, which are given back."""
    nonce = f"redrive-{uuid.uuid4().hex}"
    outcomes: dict[str, Redriven] = {}
    with redrive(stack) as one, ThreadPoolExecutor(_THREADS) as pool:
        for outcome in pool.map(lambda task: one.redrive(task, nonce=nonce), found.kinds):
            outcomes[outcome.task] = outcome
            on_progress()
    removed = kept = 0
    for kind, dead_letters in found.dead_letters.items():
        box = DeadLetterQueue(stack.client("sqs"), stack.resource(QUEUES[kind]))
        helped = [
            dead_letter
            for dead_letter, tasks in dead_letters.items()
            if not any(outcomes[task].is_failed for task in tasks)
        ]
        left = box.remove(helped)
        others = [dead_letter for dead_letter in dead_letters if dead_letter not in helped]
        box.give_back(others)
        removed, kept = removed + len(helped) - len(left), kept + len(others) + len(left)
    for kind, unreadable in found.unreadable.items():
        DeadLetterQueue(stack.client("sqs"), stack.resource(QUEUES[kind])).give_back(unreadable)
    counts = DeadLetterCounts(removed=removed, kept=kept, unreadable=sum(map(len, found.unreadable.values())))
    return _result(found, outcomes, counts, dry_run=False)


def give_back(stack: Stack, found: StuckTasks) -> None:
    """Makes all collected dead letters visible again."""
    for kind, queue in QUEUES.items():
        dead_letters = [*found.dead_letters.get(kind, ()), *found.unreadable.get(kind, ())]
        DeadLetterQueue(stack.client("sqs"), stack.resource(queue)).give_back(dead_letters)


def _result(
    found: StuckTasks, outcomes: dict[str, Redriven], dead_letters: DeadLetterCounts, *, dry_run: bool
) -> Redrive:
    about = [tasks for by_letter in found.dead_letters.values() for tasks in by_letter.values()]
    tasks = tuple(
        RedrivenTask(
            kinds=tuple(sorted(kinds)), dead_letters=sum(task in named for named in about), outcome=outcomes[task]
        )
        for task, kinds in found.kinds.items()
    )
    return Redrive(
        dry_run=dry_run, tasks=tasks, dead_letters=dead_letters, unreadable=tuple(found.malformed), more=found.more
    )
