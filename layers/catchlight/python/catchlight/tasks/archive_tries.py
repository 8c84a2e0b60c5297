"""Notes in a task's item the tries of archiving it that have failed, and the one that is under way.

SQS counts how often a message was received: also if Lambda was throttled, or the function was killed. The item has the
number of tries that have ended, and a mark that a killed one leaves behind. A task that is archived at the first try is
not written to.
"""

from datetime import datetime

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import Task, iso
from catchlight.tasks.table import TasksTable, is_as_read


class ArchiveTries:
    """Writes tries to the tasks table. Every method raises StoreUnavailableError when a call to DynamoDB fails."""

    def __init__(self, table: TasksTable) -> None:
        self._table = table

    def begin(self, task: Task, *, now: datetime) -> None:
        """Notes that a try is under way, unless the task has changed since it was read."""
        update = UpdateExpression()
        update.set("archivingSince", iso(now))
        self._table.update(task.task, update, condition=is_as_read(task, update))

    def end(self, task: Task, *, has_failed: bool, is_negative: bool = False) -> None:
        """Notes that the try has ended.

        A failed try is counted in `archiveTries`, one in which an image's host gave a negative answer also in
        `negativeTries`.
        """
        update = UpdateExpression()
        update.remove("archivingSince")
        if has_failed:
            update.add("archiveTries", 1)
        if is_negative:
            update.add("negativeTries", 1)
        # Not `is_as_read`: the try itself may have changed the task. A deleted task must not be created again.
        self._table.update(task.task, update, condition="attribute_exists(task)")
