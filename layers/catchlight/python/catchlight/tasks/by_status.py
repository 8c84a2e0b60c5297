"""Queries the index `byStatus`: tasks by their status and the time of their last change."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from catchlight.aws.dynamodb import deserialized, malformed_attributes, store_errors
from catchlight.models import UNANSWERED, Reporter, Task, TaskStatus, iso

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

INDEX_NAME = "byStatus"
# The resolution of `updatedAt`. BETWEEN includes both bounds, so one tick makes the upper one exclusive.
_TICK = timedelta(milliseconds=1)
# No further answer is expected about an unregistered task that its provider does not know.
_MAY_BE_KNOWN = "(attribute_exists(#registeredAt) OR attribute_not_exists(#notFoundAt))"


class Only(StrEnum):
    """Filters of a search. DynamoDB reads, and charges for, the tasks that a filter leaves out."""

    # The result comes from a callback that the provider has not confirmed, as `Task.is_unconfirmed` decides.
    UNCONFIRMED = f"#reportedBy = :callback AND attribute_not_exists(#confirmedAt) AND {_MAY_BE_KNOWN}"
    # Polling gave up while the provider did not answer, or a callback has reported a success without a result since
    # then, as `Task.is_awaited` decides.
    AWAITED = (
        f"(#failure.#lastAnswer IN ({', '.join(f':{answer}' for answer in UNANSWERED)})"
        " OR attribute_exists(#hintedAt) AND (attribute_not_exists(#reportedAt) OR #hintedAt > #reportedAt))"
        f" AND {_MAY_BE_KNOWN}"
    )

    @property
    def names(self) -> set[str]:
        """The attributes that the filter compares."""
        return set(re.findall(r"#(\w+)", self))


@dataclass(frozen=True, slots=True)
class CountedPage:
    """The number of tasks on one page of the index, without the tasks themselves."""

    tasks: int
    read_units: float  # consumed read capacity units


class TasksByStatus:
    """Reads the index. It is eventually consistent: results may lag behind the table by about a second.

    Every method raises StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(
        self, table: str, client: "DynamoDBClient", *, unreadable: Callable[[str, str], None] | None = None
    ) -> None:
        self._table = table
        self._client = client
        # Called with the key of each omitted item and the names of its malformed attributes.
        self._unreadable = unreadable

    def tasks(
        self,
        status: TaskStatus,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        newest_first: bool = False,
        page_size: int | None = None,
        only: Only | None = None,
    ) -> Iterator[Task]:
        """Yields the tasks of this status whose last change is at or after `since` and before `before`.

        They are sorted by the time of this change, oldest first by default. A malformed item, for example one edited by
        hand, is omitted, and `unreadable` is called.
        """
        more = {"Limit": page_size} if page_size else {}
        for page in self._pages(status, since, before, only, ScanIndexForward=not newest_first, **more):
            for item in page["Items"]:
                try:
                    task = Task.model_validate(deserialized(item))
                except ValidationError as exc:
                    if self._unreadable:
                        self._unreadable(item["task"]["S"], malformed_attributes(exc))
                else:
                    yield task

    def count(
        self,
        status: TaskStatus,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        only: Only | None = None,
    ) -> Iterator[CountedPage]:
        """Counts the tasks of a status in a span of time, page by page. DynamoDB reads and charges for every item."""
        how = {"Select": "COUNT", "ReturnConsumedCapacity": "TOTAL"}
        for page in self._pages(status, since, before, only, **how):
            yield CountedPage(page["Count"], page.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0))

    def _pages(
        self, status: TaskStatus, since: datetime | None, before: datetime | None, only: Only | None, **how: Any
    ) -> Iterator[dict[str, Any]]:
        if since and before and since >= before:
            return
        is_status, is_in_span = "#status = :status", None
        values = {":status": {"S": status.value}}
        names = {"#status": "status"}
        if since:
            values[":first"] = {"S": iso(since)}
            is_in_span = "#updatedAt >= :first"
        if before:
            values[":last"] = {"S": iso(before - _TICK)}
            is_in_span = "#updatedAt BETWEEN :first AND :last" if since else "#updatedAt <= :last"
        if is_in_span:
            names["#updatedAt"] = "updatedAt"
        if only:
            how["FilterExpression"] = only.value
            names |= {f"#{name}": name for name in only.names}
            if only is Only.UNCONFIRMED:
                values[":callback"] = {"S": Reporter.CALLBACK.value}
            else:
                values |= {f":{answer}": {"S": answer.value} for answer in UNANSWERED}
        arguments = how | {
            "TableName": self._table,
            "IndexName": INDEX_NAME,
            "KeyConditionExpression": " AND ".join(filter(None, (is_status, is_in_span))),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
        while True:
            with store_errors():
                page: Any = self._client.query(**arguments)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]
