"""Corrects differences between moto's DynamoDB and AWS."""

import json
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from moto.dynamodb.models.dynamo_type import Item
from moto.dynamodb.models.table import StreamShard, Table
from moto.dynamodb.models.utilities import dynamo_json_dump
from moto.dynamodb.responses import DynamoHandler

_STREAM_GREW = threading.Condition()


@contextmanager
def atomic_dynamodb_calls() -> Iterator[None]:
    """Serialises DynamoDB calls.

    moto checks a condition and writes the item in two steps, so the same condition could be true for several threads.
    """
    lock = threading.RLock()
    call_action = DynamoHandler.call_action

    def locked(self: DynamoHandler) -> Any:
        with lock:
            return call_action(self)

    with mock.patch.object(DynamoHandler, "call_action", locked):
        yield


class CompactRecord:
    """A stream record as compressed JSON: a stack that runs for days keeps tens of thousands, of a few KB each."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        change = dict(record["dynamodb"])
        self._created_at = change.pop("ApproximateCreationDateTime")
        text = dynamo_json_dump({**record, "dynamodb": change})
        self._text = zlib.compress(text.encode())

    def to_json(self) -> dict[str, Any]:
        """Returns the record as moto's StreamRecord does."""
        record: dict[str, Any] = json.loads(zlib.decompress(self._text))
        record["dynamodb"]["ApproximateCreationDateTime"] = self._created_at
        return record


@contextmanager
def items_sorted_by_values() -> Iterator[None]:
    """Sorts items by the values of their keys.

    moto sorts all items of a table for each Query, and converts the keys again for each comparison: with 10,000 tasks,
    a Query took twice the CPU time.
    """

    def all_items(table: Table) -> list[Item]:
        keys = [table.hash_key_attr], [table.range_key_attr]
        entries = table.items.values()
        items = [item for entry in entries for item in (entry.values() if table.range_key_attr else [entry])]
        ordered: list[Item] = table.sorted_items(*keys, items)
        return ordered

    def sorted_items(table: Table, hash_keys: list[str], range_keys: list[str | None], items: list[Item]) -> list[Item]:
        names = table._generate_attr_to_sort_by(hash_keys, range_keys)
        return sorted(items, key=lambda item: [item.attrs[name].cast_value for name in names])

    with (
        mock.patch.object(Table, "all_items", all_items),
        mock.patch.object(Table, "sorted_items", sorted_items),
    ):
        yield


@contextmanager
def stream_without_idle_writes() -> Iterator[None]:
    """Writes no stream record for an update that changes nothing, as in AWS, and wakes threads that wait for records.

    Records are kept compressed.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
    """
    add = StreamShard.add

    def add_change(self: StreamShard, old: Any, new: Any) -> None:
        if old is not None and new is not None and old.to_json() == new.to_json():
            return
        with _STREAM_GREW:
            known = len(self.items)
            add(self, old, new)
            if len(self.items) > known:
                self.items[-1] = CompactRecord(self.items[-1].to_json())
            _STREAM_GREW.notify_all()

    with mock.patch.object(StreamShard, "add", add_change):
        yield


def wait_for_records(shard: StreamShard, known: int, timeout: float) -> bool:
    """Waits until the shard holds more than `known` records, at most for the timeout, and returns whether it does."""
    with _STREAM_GREW:
        return _STREAM_GREW.wait_for(lambda: len(shard.items) > known, timeout)
