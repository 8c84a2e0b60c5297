"""Compares the calls of a function with the permissions of its role in the template, in both directions."""

from collections.abc import Iterable, Iterator

from local import LocalStackError
from local.account import ACCOUNT_ID
from local.account import REGION as LOCAL_REGION
from local.permissions.decision import Grant, PermissionRequest, decide
from local.permissions.grants import statement_grants
from local.permissions.required import condition_values, required_permissions
from local.template.expand import Template
from local.template.intrinsic_functions import Resolver
from scripts.smoke.account import BUCKET, REGION, Call
from scripts.smoke.steps import STREAM_LABEL

_ARNS = {
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{{}}",
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT_ID}:table/{{}}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{{}}",
    "AWS::SecretsManager::Secret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT_ID}:secret:{{}}-AbCdEf",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT_ID}:stateMachine:{{}}",
    "AWS::Events::EventBus": f"arn:aws:events:{REGION}:{ACCOUNT_ID}:event-bus/{{}}",
    "AWS::S3::Bucket": f"arn:aws:s3:::{BUCKET}",
}


def resolver(template: Template) -> Resolver:
    """Returns a resolver that gives resources names and ARNs in AWS's formats."""

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
        if name == "StreamArn":
            return f"{arn(logical_id)}/stream/{STREAM_LABEL}"
        return arn(logical_id)

    return Resolver(template, ref, get_att)


def grants_of(template: Template, function: str) -> set[Grant]:
    """Returns the permissions of a function's role, without its managed policies."""
    resolve = resolver(template).resolve
    role = template.resources[function]["Properties"]["Role"]["Fn::GetAtt"][0]
    policies = template.resources[role]["Properties"].get("Policies", [])
    return {
        grant
        for policy in policies
        # Resolved as a list, which leaves out the statements whose condition does not hold.
        for statement in resolve(policy["PolicyDocument"]["Statement"])
        for grant in statement_grants(role, statement, principal=function)
    }


def requests_of_lambda(template: Template, function: str) -> set[PermissionRequest]:
    """Returns the requests that Lambda itself makes with a function's role: to on-failure destinations of streams."""
    resolve = resolver(template).resolve
    mappings = (template.resources[name]["Properties"] for name in template.of_type("AWS::Lambda::EventSourceMapping"))
    return {
        PermissionRequest(
            function, "sqs:SendMessage", resolve(mapping["DestinationConfig"]["OnFailure"]["Destination"])
        )
        for mapping in mappings
        if resolve(mapping["FunctionName"]) == resolve({"Ref": function}) and "DestinationConfig" in mapping
    }


def check_grants(
    function: str, granted: set[Grant], calls: Iterable[Call], by_lambda: Iterable[PermissionRequest]
) -> Iterator[str]:
    """Yields calls that the role does not allow, and permissions that no call needs.

    `by_lambda`: requests that Lambda itself makes with the function's role.
    """
    try:
        requests = {request for call in calls for request in _requests(function, call)} | {*by_lambda}
    except LocalStackError as exc:  # a call whose permissions are unknown
        yield str(exc)
        return
    for request in sorted(requests, key=str):
        if not decide(request, granted):
            yield f"{function} has no grant in template.yaml for {request.action} on {request.resource}"
    for grant in sorted(granted, key=str):
        if not any(grant.applies_to(request) for request in requests):
            yield (
                f"{function} is granted {grant.action} on {grant.resource}, and makes no such call in this test: "
                "add the call to scripts/smoke/*_steps.py, or remove the grant from template.yaml"
            )


def _requests(function: str, call: Call) -> Iterator[PermissionRequest]:
    service = "stepfunctions" if call.service == "states" else call.service  # botocore's name
    for action, resource in required_permissions(service, call.operation, call.parameters):
        # The local stack's names have another region than the simulated account.
        here = resource.replace(f":{LOCAL_REGION}:", f":{REGION}:")
        yield PermissionRequest(function, action, here, condition_values(service, call.parameters))
