"""Settings that the example's stream mapping does not use: record age, no bisecting, throttling, window, LATEST."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from moto.dynamodb.models.table import StreamShard

from local.events.stream import StreamEventSource, StreamMapping
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function, TooManyRequestsError
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches import dynamodb
from tests.waiting import eventually

URL = "http://127.0.0.1/on-failure"


class Shard:
    """A fake shard, because moto's needs a table. Tests add records to it."""

    id = "shardId-1"

    def __init__(self) -> None:
        self.items: list[Any] = []

    def add(self, name: str, age_seconds: float = 0) -> None:
        record = {
            "eventName": "INSERT",
            "dynamodb": {
                "SequenceNumber": str(100 + len(self.items)),
                "ApproximateCreationDateTime": datetime.now(UTC) - timedelta(seconds=age_seconds),
                "Keys": {"id": {"S": name}},
            },
        }
        with dynamodb._STREAM_GREW:
            self.items.append(SimpleNamespace(to_json=lambda: record))
            dynamodb._STREAM_GREW.notify_all()


class Recorder:
    """A fake function.

    `failures` has an entry for each invocation: None, a function error, or an exception to raise; later invocations
    succeed. `batches` has the ids of the records that it received.
    """

    configuration = SimpleNamespace(arn="arn:aws:lambda:us-east-1:1:function:F")

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failures: list[Any] = []

    def invoke(self, payload: bytes) -> InvocationResult:
        records = json.loads(payload)["Records"]
        self.batches.append([record["dynamodb"]["Keys"]["id"]["S"] for record in records])
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        return InvocationResult(b"{}", failure)


class Delivery:
    """A stream event source between a fake shard and a fake function; `discarded` has its on-failure messages."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.shard = Shard()
        self.function = Recorder()
        self.discarded: list[Any] = []
        self._folder = folder
        self._settings = settings
        self._source: StreamEventSource | None = None

    def start(self) -> None:
        self._source = StreamEventSource(
            StreamMapping("Mapping", "arn:aws:dynamodb:us-east-1:1:table/T/stream/1", **self._settings),
            cast("StreamShard", self.shard),
            cast("Function", self.function),
            lambda url, body: self.discarded.append((url, json.loads(body))),
            LogFolder(self._folder),
        )
        self._source.start()

    def stop(self) -> None:
        if self._source:
            self._source.stop()


@pytest.fixture
def make_delivery(tmp_path: Path) -> Iterator[Any]:
    made = []

    def make(**settings: Any) -> Delivery:
        made.append(Delivery(tmp_path, **settings))
        return made[-1]

    yield make
    for delivery in made:
        delivery.stop()


def test_expired_records_are_discarded_without_an_invocation(make_delivery: Any) -> None:
    delivery = make_delivery(max_record_age_seconds=60, on_failure_queue_url=URL)
    delivery.shard.add("old", age_seconds=100)
    delivery.shard.add("new")
    delivery.start()

    eventually(lambda: delivery.function.batches)

    assert delivery.function.batches == [["new"]]
    [(url, message)] = delivery.discarded
    assert url == URL
    assert message["requestContext"]["condition"] == "RecordAgeExceeded"
    assert "responseContext" not in message


def test_without_bisecting_the_whole_batch_is_retried_then_discarded(make_delivery: Any) -> None:
    delivery = make_delivery(max_retries=1, on_failure_queue_url=URL)
    delivery.function.failures = ["Unhandled", "Unhandled"]
    for name in ("a", "b"):
        delivery.shard.add(name)
    delivery.start()
    eventually(lambda: delivery.discarded)
    delivery.shard.add("c")
    eventually(lambda: len(delivery.function.batches) == 3)

    assert delivery.function.batches == [["a", "b"], ["a", "b"], ["c"]]
    assert delivery.discarded[0][1]["DDBStreamBatchInfo"]["batchSize"] == 2


def test_later_records_are_delivered_after_a_failing_batch_has_succeeded(make_delivery: Any) -> None:
    delivery = make_delivery()
    delivery.function.failures = ["Unhandled"] * 3
    delivery.shard.add("a")
    delivery.start()
    eventually(lambda: delivery.function.batches)
    delivery.shard.add("b")
    eventually(lambda: ["b"] in delivery.function.batches)

    assert delivery.function.batches == [["a"]] * 4 + [["b"]]


def test_throttling_does_not_count_as_a_retry(make_delivery: Any) -> None:
    delivery = make_delivery(max_retries=0, on_failure_queue_url=URL)
    delivery.function.failures = [TooManyRequestsError(), TooManyRequestsError()]
    delivery.shard.add("a")
    delivery.start()
    eventually(lambda: len(delivery.function.batches) == 3)

    assert delivery.discarded == []


def test_the_batching_window_collects_records(make_delivery: Any) -> None:
    delivery = make_delivery(batching_window_seconds=60, batch_size=2)
    delivery.start()
    delivery.shard.add("a")
    delivery.shard.add("b")
    eventually(lambda: delivery.function.batches)

    assert delivery.function.batches == [["a", "b"]]


def test_latest_skips_existing_records(make_delivery: Any) -> None:
    delivery = make_delivery(starting_position="LATEST")
    delivery.shard.add("before")
    delivery.start()
    delivery.shard.add("after")
    eventually(lambda: delivery.function.batches)

    assert delivery.function.batches == [["after"]]
