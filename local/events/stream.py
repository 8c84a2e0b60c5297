"""Invokes a function with the records of a DynamoDB stream, as Lambda's event source mapping does.

https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html
"""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.dynamodb.models.table import StreamShard

from local.account import REGION
from local.events.event_source import EventSource, failed_identifiers
from local.events.filters import EventFilter
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function, TooManyRequestsError
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches import dynamodb as moto_dynamodb

Record = dict[str, Any]

# AWS does not document the delay before a retry. These delays avoid a busy loop, and are short enough to wait for.
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class StreamMapping:
    """The settings of an event source mapping; the defaults are Lambda's. -1 means unlimited."""

    name: str
    stream_arn: str
    filter: EventFilter = field(default_factory=lambda: EventFilter([]))
    starting_position: str = "TRIM_HORIZON"
    batch_size: int = 100
    batching_window_seconds: float = 0
    bisects_on_error: bool = False
    max_retries: int = -1
    max_record_age_seconds: float = -1
    reports_item_failures: bool = False
    on_failure_queue_url: str | None = None


class StreamEventSource(EventSource):
    """Reads the single shard of a moto stream in one thread, so that records reach the function in order.

    `send_message(queue_url, body)` sends a description of failed records to the on-failure queue.
    """

    def __init__(
        self,
        mapping: StreamMapping,
        shard: StreamShard,
        function: Function,
        send_message: Callable[[str, str], None],
        logs: LogFolder,
    ) -> None:
        super().__init__(mapping.name, function, logs)
        self._mapping = mapping
        self._shard = shard
        self._send_message = send_message
        self._position = 0 if mapping.starting_position == "TRIM_HORIZON" else len(shard.items)

    def _step(self) -> None:
        if batch := self._next_batch():
            self._deliver(batch)

    def _next_batch(self) -> list[Record]:
        """Returns matching records, limited by the batch size and the batching window; the list may be empty."""
        batch: list[Record] = []
        deadline = 0.0
        wait_seconds = 0.2  # maximum time until the source notices that it has to stop
        while not self._stopping.is_set() and moto_dynamodb.wait_for_records(self._shard, self._position, wait_seconds):
            while len(batch) < self._mapping.batch_size and self._position < len(self._shard.items):
                record = self._as_event_record(self._shard.items[self._position].to_json())
                self._position += 1
                if self._mapping.filter.matches(record):
                    if not batch:
                        deadline = time.monotonic() + self._mapping.batching_window_seconds
                    batch.append(record)
            if len(batch) >= self._mapping.batch_size:
                break
            if batch:
                wait_seconds = max(0.0, deadline - time.monotonic())
        return batch

    def _as_event_record(self, record: Record) -> Record:
        created = record["dynamodb"]["ApproximateCreationDateTime"]
        change = {**record["dynamodb"], "ApproximateCreationDateTime": int(created.timestamp())}
        source = {"eventSourceARN": self._mapping.stream_arn, "awsRegion": REGION, "eventVersion": "1.1"}
        return {**record, **source, "dynamodb": change}

    def _deliver(self, batch: list[Record]) -> None:
        """Delivers the records until each one is handled or discarded. Later records are not delivered before them."""
        pending = [(batch, 0)]
        while pending and not self._stopping.is_set():
            records, retries = pending.pop()
            records = self._discard_expired(records, retries)
            if not records:
                continue
            try:
                outcome = self._function.invoke(json.dumps({"Records": records}).encode())
            except TooManyRequestsError:
                # Throttling does not count as a retry.
                self._stopping.wait(FIRST_RETRY_SECONDS)
                pending.append((records, retries))
                continue
            numbers = [sequence_number(record) for record in records]
            failed = failed_identifiers(outcome, numbers, self._mapping.reports_item_failures)
            if not failed:
                continue
            # Lambda uses the lowest failed sequence number as checkpoint: it retries this record and all later ones.
            first = min(numbers.index(number) for number in failed)
            rest = records[first:]
            if self._mapping.bisects_on_error and len(rest) > 1:
                # Bisecting does not count as a retry. A batch with a checkpoint is split there, otherwise in the
                # middle.
                middle = 0 if first else len(rest) // 2
                parts = [part for part in (rest[:middle], rest[middle:]) if part]
                pending.extend((part, retries) for part in reversed(parts))
            elif 0 <= self._mapping.max_retries <= retries:
                self._discard(rest, "RetryAttemptsExhausted", retries + 1, outcome)
            else:
                self._stopping.wait(min(FIRST_RETRY_SECONDS * 2**retries, LONGEST_RETRY_SECONDS))
                pending.append((rest, retries + 1))

    def _discard_expired(self, records: list[Record], retries: int) -> list[Record]:
        limit = self._mapping.max_record_age_seconds
        if limit < 0:
            return records
        oldest = time.time() - limit
        expired = [record for record in records if record["dynamodb"]["ApproximateCreationDateTime"] < oldest]
        if expired:
            self._discard(expired, "RecordAgeExceeded", retries, None)
        return [record for record in records if record not in expired]

    def _discard(
        self, records: list[Record], condition: str, invoke_count: int, outcome: InvocationResult | None
    ) -> None:
        message = self._on_failure_message(records, condition, invoke_count)
        if outcome is not None:
            response = {"statusCode": 200, "executedVersion": "$LATEST"}
            message["responseContext"] = response | (
                {"functionError": outcome.function_error} if outcome.function_error else {}
            )
        queue_url = self._mapping.on_failure_queue_url
        action = "sent to the on-failure queue" if queue_url else "dropped: the mapping has no on-failure destination"
        self._logs.error(self._name, f"{condition}: {len(records)} records {action}", json.dumps(message))
        if queue_url:
            self._send_message(queue_url, json.dumps(message))

    def _on_failure_message(self, records: list[Record], condition: str, invoke_count: int) -> dict[str, Any]:
        """Returns the message that Lambda sends to an on-failure queue: the position of the records, not the records.

        https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html
        """

        def arrival(record: Record) -> str:
            created = datetime.fromtimestamp(record["dynamodb"]["ApproximateCreationDateTime"], UTC)
            return created.strftime("%Y-%m-%dT%H:%M:%SZ")

        return {
            "requestContext": {
                "requestId": str(uuid.uuid4()),
                "functionArn": self._function.configuration.arn,
                "condition": condition,
                "approximateInvokeCount": invoke_count,
            },
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "DDBStreamBatchInfo": {
                "shardId": self._shard.id,
                "startSequenceNumber": sequence_number(records[0]),
                "endSequenceNumber": sequence_number(records[-1]),
                "approximateArrivalOfFirstRecord": arrival(records[0]),
                "approximateArrivalOfLastRecord": arrival(records[-1]),
                "batchSize": len(records),
                "streamArn": self._mapping.stream_arn,
            },
        }


def sequence_number(record: Record) -> str:
    return str(record["dynamodb"]["SequenceNumber"])
