"""The permissions that each API call needs."""

from typing import Any

import pytest

from local import LocalStackError
from local.permissions.required import condition_values, required_permissions

TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/tasks"
STREAM = f"{TABLE}/stream/2026-11-27T00:00:00.000"
QUEUE_URL = "http://127.0.0.1:1234/123456789012/archive"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:archive"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-AbCdEf"
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:poll"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:poll:one"
ALARM = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:"
OBJECT = {"Bucket": "pictures", "Key": "images/a b.png"}
OBJECT_ARN = "arn:aws:s3:::pictures/images/a b.png"


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "required"),
    [
        ("dynamodb", "UpdateItem", {"TableName": "tasks"}, [("dynamodb:UpdateItem", TABLE)]),
        ("dynamodb", "UpdateItem", {"TableName": TABLE}, [("dynamodb:UpdateItem", TABLE)]),
        ("dynamodb", "Query", {"TableName": "tasks"}, [("dynamodb:Query", TABLE)]),
        ("dynamodb", "Query", {"TableName": "tasks", "IndexName": "i"}, [("dynamodb:Query", f"{TABLE}/index/i")]),
        ("dynamodb", "Scan", {"TableName": "tasks", "IndexName": "i"}, [("dynamodb:Scan", f"{TABLE}/index/i")]),
        ("dynamodb", "BatchGetItem", {"RequestItems": {"tasks": {}}}, [("dynamodb:BatchGetItem", TABLE)]),
        (
            "dynamodb",
            "TransactWriteItems",
            {
                "TransactItems": [
                    {"Update": {"TableName": "tasks"}},
                    {"Put": {"TableName": "tasks"}},
                    {"Delete": {"TableName": "tasks"}},
                    {"ConditionCheck": {"TableName": "other"}},
                ]
            },
            [
                ("dynamodb:UpdateItem", TABLE),
                ("dynamodb:PutItem", TABLE),
                ("dynamodb:DeleteItem", TABLE),
                ("dynamodb:ConditionCheckItem", TABLE.replace("tasks", "other")),
            ],
        ),
        ("dynamodbstreams", "GetShardIterator", {"StreamArn": STREAM}, [("dynamodb:GetShardIterator", STREAM)]),
        ("dynamodbstreams", "GetRecords", {"ShardIterator": f"{STREAM}|1|x"}, [("dynamodb:GetRecords", STREAM)]),
        ("sqs", "SendMessage", {"QueueUrl": QUEUE_URL}, [("sqs:SendMessage", QUEUE)]),
        ("sqs", "SendMessageBatch", {"QueueUrl": QUEUE_URL}, [("sqs:SendMessage", QUEUE)]),
        ("sqs", "DeleteMessageBatch", {"QueueUrl": QUEUE_URL}, [("sqs:DeleteMessage", QUEUE)]),
        ("s3", "PutObject", OBJECT, [("s3:PutObject", OBJECT_ARN)]),
        ("s3", "GetObject", OBJECT, [("s3:GetObject", OBJECT_ARN)]),
        ("s3", "HeadObject", OBJECT, [("s3:GetObject", OBJECT_ARN)]),
        ("s3", "ListObjectsV2", {"Bucket": "pictures"}, [("s3:ListBucket", "arn:aws:s3:::pictures")]),
        (
            "s3",
            "CopyObject",
            {**OBJECT, "CopySource": "/pictures/quarantine/b"},
            [("s3:GetObject", "arn:aws:s3:::pictures/quarantine/b"), ("s3:PutObject", OBJECT_ARN)],
        ),
        ("stepfunctions", "StartExecution", {"stateMachineArn": MACHINE}, [("states:StartExecution", MACHINE)]),
        ("stepfunctions", "ListExecutions", {"stateMachineArn": MACHINE}, [("states:ListExecutions", MACHINE)]),
        ("stepfunctions", "DescribeExecution", {"executionArn": EXECUTION}, [("states:DescribeExecution", EXECUTION)]),
        ("secretsmanager", "GetSecretValue", {"SecretId": SECRET}, [("secretsmanager:GetSecretValue", SECRET)]),
        (
            "events",
            "PutEvents",
            {"Entries": [{"EventBusName": "tasks"}, {"EventBusName": "tasks"}, {}]},
            [
                ("events:PutEvents", "arn:aws:events:us-east-1:123456789012:event-bus/tasks"),
                ("events:PutEvents", "arn:aws:events:us-east-1:123456789012:event-bus/default"),
            ],
        ),
        (
            "lambda",
            "Invoke",
            {"FunctionName": "Publish"},
            [("lambda:InvokeFunction", "arn:aws:lambda:us-east-1:123456789012:function:Publish")],
        ),
        ("cloudwatch", "GetMetricData", {}, [("cloudwatch:GetMetricData", "*")]),
        (
            "cloudwatch",
            "DescribeAlarms",
            {"AlarmNames": ["a", "b"]},
            [("cloudwatch:DescribeAlarms", f"{ALARM}a"), ("cloudwatch:DescribeAlarms", f"{ALARM}b")],
        ),
    ],
)
def test_the_permissions_that_a_call_needs(
    service: str, operation: str, parameters: dict[str, Any], required: list[tuple[str, str]]
) -> None:
    assert list(required_permissions(service, operation, parameters)) == required


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("dynamodb", "ListTables", {}),
        ("dynamodb", "TransactWriteItems", {"TransactItems": [{"Replace": {"TableName": "tasks"}}]}),
        ("s3", "PUT acl", OBJECT),
        ("stepfunctions", "ListStateMachines", {}),
        ("secretsmanager", "GetSecretValue", {"SecretId": "keys"}),
        ("events", "PutRule", {}),
        ("lambda", "UpdateFunctionCode", {}),
        ("rekognition", "DetectText", {}),
    ],
)
def test_an_unknown_call_is_an_error(service: str, operation: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(LocalStackError, match=f"{service} {operation}.*Add it to local/permissions"):
        required_permissions(service, operation, parameters)


def test_condition_keys() -> None:
    secure = ("aws:SecureTransport", "true")

    assert condition_values("s3", OBJECT) == (secure,)
    assert condition_values("secretsmanager", {"SecretId": SECRET}) == (secure,)
    previous = condition_values("secretsmanager", {"SecretId": SECRET, "VersionStage": "AWSPREVIOUS"})
    assert previous == (secure, ("secretsmanager:VersionStage", "AWSPREVIOUS"))
