"""What a page of `GET /tasks` takes with 100,000 tasks in the table: calls, entries read, time; first, middle, last.

    .venv/bin/python tests/benchmarks/list_tasks.py [--tasks 100000] [--endpoint-url http://127.0.0.1:8000]

Exit status 1 unless every page is one Query, and one BatchGetItem where the index holds no whole items. The store is
moto's, in this process, which looks at all tasks for each query and takes seconds for it: its times tell nothing of
DynamoDB, and stand beside the desk's own. `--endpoint-url` takes a store that runs already, as AWS's DynamoDB Local.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from moto import mock_aws
from moto.dynamodb.models import dynamodb_backends
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
TABLE, BUCKET, REGION = "tasks", "images-bucket", "us-east-1"
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
    "POWERTOOLS_LOG_LEVEL": "ERROR",
    "PROVIDER_KEYS_SECRET": "unused",
    "TASKS_TABLE": TABLE,
}
QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"since": "2026-01-01T00:00:00Z"},
    {"provider": "acedata"},
    {"status": "ARCHIVED"},
    {"status": "FAILED", "provider": "acedata"},
)


def main() -> int:
    """Fills a table, asks for pages, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--endpoint-url")
    options = parser.parse_args()
    os.environ |= ENVIRONMENT
    if options.endpoint_url:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = options.endpoint_url
    with ExitStack() as stack:
        if not options.endpoint_url:
            stack.enter_context(mock_aws())
        return measure(options.tasks, options.endpoint_url)


def measure(tasks: int, endpoint_url: str | None) -> int:
    """Prints what pages take; returns the exit status."""
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "layers" / "image_tasks" / "python")]
    began = time.monotonic()
    fill(tasks, endpoint_url)
    store = endpoint_url or "moto in this process"
    console = Console()
    console.print(f"{tasks:,} tasks in {store}, filled in {time.monotonic() - began:.0f} s.\n")
    desk = MeasuredDesk()
    table = Table(title="A page of 100 tasks", title_justify="left")
    for column in ("query", "page", "tasks", "calls", "entries read", "desk's CPU", "store"):
        table.add_column(column, justify="left" if column in ("query", "page", "calls") else "right")
    status = 0
    for query in QUERIES:
        for name, page in desk.pages(query, tasks, repeats=5 if endpoint_url else 1):
            table.add_row(
                " ".join(query) or "all",
                *(name, str(page.tasks), " + ".join(page.calls), f"{page.entries:,}"),
                *(f"{page.desk_ms:.0f} ms", f"{page.store_ms:.0f} ms"),
            )
            if page.calls not in (["Query"], ["Query", "BatchGetItem"]):
                status = 1
    console.print(table)
    console.print("Every page is one query." if status == 0 else "A page took more than one query.")
    return status


# ------------------------------------------------------------------------------------------------ the store


def fill(tasks: int, endpoint_url: str | None) -> None:
    """Makes the table that the template describes, and puts that many tasks into it."""
    from local.template import ACCOUNT_ID, load_template

    described = load_template(REPOSITORY / "template.yaml", {}).resources["TasksTable"]["Properties"]
    client = boto3.client("dynamodb")
    client.create_table(
        TableName=TABLE,
        **{name: described[name] for name in ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")},
        BillingMode="PAY_PER_REQUEST",
    )
    if endpoint_url is None:
        table = dynamodb_backends[ACCOUNT_ID][REGION].get_table(TABLE)
        for item in items(tasks):
            table.put_item(item)
        return

    def write(batch: list[dict[str, Any]]) -> None:
        requests: Any = {TABLE: [{"PutRequest": {"Item": item}} for item in batch]}
        while requests:
            requests = client.batch_write_item(RequestItems=requests)["UnprocessedItems"]

    left = items(tasks)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(write, iter(lambda: list(islice(left, 25)), [])))


def items(tasks: int) -> Iterator[dict[str, Any]]:
    """Tasks with two images each, as they are in the end: about 2 KB."""
    from boto3.dynamodb.types import TypeSerializer

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
    """When something of a task happened."""
    from image_tasks.models import iso

    return iso(BEGIN + timedelta(seconds=number + seconds))


# ------------------------------------------------------------------------------------------------ the desk


@dataclass
class Page:
    """What one page took."""

    tasks: int = 0
    calls: list[str] = field(default_factory=list)
    entries: int = 0
    store_ms: float = 0  # by the clock
    desk_ms: float = 0  # of a processor, beside the calls: clocks tell little on a busy machine


class MeasuredDesk:
    """The desk's handler, and the calls of DynamoDB that it makes."""

    def __init__(self) -> None:
        from functions.answer_requests import app
        from tests.conftest import FakeLambdaContext

        self._handler, self._context = app.handler, FakeLambdaContext()
        self._page = Page()
        self._began = 0.0, 0.0
        events = app.dependencies()._dynamodb.meta.events
        events.register("before-call.dynamodb", self._before)
        events.register("after-call.dynamodb", self._after)

    def pages(self, query: dict[str, str], tasks: int, *, repeats: int) -> Iterator[tuple[str, Page]]:
        """The first page of a query, one in the middle, and the last one; times are medians."""
        from image_tasks.desk_messages import PageQuery
        from image_tasks.task_queries import _seal, _sealed

        seal = _seal(PageQuery.model_validate(query))
        for name, number in (("first", None), ("middle", tasks // 2), ("last", 100)):
            cursor = {}
            if number is not None:
                order = moment(number, 20 if "status" in query else 0)
                cursor["cursor"] = _sealed(seal, f"{PROVIDERS[number % 10]}#{number:032x}", order)
            taken = [self._ask({"limit": "100", **query, **cursor}) for _ in range(repeats)]
            page = taken[0]
            page.desk_ms = median(each.desk_ms for each in taken)
            page.store_ms = median(each.store_ms for each in taken)
            yield name, page

    def _ask(self, query: dict[str, str]) -> Page:
        self._page = Page()
        event = {"routeKey": "GET /tasks", "queryStringParameters": query, "requestContext": {"requestId": "1"}}
        began = time.process_time()
        answer = self._handler(event, self._context)
        self._page.desk_ms += (time.process_time() - began) * 1000
        assert answer["statusCode"] == 200, answer
        self._page.tasks = len(json.loads(answer["body"])["tasks"])
        return self._page

    def _before(self, model: Any, **_: Any) -> None:
        self._page.calls.append(model.name)
        self._began = time.perf_counter(), time.process_time()

    def _after(self, parsed: dict[str, Any], **_: Any) -> None:
        began, cpu_began = self._began
        self._page.store_ms += (time.perf_counter() - began) * 1000
        self._page.desk_ms -= (time.process_time() - cpu_began) * 1000
        self._page.entries += parsed.get("ScannedCount", 0)


if __name__ == "__main__":
    sys.exit(main())
