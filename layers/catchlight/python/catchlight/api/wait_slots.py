"""Limits how many requests to the tasks API wait for a task at the same time.

A waiting request occupies one of the account's concurrent executions, which callbacks need as well. Lambda's reserved
concurrency cannot be the limit by default: it refuses any reservation in a new account, whose quota is 10.

A slot is an item of the tasks table whose key no task can have. It has no `status`, so it is in no index and triggers
neither polling nor archiving.
"""

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.tasks.table import TasksTable

# The function times out after 29 s: the slot of a request that ended without releasing it is free then.
SLOT_TIME = timedelta(seconds=30)
# Random slots that are tried, one write each: of many slots of which 80 % are taken, half of the requests find one.
MAX_TRIES = 3


class WaitSlots:
    """`count` slots in the tasks table, each held by one waiting request."""

    def __init__(self, table: TasksTable, count: int, *, now: Callable[[], datetime]) -> None:
        self._table = table
        self._count = count
        self._now = now

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Holds a slot while the block runs; yields False if none was found.

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
        """Takes a slot for `holder`. Returns False if another request has it."""
        now = self._now()
        update = UpdateExpression()
        update.set("holder", holder)
        update.set("heldUntil", int((now + SLOT_TIME).timestamp()))
        is_released = update.equals("heldUntil", None)
        has_expired = update.at_most("heldUntil", int(now.timestamp()))
        return self._table.update(_key(number), update, condition=f"{is_released} OR {has_expired}").is_applied

    def _release(self, number: int, holder: str) -> None:
        update = UpdateExpression()
        is_mine = update.equals("holder", holder)
        update.remove("heldUntil")
        # A slot that cannot be released becomes free after SLOT_TIME; the response is ready.
        with suppress(StoreUnavailableError):
            self._table.update(_key(number), update, condition=is_mine)


def _key(number: int) -> str:
    return f"#wait-slot#{number}"
