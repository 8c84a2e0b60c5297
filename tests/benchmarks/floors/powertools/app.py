"""An idempotent callback handler as Powertools documents it: idempotency around the write, logger and metrics."""

import json
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent
from aws_lambda_powertools.utilities.typing import LambdaContext

logger, metrics = Logger(), Metrics()
dynamodb = boto3.client("dynamodb")
seen = DynamoDBPersistenceLayer(table_name="seen")
# Without the local cache, which would return the stored response to a repeated callback: every callback counts as new.
config = IdempotencyConfig(event_key_jmespath="powertools_json(body).data.taskId", use_local_cache=False)


@logger.inject_lambda_context
@metrics.log_metrics
@idempotent(persistence_store=seen, config=config)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Writes the body under its task's id."""
    task_id = json.loads(event["body"])["data"]["taskId"]
    dynamodb.put_item(TableName="tasks", Item={"task": {"S": task_id}, "body": {"S": event["body"]}})
    logger.info("callback received", task=task_id)
    metrics.add_metric("CallbacksReceived", MetricUnit.Count, 1)
    return {"statusCode": 200, "body": json.dumps({"status": "received"})}
