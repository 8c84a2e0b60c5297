"""What all calls of DynamoDB have in common: what their faults are to us, and what their items are in Python."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import BotoCoreError, ClientError

from image_tasks.errors import StoreUnavailableError

_deserialize = TypeDeserializer().deserialize


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns every fault but a failed condition into StoreUnavailableError."""
    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ConditionalCheckFailedException":
            raise
        raise StoreUnavailableError(f"DynamoDB refused {exc.operation_name}: {exc.response['Error']['Code']}") from exc
    except BotoCoreError as exc:
        raise StoreUnavailableError(f"DynamoDB did not answer: {type(exc).__name__}") from exc


def deserialized(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item's attributes in plain Python; numbers are Decimals."""
    return {name: _deserialize(value) for name, value in item.items()}
