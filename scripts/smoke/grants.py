"""Compares the calls of a function with the permissions of its role in the template, in both directions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from local.account import ACCOUNT_ID
from local.template.expand import Template
from local.template.intrinsic_functions import Resolver
from scripts.smoke.account import BUCKET, REGION, Call


@dataclass(frozen=True)
class Grant:
    """An action on a resource, which may end in a wildcard."""

    action: str
    resource: str

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}"


_ARNS = {
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT_ID}:table/{{}}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{{}}",
    "AWS::SecretsManager::Secret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT_ID}:secret:{{}}-AbCdEf",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT_ID}:stateMachine:{{}}",
    "AWS::Events::EventBus": f"arn:aws:events:{REGION}:{ACCOUNT_ID}:event-bus/{{}}",
    "AWS::S3::Bucket": f"arn:aws:s3:::{BUCKET}",
}


def resolver(template: Template) -> Resolver:
    """Returns a resolver that gives resources plausible names and ARNs, as in an account."""

    def arn(logical_id: str) -> str:
        return _ARNS.get(template.resources[logical_id]["Type"], f"arn:{{}}:{REGION}").format(logical_id)

    def ref(logical_id: str) -> str:
        match template.resources[logical_id]["Type"]:
            case "AWS::SQS::Queue":
                return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT_ID}/{logical_id}"
            case "AWS::SecretsManager::Secret" | "AWS::StepFunctions::StateMachine":
                return arn(logical_id)
            case "AWS::S3::Bucket":
                return BUCKET
        return logical_id

    def get_att(logical_id: str, name: str) -> str:
        if name == "ApiEndpoint":
            return f"https://a1b2c3d4e5.execute-api.{REGION}.amazonaws.com"
        return arn(logical_id)

    return Resolver(template, ref, get_att)


def grants_of(template: Template, function: str) -> set[Grant]:
    """Returns the permissions that a function's role grants to its code."""
    resolve = resolver(template).resolve
    role = template.resources[function]["Properties"]["Role"]["Fn::GetAtt"][0]
    statements = [
        resolve(statement)
        for policy in template.resources[role]["Properties"].get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    granted = {
        Grant(action, resource)
        for statement in statements
        for action in _as_list(statement["Action"])
        for resource in _as_list(statement["Resource"])
    }
    # Without on-failure destinations of streams: Lambda itself writes to them, with the function's role.
    destinations = {
        resolve(mapping["DestinationConfig"]["OnFailure"]["Destination"])
        for mapping in (template.resources[name]["Properties"] for name in _mappings(template))
        if resolve(mapping["FunctionName"]) == resolve({"Ref": function}) and "DestinationConfig" in mapping
    }
    return {grant for grant in granted if grant.resource not in destinations}


def _mappings(template: Template) -> list[str]:
    return template.of_type("AWS::Lambda::EventSourceMapping")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def needed_for(call: Call) -> Iterator[Grant]:
    """Yields the permissions that IAM requires for a call.

    https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html
    """
    parameters = call.parameters
    match call.operation:
        case "BatchGetItem":
            for table in parameters["RequestItems"]:
                yield Grant("dynamodb:BatchGetItem", _table(table))
        case "TransactWriteItems":  # no action of its own: IAM checks each item's operation
            for item in parameters["TransactItems"]:
                [(kind, write)] = item.items()
                yield Grant(f"dynamodb:{kind}Item", _table(write["TableName"]))
        case "Query" if "IndexName" in parameters:
            yield Grant("dynamodb:Query", f"{_table(parameters['TableName'])}/index/{parameters['IndexName']}")
        case "SendMessage" | "SendMessageBatch":  # one IAM action for both operations
            yield Grant("sqs:SendMessage", _queue(parameters["QueueUrl"]))
        case "PutEvents":
            for entry in parameters["Entries"]:
                bus = _ARNS["AWS::Events::EventBus"].format(entry["EventBusName"])
                yield Grant("events:PutEvents", bus)
        case "StartExecution":
            yield Grant("states:StartExecution", parameters["stateMachineArn"])
        case "GetSecretValue":
            yield Grant("secretsmanager:GetSecretValue", parameters["SecretId"])
        case "HeadObject" | "GetObject":  # HeadObject has no action of its own
            yield Grant("s3:GetObject", f"{_ARNS['AWS::S3::Bucket']}/{parameters['Key']}")
        case "PutObject":
            yield Grant("s3:PutObject", f"{_ARNS['AWS::S3::Bucket']}/{parameters['Key']}")
        case operation if call.service == "dynamodb":
            yield Grant(f"dynamodb:{operation}", _table(parameters["TableName"]))
        case operation if call.service == "sqs":
            yield Grant(f"sqs:{operation}", _queue(parameters["QueueUrl"]))
        case operation:
            yield Grant(f"{call.service}:{operation}", "a resource that scripts/smoke/grants.py does not know")


def _table(name: str) -> str:
    return _ARNS["AWS::DynamoDB::Table"].format(name)


def _queue(url: str) -> str:
    return _ARNS["AWS::SQS::Queue"].format(url.rpartition("/")[2])


def check_grants(function: str, granted: set[Grant], calls: Iterable[Call]) -> Iterator[str]:
    """Yields calls that the role does not allow, and permissions that no call needs."""
    needed = {grant for call in calls for grant in needed_for(call)}
    for need in sorted(needed, key=str):
        if not any(_allows(grant, need) for grant in granted):
            yield f"{function} calls what template.yaml does not grant to it: {need}"
    for grant in sorted(granted, key=str):
        if not any(_allows(grant, need) for need in needed):
            yield (
                f"{function} is granted {grant}, and makes no such call here: "
                "add the call to scripts/smoke/scenarios.py, or take the grant out of template.yaml"
            )


def _allows(grant: Grant, need: Grant) -> bool:
    return grant.action == need.action and fnmatchcase(need.resource, grant.resource)
