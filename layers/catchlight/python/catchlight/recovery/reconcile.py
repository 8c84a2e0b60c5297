"""Finds tasks whose processing has stopped, by their status in the table, and restarts polling or archiving.

A task is PENDING until its callback comes or the state machine, which polls for it, has a result, and SUCCEEDED for the
seconds that archiving takes. If a task keeps one of these statuses for longer, its processing has stopped: an execution
was stopped, a change was not dispatched, or a message ran out of tries. The item in the table shows this regardless of
the cause.

A task that is FAILED or UNCONFIRMED by a callback alone is polled for until its provider confirms or contradicts the
callback. So is a TIMED_OUT task if its provider did not answer when polling gave up, or if a callback has reported a
success without a result since then. Polling also ends if the provider does not know the task and the task is not
registered.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from catchlight.aws.batches import MAX_MESSAGES_PER_CALL, batches
from catchlight.dispatch import MAX_TASKS_PER_EXECUTION, Dispatcher, execution_name
from catchlight.models import TaskStatus, is_task_key, iso
from catchlight.tasks.by_status import CountedPage, Only, TasksByStatus
from catchlight.tasks.restarts import Restarts
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# Polling of a task whose callback is overdue starts after FirstPollAfterSeconds, 15 minutes at most, and with all tries
# of its message within half an hour.
MAX_STARTING_TIME = timedelta(hours=1)
# Archiving takes seconds. A task that has waited for an hour may still be retried, or its message may be lost.
MAX_ARCHIVING_TIME = timedelta(hours=1)
# An execution confirms a callback's report within minutes, if the provider answers.
MAX_CONFIRMING_TIME = timedelta(hours=1)
# The longest lifetime of a result's URL. Tasks that changed earlier are not searched for, because each run reads all
# tasks that have failed or timed out since then.
FAILURES_SEARCHED = timedelta(days=14)
# A task that keeps failing, for example because a provider's API key is missing, is queued again once a day instead of
# once an hour, because each time adds a message to the queue.
REPEAT_ARCHIVING_AFTER = timedelta(days=1)
# The maximum per run: 40 concurrent executions of 50 tasks are as much load as providers accept. The next run continues
# with the rest.
MAX_TASKS_PER_RUN = 2000
# Concurrent writes.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Repaired:
    """A batch of tasks whose polling or archiving was restarted. After an error, some may not have been restarted."""

    tasks: tuple[str, ...]
    error: Exception | None = None  # the next run retries the batch


class Reconciliation:
    """Counts and restarts tasks whose processing has stopped. Interrupted and concurrent runs do no harm.

    Every method raises StoreUnavailableError if a DynamoDB read fails; the next run continues from there. If a batch
    fails, the others are still processed.
    """

    def __init__(
        self, table: str, dynamodb: "DynamoDBClient", dispatcher: Dispatcher, *, now: Callable[[], datetime]
    ) -> None:
        # By task key: why the results so far do not contain the item.
        self.unreadable: dict[str, str] = {}
        self._index = TasksByStatus(table, dynamodb, unreadable=self.unreadable.__setitem__)
        self._table = TasksTable(table, dynamodb)
        self._restarts = Restarts(self._table)
        self._dispatcher = dispatcher
        self._now = now

    def pending_too_long(self, longer_than: timedelta) -> int:
        """Counts the tasks that are PENDING and have not changed for `longer_than`."""
        return _tasks_on(self._index.count(TaskStatus.PENDING, before=self._now() - longer_than))

    def archiving_too_long(self) -> int:
        """Counts the tasks that are SUCCEEDED and have not changed for MAX_ARCHIVING_TIME."""
        return _tasks_on(self._index.count(TaskStatus.SUCCEEDED, before=self._now() - MAX_ARCHIVING_TIME))

    def unconfirmed_failures(self) -> int:
        """Counts the tasks that an unconfirmed callback has made FAILED longer than MAX_CONFIRMING_TIME ago."""
        since, before = self._confirming_period()
        return _tasks_on(self._index.count(TaskStatus.FAILED, since=since, before=before, only=Only.UNCONFIRMED))

    def oldest_pending(self) -> Task | None:
        """Returns the PENDING task that has not changed for the longest time; None if no task is PENDING."""
        return next(self._index.tasks(TaskStatus.PENDING, page_size=1), None)

    def overdue(self, longer_than: timedelta) -> Iterator[Task]:
        """Yields the tasks that are PENDING and have not changed for `longer_than`, the oldest first.

        Also yields those for which no polling was started within MAX_STARTING_TIME.
        """
        last_change = self._now() - longer_than
        tasks = self._index.tasks(TaskStatus.PENDING, before=max(last_change, self._now() - MAX_STARTING_TIME))
        return self._with_valid_keys(
            task
            for task in tasks
            # Both are ISO 8601 in UTC with milliseconds, which sort by time.
            if (task.updated_at or "") < iso(last_change) or (task.polling_since or "") < (task.updated_at or "")
        )

    def unarchived(self) -> Iterator[Task]:
        """Yields the tasks that are SUCCEEDED and have not changed for MAX_ARCHIVING_TIME, the oldest first."""
        tasks = self._index.tasks(TaskStatus.SUCCEEDED, before=self._now() - MAX_ARCHIVING_TIME)
        return self._with_valid_keys(tasks)

    def unconfirmed(self, longest_polling: timedelta) -> Iterator[Task]:
        """Yields tasks that have waited longer than MAX_CONFIRMING_TIME for an answer of their provider.

        They are FAILED or UNCONFIRMED by a callback alone; or TIMED_OUT, and either their provider did not answer when
        polling gave up, or a later callback reported a success without a result. Those for which polling was restarted
        within `longest_polling` are omitted.
        """
        searched = (
            (TaskStatus.FAILED, Only.UNCONFIRMED),
            (TaskStatus.UNCONFIRMED, Only.UNCONFIRMED),
            (TaskStatus.TIMED_OUT, Only.AWAITED),
        )
        since, before = self._confirming_period()
        found = (self._index.tasks(status, since=since, before=before, only=only) for status, only in searched)
        tasks = self._with_valid_keys(chain.from_iterable(found))
        return (
            task
            for task in tasks
            if _is_due(task, self._now(), longest_polling) and not self._is_polled_for(task, longest_polling)
        )

    def _is_polled_for(self, task: Task, longest_polling: timedelta) -> bool:
        """Decides whether a TIMED_OUT task is polled for, or its message for StartPolling is still queued.

        Tasks with another status need no such check: the result is False.
        """
        if task.status is not TaskStatus.TIMED_OUT:
            return False
        is_new = (task.hinted_at or "") > iso(self._now() - MAX_STARTING_TIME)
        return is_new or task.is_being_polled(since=self._now() - longest_polling)

    def _confirming_period(self) -> tuple[datetime, datetime]:
        now = self._now()
        return now - FAILURES_SEARCHED, now - MAX_CONFIRMING_TIME

    def read_stuck(self, longest_polling: timedelta) -> None:
        """Reads all tasks whose processing has stopped. Afterwards `unreadable` contains the malformed ones."""
        for tasks in (self.overdue(longest_polling), self.unarchived(), self.unconfirmed(longest_polling)):
            deque(tasks, maxlen=0)

    def due_for_archiving(self) -> Iterator[Task]:
        """Yields the `unarchived` tasks that were not queued again within REPEAT_ARCHIVING_AFTER."""
        return (task for task in self.unarchived() if _is_due(task, self._now(), REPEAT_ARCHIVING_AFTER))

    def restart_polling(self, longer_than: timedelta, *, limit: int = MAX_TASKS_PER_RUN) -> Iterator[Repaired]:
        """Starts polling for overdue tasks in batches, and sets `updatedAt` and `reconciledAt` of each task.

        An execution's name is derived from its tasks and their last changes: if a crash prevents these writes, the next
        run starts the same batch under the same name, which Step Functions ignores. A task whose timestamps were
        written is not overdue in the next run.
        """
        return self._restart_polling(islice(self.overdue(longer_than), limit), self._restarts.note_polling)

    def poll_unconfirmed(self, longest_polling: timedelta, *, limit: int = MAX_TASKS_PER_RUN) -> Iterator[Repaired]:
        """Starts polling for `unconfirmed` tasks in batches, and sets `reconciledAt` of each task."""
        return self._restart_polling(islice(self.unconfirmed(longest_polling), limit), self._restarts.note_restart)

    def _restart_polling(self, tasks: Iterable[Task], note: Callable[..., bool]) -> Iterator[Repaired]:
        for batch in batches(tasks, MAX_TASKS_PER_EXECUTION):
            keys = tuple(task.task for task in batch)
            name = execution_name("reconcile", (f"{task.task}@{_last_restart(task)}" for task in batch))
            start = partial(self._dispatcher.start_polling, keys, name=name)
            yield self._repair(batch, start, note)

    def repeat_archiving(self, *, limit: int = MAX_TASKS_PER_RUN) -> Iterator[Repaired]:
        """Queues tasks that wait for archiving again, in batches, and sets `reconciledAt` of each task.

        Their messages may also be in the dead-letter queue, but the URLs may expire before an operator redrives them. A
        second message does no harm, and each task is queued at most once a day.
        """
        return self._repeat_archiving(islice(self.due_for_archiving(), limit))

    def _repeat_archiving(self, tasks: Iterable[Task]) -> Iterator[Repaired]:
        for batch in batches(tasks, MAX_MESSAGES_PER_CALL):
            keys = tuple(task.task for task in batch)
            queue = partial(self._dispatcher.queue_archiving, keys, nonce=f"reconcile-{iso(self._now())}")
            yield self._repair(batch, queue, self._restarts.note_restart)

    def read_tasks(self, tasks: Collection[str]) -> list[Task]:
        """Reads the tasks with these keys. Malformed items are omitted, and added to `unreadable`."""
        keys = [task for task in tasks if is_task_key(task)]
        return list(self._table.get_many(keys, unreadable=self.unreadable.__setitem__).values())

    def start_polling_of(self, tasks: Iterable[Task], longest_polling: timedelta) -> Iterator[Repaired]:
        """Starts polling for those of the tasks that need it and that no execution polls for, in batches.

        `longest_polling`: an execution that was started earlier than this has ended.
        """
        since = self._now() - longest_polling
        due = (task for task in tasks if task.needs_polling and not task.is_being_polled(since=since))
        return self._restart_polling(due, self._restarts.note_start)

    def start_archiving_of(self, tasks: Iterable[Task]) -> Iterator[Repaired]:
        """Queues those of the tasks whose images may not be archived yet, in batches, at most once a day each."""
        with_images = (
            task for task in tasks if task.status is TaskStatus.SUCCEEDED or (task.is_awaited and task.images)
        )
        return self._repeat_archiving(
            task for task in with_images if _is_due(task, self._now(), REPEAT_ARCHIVING_AFTER)
        )

    def _repair(self, batch: Sequence[Task], start: Callable[[], Any], note: Callable[..., bool]) -> Repaired:
        keys = tuple(task.task for task in batch)
        try:
            start()
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(partial(note, now=self._now()), batch))
        except Exception as exc:  # noqa: BLE001 - the caller reports it and continues with the other batches
            return Repaired(keys, exc)
        return Repaired(keys)

    def _with_valid_keys(self, tasks: Iterable[Task]) -> Iterator[Task]:
        for task in tasks:
            if is_task_key(task.task):
                yield task
            else:
                # Written by hand: without a valid key the task can be neither polled nor archived.
                self.unreadable[task.task] = "expected provider#taskId"


def _tasks_on(pages: Iterable[CountedPage]) -> int:
    return sum(page.tasks for page in pages)


def _is_due(task: Task, now: datetime, repeat_after: timedelta) -> bool:
    # A timestamp older than the last change belongs to an earlier status of the task.
    if not task.reconciled_at or task.reconciled_at < (task.updated_at or ""):
        return True
    return task.reconciled_at < iso(now - repeat_after)


def _last_restart(task: Task) -> str:
    return max(each or "" for each in (task.updated_at, task.reconciled_at, task.polling_since, task.hinted_at))
