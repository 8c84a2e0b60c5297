"""Maps DynamoDB's errors to this package's exceptions, and DynamoDB's items to Python values."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from catchlight.aws.attribute_values import from_attribute
from catchlight.errors import StoreUnavailableError


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


def deserialized(item: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an item's attributes to Python values."""
    return {name: from_attribute(value) for name, value in item.items()}


def malformed_attributes(error: ValidationError) -> str:
    """Returns the names of an item's attributes that failed validation, without their values."""
    return ", ".join(str(problem["loc"][0]) for problem in error.errors(include_input=False) if problem["loc"])
