"""Records in tasks' items that polling was started, or that polling or archiving was restarted."""

from datetime import datetime, timedelta

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import TaskStatus, iso
from catchlight.tasks.table import TasksTable, is_as_read, set_status
from catchlight.tasks.task import Task

# The state machine counts only its planned waits, of six hours by default (GiveUpAfterSeconds). The polls themselves,
# their retries and the waits after errors take at most this time in addition. Restarting too early costs duplicate
# requests; too late, the images' URLs may expire.
POLLING_SLACK = timedelta(hours=1)


class Restarts:
    """Writes starts and restarts to the tasks table.

    Every method returns False, without writing, if the task has changed since it was read, and raises
    StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(self, table: TasksTable) -> None:
        self._table = table

    def reopen(self, task: Task, *, now: datetime) -> bool:
        """Makes a task PENDING again: the change of status in the table's stream starts polling."""
        update = UpdateExpression()
        set_status(update, TaskStatus.PENDING, now)
        for name in ("failure", "reportedBy", "reportedAt", "archivedAt", "notFoundAt"):
            update.remove(name)
        self._table.set_delete_after(update, TaskStatus.PENDING, now)
        return self._update(task, update)

    def search_again(self, task: Task) -> bool:
        """Removes `notFoundAt`, so that an unregistered task is polled again that its provider did not know."""
        update = UpdateExpression()
        update.remove("notFoundAt")
        return self._update(task, update)

    def note_start(self, task: Task, *, now: datetime) -> bool:
        """Records the start of an execution that polls for the task, unless the item has a later start."""
        update = UpdateExpression()
        # `updatedAt` stays: the task has waited for its result since then.
        update.set("pollingSince", iso(now))
        is_latest = f"(attribute_not_exists(#pollingSince) OR {update.at_most('pollingSince', iso(now))})"
        condition = f"{is_as_read(task, update)} AND {is_latest}"
        return self._table.update(task.task, update, condition=condition).is_applied

    def note_polling(self, task: Task, *, now: datetime) -> bool:
        """Records that polling of a PENDING task was restarted."""
        update = UpdateExpression()
        update.set("pollingSince", iso(now))
        # The task is overdue if it is PENDING for too long since `updatedAt`: this execution has its full time.
        update.set("updatedAt", iso(now))
        update.set("reconciledAt", iso(now))
        return self._update(task, update)

    def note_restart(self, task: Task, *, now: datetime) -> bool:
        """Records that archiving of a task, or polling for an unconfirmed or TIMED_OUT task, was restarted."""
        update = UpdateExpression()
        # `updatedAt` stays: the task has been waiting since then.
        update.set("reconciledAt", iso(now))
        return self._update(task, update)

    def _update(self, task: Task, update: UpdateExpression) -> bool:
        return self._table.update(task.task, update, condition=is_as_read(task, update)).is_applied
