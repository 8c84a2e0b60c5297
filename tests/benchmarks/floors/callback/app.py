"""The minimal callback handler: JSON, boto3, one conditional write. No token, no validation, no order of reports."""

import json
from typing import Any

import boto3

dynamodb = boto3.client("dynamodb")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Writes the body under its task's id, once."""
    task_id = json.loads(event["body"])["data"]["taskId"]
    dynamodb.put_item(
        TableName="tasks",
        Item={"task": {"S": task_id}, "body": {"S": event["body"]}},
        ConditionExpression="attribute_not_exists(task)",
    )
    return {"statusCode": 200, "body": json.dumps({"status": "received"})}
