"""The same write as Catchlight's function makes, by boto3 with defaults. The event contains its parameters."""

from contextlib import suppress
from typing import Any

import boto3

dynamodb = boto3.client("dynamodb")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Makes the write in the event; its condition may fail, as for a repeated callback."""
    with suppress(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.update_item(**event)
    return {"statusCode": 200, "body": '{"status": "received"}'}
