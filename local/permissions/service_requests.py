"""Lists the permissions that AWS services need to run a stack: they invoke functions, read event sources, write logs.

These requests follow from the template alone, so the local stack checks them when it starts. AWS checks some when the
stack is deployed (event sources), and others at each delivery (API routes, schedules, on-failure queues).
"""

import json
from collections.abc import Iterator
from typing import Any

from local import UnsupportedError
from local.account import local_arn
from local.permissions.decision import PermissionRequest
from local.permissions.deployed import DeployedResources
from local.permissions.required import function_arn
from local.template.deployment import Deployment
from local.template.state_machine import state_machine_definition

# https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
_LAMBDA_TRACES = ("xray:PutTraceSegments", "xray:PutTelemetryRecords")
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-xray-tracing.html
_STATES_TRACES = (*_LAMBDA_TRACES, "xray:GetSamplingRules", "xray:GetSamplingTargets")
# https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html, with-sqs.html
_STREAM_READING = ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator")
_QUEUE_READING = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
_EVERY_METHOD = "x-amazon-apigateway-any-method"


def service_requests(deployment: Deployment, resources: DeployedResources) -> Iterator[PermissionRequest]:
    """Yields every request that follows from the deployed template."""
    for actor in resources.actors():
        yield PermissionRequest(actor.service, "sts:AssumeRole", resources.attribute(actor.role, "Arn"))
    for logical_id, function in resources.of_type("AWS::Lambda::Function"):
        group = function.get("LoggingConfig", {}).get("LogGroup", f"/aws/lambda/{logical_id}")
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            yield PermissionRequest(logical_id, action, local_arn("logs", f"log-group:{group}:log-stream:any"))
        if function.get("TracingConfig", {}).get("Mode") == "Active":
            yield from (PermissionRequest(logical_id, action, "*") for action in _LAMBDA_TRACES)
    for _, mapping in resources.of_type("AWS::Lambda::EventSourceMapping"):
        yield from _event_source_requests(resources.function_of(mapping["FunctionName"]), mapping)
    for logical_id, schedule in resources.of_type("AWS::Scheduler::Schedule"):
        target = schedule["Target"]
        yield PermissionRequest(logical_id, "lambda:InvokeFunction", function_arn(target["Arn"]))
        if dead_letters := target.get("DeadLetterConfig"):
            yield PermissionRequest(logical_id, "sqs:SendMessage", dead_letters["Arn"])
    for logical_id, rule in resources.of_type("AWS::Events::Rule"):
        context = (("aws:SourceArn", resources.attribute(logical_id, "Arn")),)
        for target in rule["Targets"]:
            for queue in (target["Arn"], target.get("DeadLetterConfig", {}).get("Arn")):
                if queue:
                    yield PermissionRequest("events.amazonaws.com", "sqs:SendMessage", queue, context)
    for logical_id, api in resources.of_type("AWS::ApiGatewayV2::Api"):
        yield from _route_requests(logical_id, api["Body"]["paths"])
    for logical_id, machine in resources.of_type("AWS::StepFunctions::StateMachine"):
        yield from _state_machine_requests(deployment, logical_id, machine)


def _event_source_requests(function: str, mapping: dict[str, Any]) -> Iterator[PermissionRequest]:
    # Lambda reads an event source with the permissions of the function's role, and refuses to create a mapping without
    # these permissions.
    source = mapping["EventSourceArn"]
    for action in _QUEUE_READING if source.split(":")[2] == "sqs" else _STREAM_READING:
        yield PermissionRequest(function, action, source)
    if source.split(":")[2] == "dynamodb":
        yield PermissionRequest(function, "dynamodb:ListStreams", "*")
    if on_failure := mapping.get("DestinationConfig", {}).get("OnFailure"):
        yield PermissionRequest(function, "sqs:SendMessage", on_failure["Destination"])


def _route_requests(api: str, paths: dict[str, dict[str, Any]]) -> Iterator[PermissionRequest]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            # ...:lambda:path/2015-03-31/functions/ARN/invocations, with the ARN of the function or its alias
            uri = operation["x-amazon-apigateway-integration"]["uri"]
            target = uri.split("/functions/")[1].removesuffix("/invocations")
            # The route key, with the parameter names as they are in the path.
            method = "*" if method == _EVERY_METHOD else method.upper()
            source = local_arn("execute-api", f"{api}/$default/{method}{path}")
            context = (("aws:SourceArn", source),)
            yield PermissionRequest("apigateway.amazonaws.com", "lambda:InvokeFunction", target, context)


def _state_machine_requests(
    deployment: Deployment, logical_id: str, machine: dict[str, Any]
) -> Iterator[PermissionRequest]:
    path = deployment.template.path_of(machine["DefinitionS3Location"])
    definition = json.loads(state_machine_definition(path, machine.get("DefinitionSubstitutions", {})))
    for task in _tasks(definition):
        parameters = task.get("Parameters", {})
        match str(task["Resource"]).split(":"):
            case ["arn", "aws", "lambda", *_]:
                yield PermissionRequest(logical_id, "lambda:InvokeFunction", task["Resource"])
            case [*_, "lambda", "invoke"]:
                function = function_arn(parameters["FunctionName"])
                yield PermissionRequest(logical_id, "lambda:InvokeFunction", function)
            case [*_, "states", "startExecution"]:
                itself = deployment.resources[logical_id].ref
                yield PermissionRequest(logical_id, "states:StartExecution", parameters.get("StateMachineArn", itself))
            case _:
                raise UnsupportedError(
                    f"{logical_id}: the permission for the task {task['Resource']}",
                    "local/permissions/service_requests.py",
                )
    if machine.get("TracingConfiguration", {}).get("Enabled"):
        yield from (PermissionRequest(logical_id, action, "*") for action in _STATES_TRACES)


def _tasks(value: Any) -> Iterator[dict[str, Any]]:
    """Yields the Task states of a definition, at any depth of Map and Parallel states."""
    if isinstance(value, list):
        for item in value:
            yield from _tasks(item)
    if isinstance(value, dict):
        if value.get("Type") == "Task":
            yield value
        for item in value.values():
            yield from _tasks(item)
