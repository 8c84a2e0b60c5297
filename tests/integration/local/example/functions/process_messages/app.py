import json
import time
from typing import Any

import boto3
from notes import note  # type: ignore[import-not-found] # the layer's

sqs = boto3.client("sqs")


def handler(event: dict[str, Any], context: object) -> Any:
    """Fails messages by their body: {"fail": times}; {"visibility": seconds} sets their visibility timeout before."""
    failed = []
    note([[json.loads(r["body"])["name"], int(r["attributes"]["ApproximateReceiveCount"])] for r in event["Records"]])
    for record in event["Records"]:
        instructions = json.loads(record["body"])
        time.sleep(instructions.get("sleep", 0))
        if instructions.get("fail", 0) >= int(record["attributes"]["ApproximateReceiveCount"]):
            failed.append(record["messageId"])
            if "visibility" in instructions:
                sqs.change_message_visibility(
                    QueueUrl=instructions["queue"],
                    ReceiptHandle=record["receiptHandle"],
                    VisibilityTimeout=instructions["visibility"],
                )
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
