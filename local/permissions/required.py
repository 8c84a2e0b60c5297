"""Determines which permissions an API call needs: actions, and the ARNs of their resources.

Most operations need one action, which has the name of the operation. This module implements the exceptions.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from local import UnsupportedError
from local.account import local_arn

Parameters = Mapping[str, Any]
Required = tuple[str, str]
"""An action, and a resource's ARN or, for an action that has no resources, `*`."""


def required_permissions(service: str, operation: str, parameters: Parameters) -> tuple[Required, ...]:
    """Returns the permissions that a call needs.

    `service` is the service's name in botocore, or the one with which requests are signed; `parameters` has the API's
    parameter names.

    Raises:
        UnsupportedError: the operation is not implemented in this module.
    """
    if service not in _SERVICES:
        raise _unsupported(service, operation)
    return tuple(_SERVICES[service](operation, parameters))


def condition_values(service: str, parameters: Parameters) -> tuple[tuple[str, str], ...]:
    """Returns those condition keys of a call that the functions' policies can use, with their values."""
    # In AWS, the functions' clients use https only. Here, requests to the loopback address are treated as https.
    secure = ("aws:SecureTransport", "true")
    stage = parameters.get("VersionStage") if service == "secretsmanager" else None
    return (secure, ("secretsmanager:VersionStage", stage)) if stage else (secure,)


def function_arn(name_or_arn: str) -> str:
    """Returns the ARN of a function, given its name or ARN; a qualifier is kept."""
    return name_or_arn if name_or_arn.startswith("arn:") else local_arn("lambda", f"function:{name_or_arn}")


# ------------------------------------------------------------------------------------------------ DynamoDB

# TransactWriteItems has no permission of its own: each item needs the permission for its operation.
_TRANSACTION_ACTIONS = {
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
}


def _dynamodb(operation: str, parameters: Parameters) -> Iterator[Required]:
    match operation:
        case "BatchGetItem" | "BatchWriteItem":
            for table in parameters["RequestItems"]:
                yield f"dynamodb:{operation}", _table_arn(table)
        case "TransactWriteItems":
            for item in parameters["TransactItems"]:
                [(kind, request)] = item.items()
                if kind not in _TRANSACTION_ACTIONS:
                    raise _unsupported("dynamodb", f"{operation} with {kind}")
                yield f"dynamodb:{_TRANSACTION_ACTIONS[kind]}", _table_arn(request["TableName"])
        case "GetShardIterator" | "GetRecords":  # requests to streams are signed with the same service name
            yield from _dynamodb_streams(operation, parameters)
        case "Query" | "Scan" if "IndexName" in parameters:
            # The index is a separate resource: the permission for its table does not include it.
            yield f"dynamodb:{operation}", f"{_table_arn(parameters['TableName'])}/index/{parameters['IndexName']}"
        case _ if "TableName" in parameters:
            yield f"dynamodb:{operation}", _table_arn(parameters["TableName"])
        case _:
            raise _unsupported("dynamodb", operation)


def _table_arn(name_or_arn: str) -> str:
    return name_or_arn if name_or_arn.startswith("arn:") else local_arn("dynamodb", f"table/{name_or_arn}")


def _dynamodb_streams(operation: str, parameters: Parameters) -> Iterator[Required]:
    # Streams have no service prefix of their own. In moto an iterator begins with its stream's ARN, as in AWS.
    yield f"dynamodb:{operation}", parameters.get("StreamArn") or parameters["ShardIterator"].partition("|")[0]


# ------------------------------------------------------------------------------------------------ S3


def _s3(operation: str, parameters: Parameters) -> Iterator[Required]:
    bucket = f"arn:aws:s3:::{parameters['Bucket']}"
    match operation:
        case "PutObject" | "GetObject" | "DeleteObject":
            yield f"s3:{operation}", f"{bucket}/{parameters['Key']}"
        case "HeadObject":  # has no permission of its own
            yield "s3:GetObject", f"{bucket}/{parameters['Key']}"
        case "CopyObject":
            yield "s3:GetObject", f"arn:aws:s3:::{parameters['CopySource'].lstrip('/')}"
            yield "s3:PutObject", f"{bucket}/{parameters['Key']}"
        case "ListObjectsV2" | "ListObjects":
            yield "s3:ListBucket", bucket
        case _:
            raise _unsupported("s3", operation)


# ------------------------------------------------------------------------------------------------ other services


def _sqs(operation: str, parameters: Parameters) -> Iterator[Required]:
    # The batch operations have no permissions of their own.
    yield f"sqs:{operation.removesuffix('Batch')}", local_arn("sqs", parameters["QueueUrl"].rpartition("/")[2])


def _step_functions(operation: str, parameters: Parameters) -> Iterator[Required]:
    resource = parameters.get("stateMachineArn") or parameters.get("executionArn")
    if resource is None:
        raise _unsupported("stepfunctions", operation)
    yield f"states:{operation}", resource


def _secrets_manager(operation: str, parameters: Parameters) -> Iterator[Required]:
    # The ARN has a random suffix, so it cannot be computed from the secret's name. Functions get the ARN from the
    # template.
    if not parameters["SecretId"].startswith("arn:"):
        raise _unsupported("secretsmanager", f"{operation} by a secret's name")
    yield f"secretsmanager:{operation}", parameters["SecretId"]


def _events(operation: str, parameters: Parameters) -> Iterator[Required]:
    if operation != "PutEvents":
        raise _unsupported("events", operation)
    for bus in dict.fromkeys(entry.get("EventBusName", "default") for entry in parameters["Entries"]):
        yield "events:PutEvents", bus if bus.startswith("arn:") else local_arn("events", f"event-bus/{bus}")


def _lambda(operation: str, parameters: Parameters) -> Iterator[Required]:
    if operation != "Invoke":
        raise _unsupported("lambda", operation)
    yield "lambda:InvokeFunction", function_arn(parameters["FunctionName"])


def _cloudformation(operation: str, parameters: Parameters) -> Iterator[Required]:
    yield f"cloudformation:{operation}", local_arn("cloudformation", f"stack/{parameters['StackName']}/*")


def _cloudwatch(operation: str, parameters: Parameters) -> Iterator[Required]:
    if operation != "DescribeAlarms":  # GetMetricData and ListMetrics have no resources
        yield f"cloudwatch:{operation}", "*"
        return
    for name in parameters["AlarmNames"]:
        yield f"cloudwatch:{operation}", local_arn("cloudwatch", f"alarm:{name}")


def _logs(operation: str, parameters: Parameters) -> Iterator[Required]:
    yield f"logs:{operation}", local_arn("logs", f"log-group:{parameters['logGroupName']}:*")


_SERVICES: Mapping[str, Callable[[str, Parameters], Iterator[Required]]] = {
    "cloudformation": _cloudformation,
    "cloudwatch": _cloudwatch,
    "dynamodb": _dynamodb,
    "dynamodbstreams": _dynamodb_streams,
    "events": _events,
    "lambda": _lambda,
    "logs": _logs,
    "s3": _s3,
    "secretsmanager": _secrets_manager,
    "sqs": _sqs,
    "states": _step_functions,  # the signing name; the others are the same in both
    "stepfunctions": _step_functions,
}


def _unsupported(service: str, operation: str) -> UnsupportedError:
    return UnsupportedError(f"The permission for {service} {operation}", "local/permissions/required.py")
