"""Finds tasks that nobody works on any more, and starts their work again.

A task is PENDING for as long as the state machine polls for it, and SUCCEEDED for the seconds that archiving takes. One
that stays so was dropped somewhere: an execution was stopped, a change was never dispatched, a message ran out of
tries. Whatever it was, the table still says it, and that is what this looks at.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from catchlight.aws.dynamodb import store_errors
from catchlight.aws.update_expression import UpdateExpression
from catchlight.dispatch import MAX_MESSAGES_PER_CALL, Dispatcher
from catchlight.models import MAX_TASKS_PER_EXECUTION, Task, TaskStatus, is_task_key, iso
from catchlight.tasks.by_status import TasksByStatus

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# The state machine counts its own waits only: the polls of six hours, their retries and its waits after errors come on
# top. Polling a task twice for a while costs requests; starting too late costs the task's images their time.
POLLING_SLACK = timedelta(hours=1)
# Archiving takes seconds, and with all its retries about a quarter of an hour.
ARCHIVING_TAKES_AT_MOST = timedelta(hours=1)
# What keeps failing, for want of a provider's key, say, is tried again once a day and not once an hour: each time costs
# five tries and a dead letter.
REPEAT_ARCHIVING_AFTER = timedelta(days=1)
# In one run: 40 executions side by side ask as much as providers bear. The next run goes on with the rest.
MAX_TASKS_PER_RUN = 2000
# Writes at once.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Repaired:
    """A batch of tasks whose work was started again; with an error, of which that is not sure."""

    tasks: tuple[str, ...]
    error: Exception | None = None  # it is left to the next run


class Reconciliation:
    """Starts again what has stopped. A run that was cut off, or one beside another, does no harm.

    Every method raises StoreUnavailableError when DynamoDB does not take a read; the next run goes on from there. A
    batch that fails keeps no other from its turn.
    """

    def __init__(
        self, table: str, dynamodb: "DynamoDBClient", dispatcher: Dispatcher, *, now: Callable[[], datetime]
    ) -> None:
        self._table = table
        self._dynamodb = dynamodb
        # By task: why it was left out of what this has found so far.
        self.unreadable: dict[str, str] = {}
        self._index = TasksByStatus(table, dynamodb, unreadable=self.unreadable.__setitem__)
        self._dispatcher = dispatcher
        self._now = now

    def pending_too_long(self, longer_than: timedelta) -> int:
        """How many tasks are PENDING and have not changed for so long."""
        pages = self._index.count(TaskStatus.PENDING, before=self._now() - longer_than)
        return sum(page.tasks for page in pages)

    def archiving_too_long(self, longer_than: timedelta = ARCHIVING_TAKES_AT_MOST) -> int:
        """How many tasks are SUCCEEDED and have not changed for so long."""
        pages = self._index.count(TaskStatus.SUCCEEDED, before=self._now() - longer_than)
        return sum(page.tasks for page in pages)

    def oldest_pending(self) -> Task | None:
        """The PENDING task that has not changed for the longest time."""
        return next(self._index.tasks(TaskStatus.PENDING, page_size=1), None)

    def overdue(self, longer_than: timedelta) -> Iterator[Task]:
        """Tasks that are PENDING and have not changed for so long, the oldest first."""
        tasks = self._index.tasks(TaskStatus.PENDING, before=self._now() - longer_than)
        return self._with_valid_keys(tasks)

    def unarchived(self, longer_than: timedelta = ARCHIVING_TAKES_AT_MOST) -> Iterator[Task]:
        """Tasks that are SUCCEEDED and have not changed for so long, the oldest first."""
        tasks = self._index.tasks(TaskStatus.SUCCEEDED, before=self._now() - longer_than)
        return self._with_valid_keys(tasks)

    def due_for_archiving(self, longer_than: timedelta = ARCHIVING_TAKES_AT_MOST) -> Iterator[Task]:
        """Those of the `unarchived` that were not queued again today."""
        return (task for task in self.unarchived(longer_than) if _is_due(task, self._now()))

    def restart_polling(self, longer_than: timedelta, *, limit: int = MAX_TASKS_PER_RUN) -> Iterator[Repaired]:
        """Starts polling for overdue tasks, batch by batch, and notes it on each.

        An execution is named after its tasks and their last changes: a batch whose notes were not written before a
        crash is the same execution when it is started again. The notes are what takes a task out of the next run.
        """
        tasks = islice(self.overdue(longer_than), limit)
        for number, batch in enumerate(_batches(tasks, MAX_TASKS_PER_EXECUTION)):
            keys = tuple(task.task for task in batch)
            # A second apart: together they would ask the providers all at once.
            start = partial(self._dispatcher.start_polling, keys, name=_execution_name(batch), wait_seconds=number)
            yield self._repair(batch, start, self._note_polling)

    def repeat_archiving(
        self, longer_than: timedelta = ARCHIVING_TAKES_AT_MOST, *, limit: int = MAX_TASKS_PER_RUN
    ) -> Iterator[Repaired]:
        """Queues tasks again that wait for archiving, batch by batch, and notes it on each.

        They may lie among the dead letters as well. Leaving them to people would be to bet that somebody comes before
        their URLs die; the archiver does not mind a second message, and a task's turn comes once a day.
        """
        for batch in _batches(islice(self.due_for_archiving(longer_than), limit), MAX_MESSAGES_PER_CALL):
            keys = tuple(task.task for task in batch)
            queue = partial(self._dispatcher.queue_archiving, keys, nonce=f"reconcile-{iso(self._now())}")
            yield self._repair(batch, queue, self._note_archiving)

    def _repair(self, batch: Sequence[Task], start: Callable[[], Any], note: Callable[[Task], None]) -> Repaired:
        keys = tuple(task.task for task in batch)
        try:
            start()
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(note, batch))
        except Exception as exc:  # noqa: BLE001 - the caller reports it, after the other batches had their turn
            return Repaired(keys, exc)
        return Repaired(keys)

    def _with_valid_keys(self, tasks: Iterable[Task]) -> Iterator[Task]:
        for task in tasks:
            if is_task_key(task.task):
                yield task
            else:
                # Put by hand: no provider can be asked about it.
                self.unreadable[task.task] = "expected provider#taskId"

    def _note_polling(self, task: Task) -> None:
        update = UpdateExpression()
        # It counts from here: not overdue again before this execution has had its time.
        update.set("updatedAt", iso(self._now()))
        update.set("reconciledAt", iso(self._now()))
        self._update_as_read(task, update)

    def _note_archiving(self, task: Task) -> None:
        update = UpdateExpression()
        # Not `updatedAt`: it is still the time since which the task has waited.
        update.set("reconciledAt", iso(self._now()))
        self._update_as_read(task, update)

    def _update_as_read(self, task: Task, update: UpdateExpression) -> None:
        # News that has come meanwhile is more than a note.
        is_as_it_was_read = " AND ".join(
            (update.equals("status", task.status.value), update.equals("updatedAt", task.updated_at))
        )
        with suppress(self._dynamodb.exceptions.ConditionalCheckFailedException), store_errors():
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"task": {"S": task.task}},
                ConditionExpression=is_as_it_was_read,
                **update.arguments(),
            )


def _is_due(task: Task, now: datetime) -> bool:
    # What was noted before the news came was about polling.
    if not task.reconciled_at or task.reconciled_at < (task.updated_at or ""):
        return True
    return task.reconciled_at < iso(now - REPEAT_ARCHIVING_AFTER)


def _execution_name(batch: Sequence[Task]) -> str:
    digest = hashlib.sha256(",".join(f"{task.task}@{task.updated_at}" for task in batch).encode()).hexdigest()
    return f"reconcile-{digest[:40]}"


def _batches(tasks: Iterator[Task], size: int) -> Iterator[list[Task]]:
    while batch := list(islice(tasks, size)):
        yield batch
