"""Stores idempotency keys: each key is reserved before its request is sent, and its record has the outcome.

A record is an item of the tasks table with a key that no task can have. It has no `status`, so it is in no index and
triggers neither polling nor archiving.

    IN_PROGRESS      the request is being sent; after IN_PROGRESS_TIME the outcome is unknown
    UNKNOWN_OUTCOME  the provider's response is missing or unclear: it may have created a task
    COMPLETED        the provider has created a task
    RELEASED         the provider refused or never received the request, or a caller released the key after an unknown
                     outcome: the next request may use the key again
"""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catchlight.aws.dynamodb import UpdateExpression, deserialized, store_errors
from catchlight.errors import StoreUnavailableError
from catchlight.models import Model, task_key
from catchlight.tasks.table import TasksTable, document

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# The function times out after 29 s, so the invocation that sent the request has ended by then.
IN_PROGRESS_TIME = timedelta(seconds=35)
# Maximum number of tries of the transaction: a callback that writes to the same task at the same time cancels it.
MAX_WRITES = 3
PAUSE_SECONDS = 0.05
# No further attempt after this time: the function needs the rest of its timeout to return the task id to the caller.
MAX_WRITING_SECONDS = 1.0


class IdempotencyState(StrEnum):
    """State of the request that was sent under an idempotency key; see the module's docstring."""

    IN_PROGRESS = "IN_PROGRESS"
    UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"
    COMPLETED = "COMPLETED"
    RELEASED = "RELEASED"


class IdempotencyRecord(Model):
    """An idempotency key, the request for which it was used, and the outcome."""

    key: str
    provider: str
    fingerprint: str  # hash of the request: a different request with the same key is an error
    attempt: str  # id of the attempt that reserved the key
    asked_at: str
    state: IdempotencyState = IdempotencyState.IN_PROGRESS
    reason: str | None = None  # of UNKNOWN_OUTCOME
    task_id: str | None = None

    def is_in_progress(self, now: datetime) -> bool:
        """Whether the invocation that reserved the key may still be running at the time `now`."""
        return (
            self.state is IdempotencyState.IN_PROGRESS
            and now - datetime.fromisoformat(self.asked_at) < IN_PROGRESS_TIME
        )


class IdempotencyStore:
    """Reads and writes idempotency records in the tasks table.

    Every method raises StoreUnavailableError if a DynamoDB call fails.
    """

    def __init__(self, table: str, client: "DynamoDBClient", *, retention: timedelta | None = None) -> None:
        self._table = table
        self._client = client
        self._items = TasksTable(table, client)  # its `update` works for any item of the table
        # Records expire like tasks; None means never.
        self._retention = retention

    def reserve(self, record: IdempotencyRecord) -> IdempotencyRecord:
        """Reserves a key. Returns the stored record: `record` itself, or an earlier one if the key is in use."""
        update = UpdateExpression()
        is_new = "attribute_not_exists(task)"
        is_released = update.equals("state", IdempotencyState.RELEASED.value)
        for name, value in document(record).items():
            update.set(name, value)
        for name in ("reason", "taskId"):
            update.remove(name)
        if self._retention:
            expires_at = datetime.fromisoformat(record.asked_at) + self._retention
            update.set("deleteAfter", int(expires_at.timestamp()))
        written = self._items.update(_key(record.key), update, condition=f"{is_new} OR {is_released}")
        # If botocore repeated the call because the first response was lost, the stored item is this same record.
        return record if written.is_applied else _record(written.attributes)

    def find(self, key: str) -> IdempotencyRecord | None:
        """Returns the record of a key, read consistently; None if the key was never used."""
        with store_errors():
            answer = self._client.get_item(TableName=self._table, Key={"task": {"S": _key(key)}}, ConsistentRead=True)
        return _record(answer["Item"]) if "Item" in answer else None

    def release(self, record: IdempotencyRecord) -> bool:
        """Releases a key for the next request. Returns False, without writing, if its record has changed since."""
        update = UpdateExpression()
        update.set("state", IdempotencyState.RELEASED.value)
        return self._update(record, update)

    def record_unknown_outcome(self, record: IdempotencyRecord, reason: str) -> None:
        """Records that the outcome of a request is unknown, with the reason.

        Raises:
            StoreUnavailableError: only the reason is lost. The outcome of a record that stays IN_PROGRESS counts as
                unknown after IN_PROGRESS_TIME.
        """
        update = UpdateExpression()
        update.set("state", IdempotencyState.UNKNOWN_OUTCOME.value)
        update.set("reason", reason)
        self._update(record, update)

    def complete(self, record: IdempotencyRecord, task_id: str, new_task: UpdateExpression) -> None:
        """Records the task that a request created, and registers the task, in one transaction.

        Raises:
            StoreUnavailableError: neither was written.
        """
        update = UpdateExpression()
        update.set("state", IdempotencyState.COMPLETED.value)
        update.set("taskId", task_id)
        update.remove("reason")
        is_same_attempt = update.equals("attempt", record.attempt)
        task = {"task": {"S": task_key(record.provider, task_id)}}
        writes: list[Any] = [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": {"task": {"S": _key(record.key)}},
                    "ConditionExpression": is_same_attempt,
                    **update.arguments(),
                }
            },
            {"Update": {"TableName": self._table, "Key": task, **new_task.arguments()}},
        ]
        began = time.monotonic()
        for left in reversed(range(MAX_WRITES)):
            try:
                with store_errors():
                    self._client.transact_write_items(TransactItems=writes)
            except StoreUnavailableError:
                if not left or time.monotonic() - began > MAX_WRITING_SECONDS:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                return

    def _update(self, record: IdempotencyRecord, update: UpdateExpression) -> bool:
        is_unchanged = " AND ".join(
            (update.equals("attempt", record.attempt), update.equals("state", record.state.value))
        )
        return self._items.update(_key(record.key), update, condition=is_unchanged).is_applied


def _key(key: str) -> str:
    # A task's key begins with its provider's id, never with `#`: the keys cannot collide.
    return f"#submission#{key}"


def _record(item: Mapping[str, Any]) -> IdempotencyRecord:
    return IdempotencyRecord.model_validate(deserialized(item))
