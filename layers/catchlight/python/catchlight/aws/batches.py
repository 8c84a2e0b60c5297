"""Divides items into batches of the sizes that AWS services accept, and reports the failed records of a batch."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

# The limit of BatchGetItem, besides 16 MB: see `dynamodb.batch_get`.
MAX_KEYS_PER_GET = 100
# The limit of SQS for all calls with several messages.
MAX_MESSAGES_PER_CALL = 10
# The limit of PutEvents, besides 256 KB per call: ten details of the maximum length are 200 KB.
MAX_EVENTS_PER_CALL = 10


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields the items in lists of `size`, the last one shorter. `itertools.batched` requires Python 3.12."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def batch_item_failures(ids: Iterable[str]) -> dict[str, Any]:
    """Returns a handler's response that makes Lambda deliver these records again; see `ReportBatchItemFailures`.

    `ids` are the message ids of an SQS batch, or one sequence number of a stream, which is read again from there on.
    """
    return {"batchItemFailures": [{"itemIdentifier": record} for record in ids]}
