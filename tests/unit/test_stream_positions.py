"""StreamPositions: all records of a message's range are returned, or an error keeps the message in its queue."""

from datetime import UTC, datetime
from typing import Any

import pytest

from catchlight.errors import StoreUnavailableError
from catchlight.recovery.stream_positions import StreamPositions

POSITIONS = StreamPositions("stream", "shard", first=11, last=13, last_arrived_at=datetime(2026, 11, 1, tzinfo=UTC))


class Streams:
    """A shard that answers with these sequence numbers, page by page, and then with empty pages or its end."""

    def __init__(self, *pages: list[int], closed: bool = False) -> None:
        self._pages = pages
        self._closed = closed

    def get_shard_iterator(self, **_: Any) -> dict[str, Any]:
        return {"ShardIterator": "0"}

    def get_records(self, ShardIterator: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - boto3's name
        number = int(ShardIterator)
        page = self._pages[number] if number < len(self._pages) else []
        following = None if self._closed and number + 1 >= len(self._pages) else str(number + 1)
        records = [{"dynamodb": {"SequenceNumber": str(each)}} for each in page]
        return {"Records": records, "NextShardIterator": following}


def numbers(streams: Streams) -> list[int]:
    return [int(record["dynamodb"]["SequenceNumber"]) for record in POSITIONS.records(streams) or ()]


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        (Streams([11, 12, 13, 14]), [11, 12, 13]),
        (Streams([11], [], [], [12, 13]), [11, 12, 13]),
        (Streams([11, 13], closed=True), [11, 13]),
    ],
)
def test_all_records_up_to_the_last_are_returned(streams: Streams, expected: list[int]) -> None:
    assert numbers(streams) == expected


@pytest.mark.parametrize("streams", [Streams([11, 12]), Streams([11, 12], closed=True), Streams()])
def test_a_stream_that_ends_before_the_last_record_is_an_error(streams: Streams) -> None:
    with pytest.raises(StoreUnavailableError, match=r"did not return all records .* The message stays in its queue"):
        numbers(streams)
