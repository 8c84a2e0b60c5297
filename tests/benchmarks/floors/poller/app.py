"""The minimal poller: the clients that it needs, and the read of the tasks to poll."""

from typing import Any

import boto3
import httpx

dynamodb, secrets_manager, http = boto3.client("dynamodb"), boto3.client("secretsmanager"), httpx.Client()


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Reads the tasks."""
    keys = [{"task": {"S": task}} for task in event["tasks"]]
    return dict(dynamodb.batch_get_item(RequestItems={"tasks": {"Keys": keys}}))
