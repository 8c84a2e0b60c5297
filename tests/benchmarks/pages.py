"""Measures a page of `GET /tasks` with 100,000 tasks in the table, compared with 1,000.

    make bench FOR=pages
    .venv/bin/python -m tests.benchmarks.pages --engine dynamodb-local

Reads the first, a middle and the last page of five queries through the function's handler, and counts calls, entries
and read units. By default moto is the store. It scans all tasks for each query, so `measure` omits its duration. AWS's
DynamoDB Local has real indexes; with it, the printed durations of the store are meaningful.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import boto3
from boto3.dynamodb.types import TypeSerializer
from moto import mock_aws
from moto.dynamodb.models import dynamodb_backends
from rich.console import Console
from rich.table import Table

from catchlight.api.queries import _encode_cursor, _filters_hash
from catchlight.api.request_models import PageQuery
from catchlight.models import iso
from functions.serve_tasks_api import app
from local.account import ACCOUNT_ID
from local.template.expand import load_template
from tests.benchmarks.bill_units import item_size
from tests.benchmarks.figures import Figure, Goal, Samples, compared
from tests.conftest import FakeLambdaContext
from tests.dynamodb_local import dynamodb_local

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

REPOSITORY = Path(__file__).parents[2]
FEW, MANY = 1_000, 100_000
LIMIT = 100
BUCKET, REGION = "images-bucket", "us-east-1"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PROVIDERS = ("flux-kontext",) * 7 + ("nanobanana",) * 2 + ("acedata",)
STATUSES = ("ARCHIVED",) * 9 + ("FAILED",)
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "CALLBACK_BASE_URL": "https://callbacks.example",
    "CALLBACK_TOKEN_SECRET": "unused",
    "IMAGES_BUCKET": BUCKET,
    "PROVIDER_KEYS_SECRET": "unused",
    "TASKS_API_WAIT_LIMIT": "0",
}
QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"since": "2026-01-01T00:00:00Z"},
    {"provider": "acedata"},
    {"status": "ARCHIVED"},
    {"status": "FAILED", "provider": "acedata"},
)
POSITIONS = ("first", "middle", "last")

Query = tuple[str, str]  # its parameters, and the position of its page in the list


@dataclass
class Page:
    """The usage of one page."""

    tasks: int = 0
    calls: list[str] = field(default_factory=list)
    entries: int = 0
    read_units: float = 0  # of the returned items; with a provider filter, more items are read
    api_ms: float = 0  # CPU time between the calls
    store_ms: float = 0  # wall-clock time


def measure() -> list[Figure]:
    """Measures the most expensive page, and whether it costs more than with few tasks."""
    with moto_store():
        few, many = pages()
    full_pages = [query for query, page in many.items() if page.tasks == few[query].tasks == LIMIT]
    peer = f"with {FEW:,} tasks"

    def units(name: str, query: str, goal: Goal | None = None) -> Figure:
        mine, theirs = many[query, "middle"].read_units, few[query, "middle"].read_units
        return Figure(name, mine, "read units", peer, theirs, mine / theirs, goal)

    all_pages = many.values()
    return [
        Figure(
            f"queries, the most expensive of {len(all_pages)} pages of {MANY:,} tasks",
            *(max(page.calls.count("Query") for page in all_pages), ""),
            goal=Goal(1, of="value"),
        ),
        Figure("the same, calls of DynamoDB", max(len(page.calls) for page in all_pages), ""),
        Figure("the same, entries read", max(page.entries for page in all_pages), ""),
        units(f"a page of {LIMIT} tasks", "", Goal(1.05)),
        units(f"a page of {LIMIT} tasks of one status", "status"),
        compared(
            f"a page of {LIMIT} tasks, the tasks API's CPU time",
            Samples([many[query].api_ms for query in full_pages]),
            "ms",
            peer,
            Samples([few[query].api_ms for query in full_pages]),
        ),
    ]


def main() -> None:
    """Prints every page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--engine", choices=("moto", "dynamodb-local"), default="moto", help="the store (default: moto)"
    )
    engine = parser.parse_args().engine
    with dynamodb_local_store() if engine == "dynamodb-local" else moto_store():
        few, many = pages(repeats=5 if engine == "dynamodb-local" else 1)
    table = Table(title=f"A page with {MANY:,} tasks (with {FEW:,}), {engine}", title_justify="left")
    for column in ("query", "page", "tasks", "calls"):
        table.add_column(column)
    for column in ("entries read", "read units", "tasks API's CPU, ms", "store, ms"):
        table.add_column(column, justify="right")
    for (query, position), page in many.items():
        peer = few[query, position]
        table.add_row(
            *(query or "all", position, str(page.tasks), " + ".join(page.calls)),
            f"{page.entries} ({peer.entries})",
            "" if "provider" in query else f"{page.read_units:g} ({peer.read_units:g})",
            *(f"{page.api_ms:.1f} ({peer.api_ms:.1f})", f"{page.store_ms:.1f} ({peer.store_ms:.1f})"),
        )
    Console(width=140).print(table)


@contextmanager
def without_log() -> Iterator[None]:
    """Disables the log, which would have a line for each page."""
    level = app.logger.log_level
    app.logger.setLevel("ERROR")
    yield
    app.logger.setLevel(level)


@without_log()
def pages(*, repeats: int = 1) -> tuple[dict[Query, Page], dict[Query, Page]]:
    """Returns all pages with few and with many tasks, measured in turns: of `repeats` attempts the fastest one."""
    apis = [MeasuredApi(fill(tasks), tasks) for tasks in (FEW, MANY)]
    found: tuple[dict[Query, Page], dict[Query, Page]] = ({}, {})
    apis[0].page({}, "first")  # not measured: the first request is slower
    for query in QUERIES:
        for position in POSITIONS:
            for _ in range(repeats):
                for api, fastest in zip(apis, found, strict=True):
                    name, page = (" ".join(query), position), api.page(query, position)
                    fastest[name] = min(page, fastest.get(name, page), key=lambda page: page.store_ms)
    return found


# ------------------------------------------------------------------------------------------------ the store


@contextmanager
def moto_store() -> Iterator[None]:
    """Provides an account in this process."""
    with mock.patch.dict(os.environ, ENVIRONMENT), mock_aws():
        yield


@contextmanager
def dynamodb_local_store() -> Iterator[None]:
    """Provides AWS's DynamoDB Local in another process."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(dynamodb_local())
        stack.enter_context(mock.patch.dict(os.environ, ENVIRONMENT | {"AWS_ENDPOINT_URL_DYNAMODB": endpoint}))
        yield


def fill(tasks: int) -> str:
    """Creates a table as in the template, with this number of tasks; returns its name."""
    described = load_template(REPOSITORY / "template.yaml", {}).resources["TasksTable"]["Properties"]
    client = boto3.client("dynamodb")
    name = f"tasks-{tasks}"
    client.create_table(
        TableName=name,
        **{key: described[key] for key in ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")},
        BillingMode="PAY_PER_REQUEST",
    )
    if "AWS_ENDPOINT_URL_DYNAMODB" in os.environ:
        _put_all(client, name, items(tasks))
        return name
    table = dynamodb_backends[ACCOUNT_ID][REGION].get_table(name)
    for item in items(tasks):
        table.put_item(item)
    return name


def _put_all(client: "DynamoDBClient", name: str, left: Iterator[dict[str, Any]]) -> None:
    def put(batch: list[dict[str, Any]]) -> None:
        requests: Any = {name: [{"PutRequest": {"Item": item}} for item in batch]}
        while requests:
            requests = client.batch_write_item(RequestItems=requests)["UnprocessedItems"]

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(put, iter(lambda: list(islice(left, 25)), [])))


def items(tasks: int) -> Iterator[dict[str, Any]]:
    """Yields completed tasks with two images each: about 2 KB."""
    serialize = TypeSerializer().serialize
    for number in range(tasks):
        provider, status = PROVIDERS[number % 10], STATUSES[number // 10 % 10]
        arrived, changed = moment(number), moment(number, seconds=20)
        image = {
            "url": "https://tempfile.aiquickdraw.com/r/" + "x" * 200,
            "expiresAt": changed,
            "state": "ARCHIVED",
            "bucket": BUCKET,
            "bytes": 1_000_000,
            "sha256": "ab" * 32,
            "contentType": "image/png",
            "width": 1024,
            "height": 1024,
            "archivedAt": changed,
        }
        key = f"images/{provider}/{number:032x}"
        attributes = {
            "task": f"{provider}#{number:032x}",
            "provider": provider,
            "taskId": f"{number:032x}",
            "status": status,
            "rank": 50,
            "feed": "tasks",
            "arrivedAt": arrived,
            "registeredAt": arrived,
            "reportedAt": changed,
            "updatedAt": changed,
            "reportedBy": "callback",
            "deliveries": 1,
            "request": {"prompt": "a lighthouse " * 20, "model": "flux-kontext-pro", "size": "16:9"},
            "images": [image | {"kind": kind, "key": f"{key}/{kind}-0.png"} for kind in ("origin", "result")],
        }
        yield {name: serialize(value) for name, value in attributes.items()}


def moment(number: int, seconds: int = 0) -> str:
    """Returns the time of an event of a task."""
    return iso(BEGIN + timedelta(seconds=number + seconds))


# ------------------------------------------------------------------------------------------------ the tasks API


class MeasuredApi:
    """The tasks API's handler with one table, and the DynamoDB calls that it makes."""

    def __init__(self, table: str, tasks: int) -> None:
        self._tasks = tasks
        with mock.patch.dict(os.environ, {"TASKS_TABLE": table}):
            self._dependencies = app.Dependencies()
        self._page = Page()
        self._started_at = 0.0, 0.0
        events = self._dependencies._dynamodb.meta.events
        events.register("before-call.dynamodb", self._before)
        events.register("before-parse.dynamodb", self._received)
        events.register("after-call.dynamodb", self._after)

    def page(self, query: dict[str, str], position: str) -> Page:
        """Returns the usage of the first, a middle or the last page of a query."""
        self._page = Page()
        http = {"method": "GET", "path": "/tasks"}
        event = {
            "routeKey": "GET /tasks",
            "rawPath": "/tasks",
            "rawQueryString": "",  # used only to find unknown parameters
            "queryStringParameters": {"limit": str(LIMIT), **query, **self._cursor(query, position)},
            "requestContext": {"requestId": "1", "stage": "$default", "http": http},
        }
        with mock.patch.object(app, "dependencies", return_value=self._dependencies):
            started_at = time.process_time()
            response = app.handler(event, FakeLambdaContext())
            self._page.api_ms += (time.process_time() - started_at) * 1000
        assert response["statusCode"] == 200, response
        self._page.tasks = len(json.loads(response["body"])["tasks"])
        return self._page

    def _cursor(self, query: dict[str, str], position: str) -> dict[str, str]:
        if position == "first":
            return {}
        number = self._tasks // 2 if position == "middle" else LIMIT
        order = moment(number, 20 if "status" in query else 0)
        filters_hash = _filters_hash(PageQuery.model_validate(query))
        return {"cursor": _encode_cursor(filters_hash, f"{PROVIDERS[number % 10]}#{number:032x}", order)}

    def _before(self, model: Any, **_: Any) -> None:
        self._page.calls.append(model.name)
        self._started_at = time.perf_counter(), time.process_time()

    def _received(self, **_: Any) -> None:
        self._page.store_ms += (time.perf_counter() - self._started_at[0]) * 1000

    def _after(self, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        self._page.api_ms -= (time.process_time() - self._started_at[1]) * 1000
        self._page.entries += parsed.get("ScannedCount", 0)
        # Half a unit per 4 KB: for a query of all items together, for a batch of each item separately.
        if model.name == "Query":
            self._page.read_units += ceil(sum(map(item_size, parsed["Items"])) / 4096) / 2
        else:
            (read,) = parsed["Responses"].values()
            self._page.read_units += sum(ceil(item_size(item) / 4096) / 2 for item in read)


if __name__ == "__main__":
    main()
