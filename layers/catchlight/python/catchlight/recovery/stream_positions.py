"""Reads the stream records that Lambda could not process, by their positions in messages of failure destinations.

https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from catchlight.errors import StoreUnavailableError
from catchlight.models import parse_time
from catchlight.recovery.dead_letters import DeadLetter

# A read may return no records although more follow, because shards are sparse: the number of such reads is limited.
_MAX_EMPTY_READS = 10
# A message refers to one batch of an event source, which has at most this many records. Without a limit, DynamoDB would
# return a thousand.
_MAX_RECORDS = 100
_EXPIRED_ERRORS = {"TrimmedDataAccessException", "ResourceNotFoundException"}


@dataclass(frozen=True, slots=True)
class StreamPositions:
    """The positions of records that Lambda could not process: stream, shard and sequence numbers."""

    stream: str
    shard: str
    first: int
    last: int
    last_arrived_at: datetime

    @classmethod
    def of(cls, dead_letter: DeadLetter) -> "StreamPositions | None":
        """Parses the positions in a message; None if it has no valid ones."""
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
        """Reads the records at these positions; None if the stream no longer has them, which it keeps for 24 hours.

        Args:
            streams: a client of DynamoDB's streams.

        Raises:
            StoreUnavailableError: DynamoDB did not return all of these records.
            ClientError, BotoCoreError: a call failed.
        """
        try:
            return list(self._read(streams))
        except ClientError as exc:
            if exc.response["Error"]["Code"] in _EXPIRED_ERRORS:
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
            response = streams.get_records(ShardIterator=iterator, Limit=_MAX_RECORDS)
            empty_reads = 0 if response["Records"] else empty_reads + 1
            for record in response["Records"]:
                number = int(record["dynamodb"]["SequenceNumber"])
                if number <= self.last:
                    yield record
                if number >= self.last:
                    return
            iterator = response.get("NextShardIterator")
        # Without this error the missing records would count as processed, and the message would be deleted.
        raise StoreUnavailableError(
            f"DynamoDB did not return all records that a message refers to ({self.stream}, {self.shard}). The message "
            "stays in its queue: try again."
        )


def task_of(record: dict[str, Any]) -> str:
    """Returns the key of the task that a record is about."""
    task: str = record["dynamodb"]["Keys"]["task"]["S"]
    return task


def new_status_of(record: dict[str, Any]) -> str | None:
    """Returns the task's status after the change; None if the item has no status or was deleted."""
    status: str | None = record["dynamodb"].get("NewImage", {}).get("status", {}).get("S")
    return status
