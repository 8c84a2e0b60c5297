"""Registering: the item that a task begins with, and its place in the feed of all tasks."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

from catchlight.aws.dynamodb import store_errors
from catchlight.aws.update_expression import UpdateExpression
from catchlight.models import GenerationRequest, TaskStatus, iso, task_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# The one partition of the index byArrival: see there for how much it bears.
FEED = "tasks"
# A hundred registrations take about half a second; boto3's pool has as many connections.
MAX_CONCURRENT_WRITES = 10


def set_arrival(update: UpdateExpression, moment: datetime) -> None:
    """Puts a task into the feed, where it stays: at the time when the table first heard of it."""
    update.set_once("feed", FEED)
    update.set_once("arrivedAt", iso(moment))


def new_task(
    provider_id: str,
    task_id: str,
    *,
    now: datetime,
    request: GenerationRequest | None = None,
    idempotency_key: str | None = None,
) -> UpdateExpression:
    """What a registered task has. Changes nothing that is known of it already: its callback may have been faster."""
    update = UpdateExpression()
    update.set_once("provider", provider_id)
    update.set_once("taskId", task_id)
    update.set_once("status", TaskStatus.PENDING.value)
    update.set_once("rank", TaskStatus.PENDING.rank)
    update.set_once("registeredAt", iso(now))
    update.set_once("updatedAt", iso(now))
    set_arrival(update, now)
    if request:
        update.set_once("request", request.model_dump(mode="json", by_alias=True, exclude_none=True))
    if idempotency_key:
        update.set_once("idempotencyKey", idempotency_key)
    return update


class Registry:
    """Registers tasks that were submitted elsewhere."""

    def __init__(self, table: str, client: "DynamoDBClient") -> None:
        self._table = table
        self._client = client

    def register(self, provider_id: str, task_ids: Sequence[str], *, now: datetime) -> list[bool]:
        """Registers tasks; says of each, in their order, whether it is new.

        Raises:
            StoreUnavailableError: some may be registered. Doing it again finds them known.
        """
        with ThreadPoolExecutor(min(MAX_CONCURRENT_WRITES, len(task_ids))) as pool:
            return list(pool.map(lambda task_id: self._register(provider_id, task_id, now), task_ids))

    def _register(self, provider_id: str, task_id: str, now: datetime) -> bool:
        try:
            with store_errors():
                self._client.update_item(
                    TableName=self._table,
                    Key={"task": {"S": task_key(provider_id, task_id)}},
                    ConditionExpression="attribute_not_exists(task)",
                    **new_task(provider_id, task_id, now=now).arguments(),
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True
