"""Converts between Python values and DynamoDB's attribute values: `{"S": "text"}`, `{"N": "1"}`, `{"L": [...]}` etc.

`boto3.dynamodb.types` has the same functions, but importing boto3 takes 17 ms of every cold start.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from catchlight.models import iso


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
    raise TypeError(f"DynamoDB has no spelling for {type(value).__name__}")


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
