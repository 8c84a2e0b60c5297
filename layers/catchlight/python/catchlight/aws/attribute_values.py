"""DynamoDB's spelling of values: `{"S": "text"}`, `{"N": "1"}`, `{"L": [...]}` and so on.

boto3 has the same in `boto3.dynamodb.types`. Loading boto3 for it would cost 17 ms of every cold start.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from catchlight.models import iso


def to_attribute(value: Any) -> dict[str, Any]:
    """Text, a number, a truth value, a time (as ISO 8601), None, or a list or mapping of such, in DynamoDB's spelling.

    Raises:
        TypeError: it is nothing of that; floats are not, because DynamoDB's numbers are decimal.
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
    raise TypeError(f"DynamoDB has no spelling for {type(value).__name__}")


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """The value in plain Python. Users put attributes of their own beside ours, so every type may come."""
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
        case _:  # S, BOOL, B: as they are
            return value


def _number(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:
        return Decimal(text)
