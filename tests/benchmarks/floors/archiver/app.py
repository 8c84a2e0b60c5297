"""The minimal archiver: the clients that it needs, and the read of the tasks to archive."""

import json
from typing import Any

import boto3
import httpx

dynamodb, s3, sqs = boto3.client("dynamodb"), boto3.client("s3"), boto3.client("sqs")
secrets_manager, http = boto3.client("secretsmanager"), httpx.Client()


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Reads the tasks."""
    for record in event["Records"]:
        dynamodb.get_item(TableName="tasks", Key={"task": {"S": json.loads(record["body"])["task"]}})
    return {"batchItemFailures": []}
