"""Idempotency keys: each is claimed before a provider is asked, and remembers what came of it.

A claim is an item of the tasks table under a key that is no task's. It has no `status`: it is in no index, and nothing
follows from it.

    IN_PROGRESS    the provider is being asked by whoever has claimed the key; later, nobody knows what came of it
    IN_DOUBT  there was no answer that tells: a task may have been made
    COMPLETED     the provider has made a task of it
    RELEASED      it was refused for certain, or given up while it was in doubt: the next request takes the key over
"""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catchlight.aws.dynamodb import deserialized, store_errors
from catchlight.aws.update_expression import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.models import Model, task_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# No function works on a request for longer than 29 s, so whoever asked has come to an end by then.
ASKING_TIME = timedelta(seconds=35)
# A callback that writes to the task at the same moment cancels the transaction.
MAX_WRITES = 3
PAUSE_SECONDS = 0.05
# After that nothing is written once more: the function needs what time it has left to tell which task it is.
MAX_WRITING_SECONDS = 1.0


class IdempotencyState(StrEnum):
    """What became of a request."""

    IN_PROGRESS = "IN_PROGRESS"
    IN_DOUBT = "IN_DOUBT"
    COMPLETED = "COMPLETED"
    RELEASED = "RELEASED"


class IdempotencyRecord(Model):
    """An idempotency key in use."""

    key: str
    provider: str
    fingerprint: str  # of the request: another one under the same key is somebody's mistake
    attempt: str  # who holds the claim
    asked_at: str
    state: IdempotencyState = IdempotencyState.IN_PROGRESS
    doubt: str | None = None
    task_id: str | None = None

    def is_asking(self, now: datetime) -> bool:
        """Whether somebody may still be at it."""
        return self.state is IdempotencyState.IN_PROGRESS and now - datetime.fromisoformat(self.asked_at) < ASKING_TIME


class IdempotencyStore:
    """Reads and writes claims.

    Every method raises StoreUnavailableError when DynamoDB does not take a call.
    """

    def __init__(self, table: str, client: "DynamoDBClient", *, retention: timedelta | None = None) -> None:
        self._table = table
        self._client = client
        # As long as the tasks are kept; None: for ever.
        self._retention = retention

    def claim(self, claim: IdempotencyRecord) -> IdempotencyRecord:
        """Claims a key. Returns the claim that holds it: this one, unless another was there before."""
        is_new = "attribute_not_exists(#task)"
        is_free = "#state = :free"
        update = UpdateExpression()
        for name, value in claim.model_dump(by_alias=True, exclude_none=True).items():
            update.set(name, value)
        for name in ("doubt", "taskId"):
            update.remove(name)
        if self._retention:
            expires_at = datetime.fromisoformat(claim.asked_at) + self._retention
            update.set("deleteAfter", int(expires_at.timestamp()))
        arguments = update.arguments()
        arguments["ExpressionAttributeNames"]["#task"] = "task"
        arguments["ExpressionAttributeValues"][":free"] = {"S": IdempotencyState.RELEASED.value}
        try:
            with store_errors():
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(claim.key),
                    ConditionExpression=f"{is_new} OR {is_free}",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **arguments,
                )
        except self._client.exceptions.ConditionalCheckFailedException as exc:
            # It is this very claim if the answer to a first try was lost on its way.
            return _claim(exc.response["Item"])  # type: ignore[typeddict-item] # the stubs leave it out
        return claim

    def find(self, key: str) -> IdempotencyRecord | None:
        """The claim that holds a key, None if it is free."""
        with store_errors():
            answer = self._client.get_item(TableName=self._table, Key=_key(key), ConsistentRead=True)
        return _claim(answer["Item"]) if "Item" in answer else None

    def free(self, claim: IdempotencyRecord) -> bool:
        """Frees a key for the next request. Returns False if its claim has changed: nothing is written then."""
        update = UpdateExpression()
        update.set("state", IdempotencyState.RELEASED.value)
        return self._update(claim, update)

    def doubt(self, claim: IdempotencyRecord, reason: str) -> None:
        """Notes that nobody knows what came of a request.

        Raises:
            StoreUnavailableError: only the reason is lost; a claim that nobody settles comes to be in doubt by itself.
        """
        update = UpdateExpression()
        update.set("state", IdempotencyState.IN_DOUBT.value)
        update.set("doubt", reason)
        self._update(claim, update)

    def settle(self, claim: IdempotencyRecord, task_id: str, new_task: UpdateExpression) -> None:
        """Notes which task a request has become, and registers the task, both or neither.

        Raises:
            StoreUnavailableError: neither was written.
        """
        update = UpdateExpression()
        update.set("state", IdempotencyState.COMPLETED.value)
        update.set("taskId", task_id)
        update.remove("doubt")
        is_mine = update.equals("attempt", claim.attempt)
        task = {"task": {"S": task_key(claim.provider, task_id)}}
        writes: list[Any] = [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": _key(claim.key),
                    "ConditionExpression": is_mine,
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

    def _update(self, claim: IdempotencyRecord, update: UpdateExpression) -> bool:
        is_as_it_was = " AND ".join(
            (update.equals("attempt", claim.attempt), update.equals("state", claim.state.value))
        )
        try:
            with store_errors():
                self._client.update_item(
                    TableName=self._table, Key=_key(claim.key), ConditionExpression=is_as_it_was, **update.arguments()
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _key(key: str) -> dict[str, Any]:
    # Begins where a task's key has its provider.
    return {"task": {"S": f"#submission#{key}"}}


def _claim(item: Mapping[str, Any]) -> IdempotencyRecord:
    return IdempotencyRecord.model_validate(deserialized(item))
