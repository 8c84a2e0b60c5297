"""Which tasks a message in DispatchFailures is about. It holds positions in the table's stream, not the records.

https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from catchlight.durations import parse_time
from catchlight.letters import Letter
from image_tasks.models import TaskStatus
from image_tasks.tasks_by_status import TasksByStatus

# What something follows from: see DispatchChanges.
_FOLLOWED = {TaskStatus.PENDING, TaskStatus.SUCCEEDED, TaskStatus.FAILED}
# A read may find nothing though there is more: shards are sparse. Never for ever.
_MAX_EMPTY_READS = 10
# Between a write and its record's arrival.
_ARRIVES_WITHIN = timedelta(minutes=5)
_GONE = {"TrimmedDataAccessException", "ResourceNotFoundException"}


@dataclass(frozen=True, slots=True)
class StreamPositions:
    """What Lambda says of records that it has given up."""

    stream: str
    shard: str
    first: int
    last: int
    last_arrived_at: datetime

    @classmethod
    def of(cls, letter: Letter) -> "StreamPositions | None":
        """The positions in a message; None if it holds none."""
        info = letter.body.get("DDBStreamBatchInfo")
        if not isinstance(info, dict):
            return None
        try:
            return cls(
                stream=str(info["streamArn"]),
                shard=str(info["shardId"]),
                first=int(info["startSequenceNumber"]),
                last=int(info["endSequenceNumber"]),
                last_arrived_at=parse_time(info.get("approximateArrivalOfLastRecord")) or letter.sent_at,
            )
        except (KeyError, ValueError, TypeError):
            return None


def tasks_in_stream(client: Any, positions: StreamPositions) -> list[str] | None:
    """Tasks of the records at these positions, read from the stream; None if it has forgotten them: after 24 hours."""
    try:
        return list(dict.fromkeys(_read(client, positions)))
    except ClientError as exc:
        if exc.response["Error"]["Code"] in _GONE:
            return None
        raise


def _read(client: Any, positions: StreamPositions) -> Iterator[str]:
    iterator: str | None = client.get_shard_iterator(
        StreamArn=positions.stream,
        ShardId=positions.shard,
        ShardIteratorType="AT_SEQUENCE_NUMBER",
        SequenceNumber=str(positions.first),
    )["ShardIterator"]
    empty_reads = 0
    while iterator and empty_reads < _MAX_EMPTY_READS:
        answer = client.get_records(ShardIterator=iterator)
        empty_reads = 0 if answer["Records"] else empty_reads + 1
        for record in answer["Records"]:
            change: Any = record["dynamodb"]
            if int(change["SequenceNumber"]) > positions.last:
                return
            if change.get("NewImage", {}).get("status", {}).get("S") in _FOLLOWED:
                yield change["Keys"]["task"]["S"]
        iterator = answer.get("NextShardIterator")


def tasks_by_time(index: TasksByStatus, arrived_at: datetime) -> Iterator[str]:
    """Tasks that may be meant where the stream has forgotten: what was PENDING or SUCCEEDED then, and still is.

    That is over a day ago, so none of them is being polled for or archived any more.
    """
    for status in (TaskStatus.PENDING, TaskStatus.SUCCEEDED):
        for task in index.tasks(status, before=arrived_at + _ARRIVES_WITHIN):
            yield task.task
