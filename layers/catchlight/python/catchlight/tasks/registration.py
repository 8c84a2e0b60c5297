"""Registers tasks: writes their first item and adds them to the index of all tasks by arrival."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

from catchlight.aws.dynamodb import store_errors
from catchlight.aws.update_expression import UpdateExpression
from catchlight.models import GenerationRequest, TaskStatus, iso, task_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# The only partition key of the index byArrival: see the index in the template for the throughput that this allows.
FEED = "tasks"
# A hundred registrations take about half a second; botocore's connection pool has the same size.
MAX_CONCURRENT_WRITES = 10


def set_arrival(update: UpdateExpression, moment: datetime) -> None:
    """Adds a task to the index byArrival, at the time of its first write. Later writes do not change this time."""
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
    """Builds the update that registers a task. It keeps existing attributes, because a callback may come first."""
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
        """Registers tasks and returns for each, in the given order, whether it is new.

        Raises:
            StoreUnavailableError: some tasks may be registered. Repeating the call is safe: these are not new then.
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
