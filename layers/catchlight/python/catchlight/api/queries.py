"""Reads one task, or a page of tasks, from the tasks table with as few DynamoDB calls as possible."""

import base64
import binascii
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catchlight.api.problems import INVALID_PARAMETER, APIError
from catchlight.api.request_models import MAX_TASKS_PER_PAGE, PageQuery
from catchlight.api.response_models import FINAL_STATUSES
from catchlight.aws.dynamodb import batch_get, deserialized, store_errors
from catchlight.models import iso
from catchlight.tasks.table import FEED

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

Item = Mapping[str, Any]

# The provider is not part of an index key, so a page of one provider's tasks is a Query with a filter. It reads at most
# this many entries of the index: 500 of byArrival have 60 KB (8 read units), 100 of byStatus have 100 to 300 KB.
EXAMINED_IN_FEED = 500
EXAMINED_BY_STATUS = 100
# Seconds between two reads of a task while a request waits for it. A read costs one read unit; there are a dozen reads
# in 20 s. The function's duration during the wait costs fifty times as much.
WAIT_STEPS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
# DynamoDB's limit for the value of a partition key.
MAX_KEY_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Row:
    """A task on a page, and the cursor of a page that begins after it."""

    task: str
    item: Item
    cursor: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page of tasks, newest first. `cursor` is the next page's cursor, or None on the last page."""

    rows: Sequence[Row]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class _Index:
    name: str
    partition: str  # name of the partition key's attribute
    order: str  # name of the sort key's attribute
    examined: int  # maximum number of entries that one filtered Query reads


_BY_ARRIVAL = _Index("byArrival", "feed", "arrivedAt", EXAMINED_IN_FEED)
_BY_STATUS = _Index("byStatus", "status", "updatedAt", EXAMINED_BY_STATUS)


class TaskQueries:
    """Reads single tasks and pages of tasks from the tasks table.

    Every method raises StoreUnavailableError if a DynamoDB call fails.
    """

    def __init__(
        self,
        table: str,
        client: "DynamoDBClient",
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._client = client
        self._sleep = sleep
        self._clock = clock

    def item(self, task: str, *, wait_seconds: float = 0) -> Item | None:
        """Returns a task's item, read consistently; None if there is no such item.

        While the task's status is not final, the item is read again until it is, or until `wait_seconds` have passed.
        """
        steps = iter(WAIT_STEPS)
        step = waited = 0.0
        began = self._clock()
        while (found := self._item(task)) and found.get("status") not in FINAL_STATUSES and waited < wait_seconds:
            step = min(next(steps, step), wait_seconds - waited)
            self._sleep(step)
            # The elapsed time includes the reads, which take long if DynamoDB is slow.
            waited = max(waited + step, self._clock() - began)
        return found

    def page(self, query: PageQuery) -> Page:
        """Reads one page: one Query, plus one BatchGetItem for the index byArrival, whose entries are not whole items.

        Raises:
            APIError: the query's cursor is malformed, or belongs to other filters.
        """
        index, partition = (_BY_STATUS, query.status.value) if query.status else (_BY_ARRIVAL, FEED)
        filters_hash = _filters_hash(query)
        position = _decode_cursor(query.cursor, filters_hash) if query.cursor else None
        answer = self._query(index, partition, query, position)

        def cursor_after(entry: Item) -> str:
            return _encode_cursor(filters_hash, entry["task"], entry[index.order])

        more = cursor_after(deserialized(answer["LastEvaluatedKey"])) if "LastEvaluatedKey" in answer else None
        entries = [deserialized(item) for item in answer["Items"]]
        if len(entries) > query.limit and not _filters_items(query):
            del entries[query.limit :]
            more = cursor_after(entries[-1])
        items = {entry["task"]: entry for entry in entries} if query.status else self._items(entries)
        # The index is eventually consistent: it may still contain a task that was just deleted.
        rows = [
            Row(entry["task"], items[entry["task"]], cursor_after(entry)) for entry in entries if entry["task"] in items
        ]
        # The entries of byArrival do not contain all attributes: whole items are filtered here.
        rows = [row for row in rows if _matches(row.item, query)]
        if len(rows) > query.limit:
            del rows[query.limit :]
            more = rows[-1].cursor
        return Page(rows, more)

    def _query(
        self, index: _Index, partition: str, query: PageQuery, position: tuple[str, str] | None
    ) -> Mapping[str, Any]:
        is_in_partition = "#partition = :partition"
        names, values = {"#partition": index.partition}, {":partition": {"S": partition}}
        is_recent = None
        if query.since:
            is_recent = "#order >= :since"
            names["#order"], values[":since"] = index.order, {"S": iso(query.since)}
        arguments: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": index.name,
            "KeyConditionExpression": " AND ".join(filter(None, (is_in_partition, is_recent))),
            "ScanIndexForward": False,
            "Limit": query.limit,
        }
        if query.provider:
            arguments["FilterExpression"] = "#provider = :provider"
            names["#provider"], values[":provider"] = "provider", {"S": query.provider}
            # `Limit` counts the entries that are read, not those that the filter accepts.
            arguments["Limit"] = max(index.examined, query.limit)
        if _filters_items(query):
            arguments["Limit"] = MAX_TASKS_PER_PAGE
        if position:
            task, moment = position
            if query.since and moment < iso(query.since):
                raise _invalid_cursor("its position is before `since`")
            key = {"task": task, index.partition: partition, index.order: moment}
            arguments["ExclusiveStartKey"] = {name: {"S": value} for name, value in key.items()}
        with store_errors():
            return self._client.query(ExpressionAttributeNames=names, ExpressionAttributeValues=values, **arguments)

    def _item(self, task: str) -> Item | None:
        with store_errors():
            answer = self._client.get_item(TableName=self._table, Key=_key(task), ConsistentRead=True)
        return deserialized(answer["Item"]) if "Item" in answer else None

    def _items(self, entries: Sequence[Item]) -> dict[str, Item]:
        """Reads the whole items of entries of the index byArrival."""
        keys = [_key(entry["task"]) for entry in entries]
        items = batch_get(self._client, self._table, keys, sleep=self._sleep, clock=self._clock)
        return {item["task"]: item for item in map(deserialized, items)}


def _key(task: str) -> dict[str, Any]:
    return {"task": {"S": task}}


def _filters_items(query: PageQuery) -> bool:
    """Decides whether the query has filters by attributes that the index byArrival does not contain."""
    return bool(query.ref or query.metadata or query.reason)


def _matches(item: Item, query: PageQuery) -> bool:
    """Decides whether an item has the query's `ref`, `metadata` and `reason` of a failure."""
    if query.ref and item.get("ref") != query.ref:
        return False
    failure = item.get("failure")
    if query.reason and not (isinstance(failure, Mapping) and failure.get("reason") == query.reason):
        return False
    name, _, value = (query.metadata or "").partition("=")
    metadata = item.get("metadata")
    return not query.metadata or (isinstance(metadata, Mapping) and metadata.get(name) == value)


def _filters_hash(query: PageQuery) -> str:
    """Returns a hash of the filters. Each cursor contains it, because a cursor is invalid with other filters."""
    filters: tuple[Any, ...] = (query.status, query.provider, query.since and iso(query.since))
    if _filters_items(query):
        filters = (*filters, query.ref, query.metadata, query.reason)
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:12]


def _encode_cursor(filters_hash: str, task: str, moment: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([filters_hash, task, moment]).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str, filters_hash: str) -> tuple[str, str]:
    """Decodes a cursor and returns the task and the time of the entry after which the page begins.

    Cursors are not signed: a forged cursor can only change the position at which the page begins, because the query
    determines which tasks are listed.

    Raises:
        APIError: the cursor is malformed, or belongs to other filters.
    """
    try:
        match json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)):
            case [str(found), str(task), str(moment)] if found == filters_hash and _is_key(task) and _is_key(moment):
                return task, moment
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise _invalid_cursor("it is malformed, or belongs to a list with other filters")


def _invalid_cursor(reason: str) -> APIError:
    return APIError(
        INVALID_PARAMETER,
        f"cursor: {reason}",
        advice="Pass on `cursor` of the previous page unchanged, with the same filters, or begin with the first page.",
    )


def _is_key(value: str) -> bool:
    return 0 < len(value.encode()) <= MAX_KEY_BYTES  # encode() raises a ValueError for a lone surrogate
