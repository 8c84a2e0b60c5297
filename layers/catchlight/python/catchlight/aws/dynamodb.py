"""Converts DynamoDB's errors and attribute values, reads batches of items, and builds update expressions.

`boto3.dynamodb.types` converts attribute values, too, but importing boto3 takes 17 ms of every cold start.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from catchlight.aws.batches import MAX_KEYS_PER_GET
from catchlight.errors import StoreUnavailableError
from catchlight.models import iso

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# Converts a path such as `images[0].url` into a valid name of a placeholder.
_AS_PLACEHOLDER = str.maketrans({"[": "_", "]": None, ".": "_"})
# Pauses before unprocessed keys are requested again. DynamoDB returns keys as unprocessed if it throttles the table, or
# if the answer reaches 16 MB. The first pause is that of botocore's own retries of DynamoDB.
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
# The maximum duration of one read, with its calls and pauses. PollTasks and ServeTasksApi have at least 20 s left then.
BATCH_DEADLINE_SECONDS = 5.0


@contextmanager
def store_errors() -> Iterator[None]:
    """Converts every error of botocore, except a failed condition, into StoreUnavailableError."""
    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ConditionalCheckFailedException":
            raise
        raise StoreUnavailableError(f"DynamoDB refused {exc.operation_name}: {exc.response['Error']['Code']}") from exc
    except BotoCoreError as exc:
        raise StoreUnavailableError(f"DynamoDB did not answer: {type(exc).__name__}") from exc


def batch_get(
    client: "DynamoDBClient",
    table: str,
    keys: Sequence[Mapping[str, Any]],
    *,
    consistent_read: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[dict[str, Any]]:
    """Yields the existing items with these keys, in DynamoDB's format and in any order.

    Unprocessed keys are requested again after pauses that double, with jitter, until the deadline.

    Raises:
        StoreUnavailableError: a call failed, or keys are still unprocessed after BATCH_DEADLINE_SECONDS.
    """
    ends_by = clock() + BATCH_DEADLINE_SECONDS
    pause = FIRST_PAUSE_SECONDS
    remaining = list(keys)
    while remaining:
        batch, remaining = remaining[:MAX_KEYS_PER_GET], remaining[MAX_KEYS_PER_GET:]
        with store_errors():
            answer = client.batch_get_item(
                RequestItems={table: {"Keys": batch, "ConsistentRead": consistent_read}},
            )
        yield from answer["Responses"].get(table, [])
        unprocessed = answer["UnprocessedKeys"].get(table)
        if unprocessed is None:
            continue
        remaining += unprocessed["Keys"]
        # Jitter: readers that were throttled together must not read again together.
        jittered = pause * random.uniform(0.5, 1)  # noqa: S311  # nosec B311
        if clock() + jittered > ends_by:
            raise StoreUnavailableError(f"DynamoDB left keys unprocessed for {BATCH_DEADLINE_SECONDS:g} s")
        sleep(jittered)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


# ------------------------------------------------------------------------------------------------ attribute values


def to_attribute(value: Any) -> dict[str, Any]:
    """Converts str, int, Decimal, bool, datetime (to ISO 8601), None, and lists and mappings of these.

    Raises:
        TypeError: the value has another type, for example float, because DynamoDB's numbers are decimal.
    """
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int() | Decimal():
            return {"N": str(value)}
        case dict() | Mapping():
            return {"M": {name: to_attribute(part) for name, part in value.items()}}
        case list() | tuple():
            return {"L": [to_attribute(part) for part in value]}
        case datetime():
            return {"S": iso(value)}
        case None:
            return {"NULL": True}
    raise TypeError(f"DynamoDB has no type for {type(value).__name__}")


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """Converts an attribute value to Python. All types are supported, because users may add attributes to items."""
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            return _number(value)
        case "M":
            return {name: from_attribute(part) for name, part in value.items()}
        case "L":
            return [from_attribute(part) for part in value]
        case "NULL":
            return None
        case "SS" | "BS":
            return set(value)
        case "NS":
            return {_number(part) for part in value}
        case _:  # S, BOOL, B: unchanged
            return value


def _number(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:
        return Decimal(text)


def deserialized(item: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an item's attributes to Python values."""
    return {name: from_attribute(value) for name, value in item.items()}


def malformed_attributes(error: ValidationError) -> str:
    """Returns the names of an item's attributes that failed validation, without their values."""
    return ", ".join(str(problem["loc"][0]) for problem in error.errors(include_input=False) if problem["loc"])


# ------------------------------------------------------------------------------------------------ update expressions


class UpdateExpression:
    """An update of one item. All names are aliased: `status` is a reserved word, other names may become reserved."""

    def __init__(self) -> None:
        self._clauses: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def set(self, path: str, value: Any) -> None:
        """Sets an attribute, or an element of a list: `images[0]`."""
        self._clause("SET", f"{self._path(path)} = {self._value(path, value)}")

    def set_once(self, path: str, value: Any) -> None:
        """Sets an attribute unless the item has it already."""
        name = self._path(path)
        self._clause("SET", f"{name} = if_not_exists({name}, {self._value(path, value)})")

    def append(self, path: str, value: Any) -> None:
        """Appends a value to a list; creates the list if it is missing."""
        name = self._path(path)
        new, empty = self._value(path, [value]), self._value("empty", [])
        self._clause("SET", f"{name} = list_append(if_not_exists({name}, {empty}), {new})")

    def add(self, path: str, value: int) -> None:
        """Adds to a number; a missing attribute counts as 0."""
        self._clause("ADD", f"{self._path(path)} {self._value(path, value)}")

    def remove(self, path: str) -> None:
        """Removes an attribute."""
        self._clause("REMOVE", self._path(path))

    def equals(self, path: str, value: Any) -> str:
        """Returns the condition that a path, such as `images[0].url`, has this value before the update.

        With None, the condition is that the path does not exist.
        """
        name = self._path(path)
        return f"attribute_not_exists({name})" if value is None else f"{name} = {self._value(f'{path}_before', value)}"

    def at_most(self, path: str, value: Any) -> str:
        """Returns the condition that a path has this value or a lower one before the update."""
        return f"{self._path(path)} <= {self._value(f'{path}_before', value)}"

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments for `update_item`."""
        return {
            "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in self._clauses.items()),
            "ExpressionAttributeNames": self._names,
            "ExpressionAttributeValues": self._values,
        }

    def _clause(self, verb: str, clause: str) -> None:
        self._clauses.setdefault(verb, []).append(clause)

    def _path(self, path: str) -> str:
        parts = []
        for part in path.split("."):
            name, bracket, rest = part.partition("[")
            self._names[f"#{name}"] = name
            parts.append(f"#{name}{bracket}{rest}")
        return ".".join(parts)

    def _value(self, path: str, value: Any) -> str:
        placeholder = f":{path.translate(_AS_PLACEHOLDER)}"
        self._values[placeholder] = to_attribute(value)
        return placeholder
