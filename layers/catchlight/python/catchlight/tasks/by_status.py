"""Queries the index byStatus: tasks by their status and the time of their last change."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catchlight.aws.dynamodb import store_errors
from catchlight.models import Reporter, TaskStatus, iso
from catchlight.tasks.table import readable_tasks
from catchlight.tasks.task import UNANSWERED, Task

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import QueryOutputTypeDef

INDEX_NAME = "byStatus"
# The resolution of `updatedAt`. BETWEEN includes both bounds: subtracting it makes the upper bound exclusive.
_RESOLUTION = timedelta(milliseconds=1)
# Excludes unregistered tasks that their provider does not know: polling for them has ended.
_MAY_BE_KNOWN = "(attribute_exists(#registeredAt) OR attribute_not_exists(#notFoundAt))"


class Only(StrEnum):
    """Filters of a query. DynamoDB also reads, and charges for, the tasks that a filter excludes."""

    # Tasks whose result comes from a callback that the provider has not confirmed, as in `Task.is_unconfirmed`.
    UNCONFIRMED = f"#reportedBy = :callback AND attribute_not_exists(#confirmedAt) AND {_MAY_BE_KNOWN}"
    # TIMED_OUT tasks whose provider did not answer when polling ended, or whose callback has reported a success without
    # a result since then, as in `Task.is_awaited`.
    AWAITED = (
        f"(#failure.#lastAnswer IN ({', '.join(f':{answer}' for answer in UNANSWERED)})"
        " OR attribute_exists(#hintedAt) AND (attribute_not_exists(#reportedAt) OR #hintedAt > #reportedAt))"
        f" AND {_MAY_BE_KNOWN}"
    )


@dataclass(frozen=True, slots=True)
class CountedPage:
    """The number of tasks on one page of a query, without the tasks themselves."""

    tasks: int
    read_units: float  # consumed read capacity units


class TasksByStatus:
    """Queries the index byStatus. It is eventually consistent: it may lag behind the table by about a second.

    Every method raises StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(
        self, table: str, client: "DynamoDBClient", *, unreadable: Callable[[str, str], None] | None = None
    ) -> None:
        self._table = table
        self._client = client
        # Called with the key of each malformed item, which is omitted, and the names of its malformed attributes.
        self._unreadable = unreadable

    def tasks(
        self,
        status: TaskStatus,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        page_size: int | None = None,
        only: Only | None = None,
    ) -> Iterator[Task]:
        """Yields the tasks of this status whose last change is at or after `since` and before `before`.

        They are sorted by the time of this change, oldest first. A malformed item, for example one that was edited by
        hand, is omitted, and `unreadable` is called.
        """
        limit = {"Limit": page_size} if page_size else {}
        for page in self._pages(status, since, before, only, **limit):
            yield from readable_tasks(page["Items"], self._unreadable)

    def count(
        self,
        status: TaskStatus,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        only: Only | None = None,
    ) -> Iterator[CountedPage]:
        """Counts the tasks that `tasks` would yield, page by page. DynamoDB reads, and charges for, all of them."""
        options = {"Select": "COUNT", "ReturnConsumedCapacity": "TOTAL"}
        for page in self._pages(status, since, before, only, **options):
            yield CountedPage(page["Count"], page.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0))

    def _pages(
        self, status: TaskStatus, since: datetime | None, before: datetime | None, only: Only | None, **options: Any
    ) -> Iterator["QueryOutputTypeDef"]:
        if since and before and since >= before:
            return
        is_status, is_in_period = "#status = :status", None
        values = {":status": {"S": status.value}}
        if since:
            values[":first"] = {"S": iso(since)}
            is_in_period = "#updatedAt >= :first"
        if before:
            values[":last"] = {"S": iso(before - _RESOLUTION)}
            is_in_period = "#updatedAt BETWEEN :first AND :last" if since else "#updatedAt <= :last"
        condition = " AND ".join(filter(None, (is_status, is_in_period)))
        if only:
            options["FilterExpression"] = only.value
        if only is Only.UNCONFIRMED:
            values[":callback"] = {"S": Reporter.CALLBACK.value}
        elif only is Only.AWAITED:
            values |= {f":{answer}": {"S": answer.value} for answer in UNANSWERED}
        arguments = options | {
            "TableName": self._table,
            "IndexName": INDEX_NAME,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": name for name in re.findall(r"#(\w+)", f"{condition} {only}")},
            "ExpressionAttributeValues": values,
        }
        with store_errors():
            yield from self._client.get_paginator("query").paginate(**arguments)
