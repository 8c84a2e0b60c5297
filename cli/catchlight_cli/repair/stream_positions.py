"""Records of the table's stream that Lambda has given up, by their positions: what its failure queues hold.

https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from catchlight.client.aws_errors import CatchlightError
from catchlight_cli.durations import parse_time
from catchlight_cli.repair.dead_letters import DeadLetter

# A read may find nothing though there is more: shards are sparse. Never for ever.
_MAX_EMPTY_READS = 10
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
    def of(cls, dead_letter: DeadLetter) -> "StreamPositions | None":
        """The positions in a message; None if it holds none."""
        info = dead_letter.body.get("DDBStreamBatchInfo")
        if not isinstance(info, dict):
            return None
        try:
            return cls(
                stream=str(info["streamArn"]),
                shard=str(info["shardId"]),
                first=int(info["startSequenceNumber"]),
                last=int(info["endSequenceNumber"]),
                last_arrived_at=parse_time(info.get("approximateArrivalOfLastRecord")) or dead_letter.sent_at,
            )
        except (KeyError, ValueError, TypeError):
            return None

    def records(self, streams: Any) -> list[dict[str, Any]] | None:
        """The records at these positions; None if the stream has forgotten them: after 24 hours.

        Args:
            streams: a boto3 client of DynamoDB's streams.

        Raises:
            CatchlightError: the stream ends before the last of them.
        """
        try:
            return list(self._read(streams))
        except ClientError as exc:
            if exc.response["Error"]["Code"] in _GONE:
                return None
            raise

    def _read(self, streams: Any) -> Iterator[dict[str, Any]]:
        iterator: str | None = streams.get_shard_iterator(
            StreamArn=self.stream,
            ShardId=self.shard,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            SequenceNumber=str(self.first),
        )["ShardIterator"]
        empty_reads = 0
        while iterator and empty_reads < _MAX_EMPTY_READS:
            answer = streams.get_records(ShardIterator=iterator)
            empty_reads = 0 if answer["Records"] else empty_reads + 1
            for record in answer["Records"]:
                number = int(record["dynamodb"]["SequenceNumber"])
                if number <= self.last:
                    yield record
                if number >= self.last:
                    return
            iterator = answer.get("NextShardIterator")
        # What is missing would count as done, and its message be deleted.
        raise CatchlightError(
            f"The table's stream has not given all records that a message names ({self.stream}, {self.shard}). "
            "Repeat the command; the message stays in its queue."
        )


def task_of(record: dict[str, Any]) -> str:
    """The key of the task that a record is about."""
    task: str = record["dynamodb"]["Keys"]["task"]["S"]
    return task


def new_status_of(record: dict[str, Any]) -> str | None:
    """The status that a record leaves its task with; None if it has none, or is deleted."""
    status: str | None = record["dynamodb"].get("NewImage", {}).get("status", {}).get("S")
    return status
