"""Keys that DynamoDB left unprocessed are requested again: with growing pauses, until a deadline."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from catchlight.aws.batches import MAX_KEYS_PER_GET
from catchlight.aws.dynamodb import (
    BATCH_DEADLINE_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    batch_get,
)
from catchlight.errors import StoreUnavailableError

Keys = list[dict[str, Any]]


def some_keys(count: int) -> Keys:
    return [{"task": {"S": f"flux-kontext#{number}"}} for number in range(count)]


class Time:
    """A clock that only `sleep` advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Table:
    """A DynamoDB client whose only table has every item. Of the requested keys, `processed` selects those of a call."""

    def __init__(self, processed: Callable[[Keys], Keys]) -> None:
        self.exceptions = SimpleNamespace()
        self.requested_keys: list[Keys] = []
        self._processed = processed

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - boto3's name
        keys = RequestItems["tasks"]["Keys"]
        self.requested_keys.append(keys)
        processed = self._processed(keys)
        left = [key for key in keys if key not in processed]
        return {"Responses": {"tasks": processed}, "UnprocessedKeys": {"tasks": {"Keys": left}} if left else {}}


def read(table: Table, time: Time, keys: Keys) -> Keys:
    client: Any = table
    return list(batch_get(client, "tasks", keys, sleep=time.sleep, clock=time.clock))


def test_every_item_is_returned_once_if_calls_return_only_some() -> None:
    table, time, keys = Table(lambda keys: keys[:60]), Time(), some_keys(2 * MAX_KEYS_PER_GET + 30)

    found = read(table, time, keys)

    assert sorted(map(str, found)) == sorted(map(str, keys))
    assert max(map(len, table.requested_keys)) == MAX_KEYS_PER_GET


def test_without_unprocessed_keys_there_is_no_pause() -> None:
    table, time = Table(lambda keys: keys), Time()

    assert len(read(table, time, some_keys(250))) == 250
    assert (len(table.requested_keys), time.pauses) == (3, [])


def test_pauses_for_a_throttled_table_grow_until_the_deadline() -> None:
    table, time = Table(lambda _: []), Time()

    with pytest.raises(StoreUnavailableError, match="unprocessed"):
        read(table, time, some_keys(3))

    assert BATCH_DEADLINE_SECONDS - LONGEST_PAUSE_SECONDS <= time.now <= BATCH_DEADLINE_SECONDS
    planned = [min(FIRST_PAUSE_SECONDS * 2**number, LONGEST_PAUSE_SECONDS) for number in range(len(time.pauses))]
    assert all(each / 2 <= pause <= each for pause, each in zip(time.pauses, planned, strict=True))
    assert len(table.requested_keys) == len(time.pauses) + 1 <= 15


def test_the_pauses_of_several_readers_are_random() -> None:
    pauses = set()
    for _ in range(5):
        time = Time()
        with pytest.raises(StoreUnavailableError):
            read(Table(lambda _: []), time, some_keys(1))
        pauses.add(time.pauses[0])

    assert len(pauses) > 1


def test_reading_a_slow_table_ends_at_the_deadline() -> None:
    time = Time()

    def slowly(_: Keys) -> Keys:
        time.now += 2
        return []

    with pytest.raises(StoreUnavailableError):
        read(Table(slowly), time, some_keys(1))

    assert time.now <= BATCH_DEADLINE_SECONDS + 2
