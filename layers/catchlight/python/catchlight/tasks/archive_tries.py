"""Records archiving tries in a task's item: the number of failed tries, and the start of a repeated one.

SQS counts how often a message was received, even if Lambda was throttled or the function was killed. The item has the
number of tries that ended with a failure, and `archivingSince`, which remains if a try is killed. A task that is
archived at the first try causes no write.
"""

from datetime import datetime

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import iso
from catchlight.tasks.table import TasksTable, is_as_read
from catchlight.tasks.task import Task


class ArchiveTries:
    """Writes archiving tries to the tasks table.

    Every method raises StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(self, table: TasksTable) -> None:
        self._table = table

    def begin(self, task: Task, *, now: datetime) -> None:
        """Records the start of a try, unless the task has changed since it was read."""
        update = UpdateExpression()
        update.set("archivingSince", iso(now))
        self._table.update(task.task, update, condition=is_as_read(task, update))

    def end(self, task: Task, *, has_failed: bool, is_negative: bool = False) -> None:
        """Records the end of a try.

        A failed try is counted in `archiveTries`; a try in which an image's host gave a negative answer, also in
        `negativeTries`.
        """
        update = UpdateExpression()
        update.remove("archivingSince")
        if has_failed:
            update.add("archiveTries", 1)
        if is_negative:
            update.add("negativeTries", 1)
        # Not `is_as_read`, because the try itself may have changed the task. A deleted task must not be created again.
        self._table.update(task.task, update, condition="attribute_exists(task)")
