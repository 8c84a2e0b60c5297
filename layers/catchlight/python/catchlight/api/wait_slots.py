"""Limits how many requests to the tasks API wait for a task at the same time.

A waiting request uses one of the account's concurrent executions, which callbacks need as well. Lambda's reserved
concurrency cannot be the default limit: Lambda refuses any reservation in a new account, whose quota is 10.

A slot is an item of the tasks table with a key that no task can have. It has no `status`, so it is in no index and
triggers neither polling nor archiving.
"""

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.tasks.table import TasksTable

# A slot that was not released becomes free after this time. The function times out after 29 s.
SLOT_TIME = timedelta(seconds=30)
# A request tries this many random slots, with one write each. If 80 % of many slots are taken, half of the requests
# find a free one.
MAX_TRIES = 3


class WaitSlots:
    """Slots in the tasks table (`count`), each of which one waiting request can hold."""

    def __init__(self, table: TasksTable, count: int, *, now: Callable[[], datetime]) -> None:
        self._table = table
        self._count = count
        self._now = now

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Holds a slot while the block runs. Yields whether a free slot was found.

        Raises:
            StoreUnavailableError: a DynamoDB call failed.
        """
        holder = str(uuid.uuid4())
        numbers = random.sample(range(self._count), min(self._count, MAX_TRIES))  # nosec B311
        number = next((number for number in numbers if self._take(number, holder)), None)
        try:
            yield number is not None
        finally:
            if number is not None:
                self._release(number, holder)

    def _take(self, number: int, holder: str) -> bool:
        """Takes a slot for `holder`. Returns False if another request holds it."""
        now = self._now()
        update = UpdateExpression()
        update.set("holder", holder)
        update.set("heldUntil", int((now + SLOT_TIME).timestamp()))
        is_released = update.equals("heldUntil", None)
        has_expired = update.at_most("heldUntil", int(now.timestamp()))
        return self._table.update(_key(number), update, condition=f"{is_released} OR {has_expired}").is_applied

    def _release(self, number: int, holder: str) -> None:
        update = UpdateExpression()
        is_same_holder = update.equals("holder", holder)
        update.remove("heldUntil")
        # The request succeeds although its slot cannot be released: the slot becomes free after SLOT_TIME.
        with suppress(StoreUnavailableError):
            self._table.update(_key(number), update, condition=is_same_holder)


def _key(number: int) -> str:
    return f"#wait-slot#{number}"
