"""Permissions: each statement allows actions of one service, on named resources."""

import json
from typing import Any

import pytest

from tests.unit.template.expanded import RESOURCES, STATE_MACHINES, as_list, deployed, of_type
from tests.unit.template.expanded import referred as referred_to

# X-Ray has no resources. No other statement may be for all resources.
ON_ALL_RESOURCES = {"WriteTraces"}
# What SAM attaches to functions: logs, traces, and reading of their own event source.
MANAGED_POLICIES = {
    "AWSLambdaBasicExecutionRole",
    "AWSLambdaDynamoDBExecutionRole",
    "AWSLambdaSQSQueueExecutionRole",
    "AWSXrayWriteOnlyAccess",
}
# All prefixes of the bucket, with the functions that access them.
OBJECTS_OF = {
    "ServeTasksApiFunctionRole": {"images", "quarantine"},
    "ArchiveImagesFunctionRole": {"images", "quarantine"},
    "ReceiveCallbackFunctionRole": {"rejected", "deliveries"},
    "PollTasksFunctionRole": {"rejected"},
}
INDEXES = {index["IndexName"] for index in RESOURCES["TasksTable"]["Properties"]["GlobalSecondaryIndexes"]}


def own_statements() -> list[tuple[str, dict[str, Any]]]:
    """Returns role and statement of every permission, with all of the template's features enabled."""
    return [
        (name, statement.get("Fn::If", [None, statement])[1])
        for name, role in of_type("AWS::IAM::Role").items()
        for policy in role.get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
    ]


STATEMENTS = [
    pytest.param(role, statement, id=f"{role}-{statement.get('Sid', 'SAM')}") for role, statement in own_statements()
]


@pytest.mark.parametrize(("role", "statement"), STATEMENTS)
def test_a_statement_allows_actions_of_one_service_on_named_resources(role: str, statement: dict[str, Any]) -> None:
    actions = as_list(statement["Action"])

    assert statement["Effect"] == "Allow"
    assert not [action for action in actions if "*" in action]
    assert len({action.partition(":")[0] for action in actions}) == 1
    for resource in as_list(statement["Resource"]):
        if resource == "*":
            assert statement["Sid"] in ON_ALL_RESOURCES
            continue
        (function, value), *rest = resource.items()
        assert not rest
        if function == "Fn::Sub" and "Bucket" in value:
            assert value in {f"${{ImagesBucket.Arn}}/{prefix}/*" for prefix in OBJECTS_OF[role]}
        elif function == "Fn::Sub" and "/index/" in value:
            assert value.removeprefix("${TasksTable.Arn}/index/") in INDEXES
            assert actions == ["dynamodb:Query"]
        else:
            assert referred_to(resource) in RESOURCES


def test_statements_of_the_template_have_sids() -> None:
    without = [role for role, statement in own_statements() if "Sid" not in statement]

    # SAM adds these: for the dead-letter queues of streams, and for the schedule.
    assert set(without) <= {
        "DispatchChangesFunctionRole",
        "PublishEventsFunctionRole",
        "ReconcileTasksFunctionHourlyRole",
    }
    for role in of_type("AWS::IAM::Role"):
        names = [statement["Sid"] for name, statement in own_statements() if name == role and "Sid" in statement]
        assert len(names) == len(set(names))


def test_managed_policies_are_for_logs_traces_and_event_sources_only() -> None:
    attached = {
        str(arn.get("Fn::Sub", arn) if isinstance(arn, dict) else arn).rpartition("/")[2].rstrip("']}")
        for role in of_type("AWS::IAM::Role").values()
        for arn in role.get("ManagedPolicyArns", [])
    }

    assert attached == MANAGED_POLICIES


def test_without_tracing_no_role_has_permissions_of_xray() -> None:
    resources = deployed(Tracing="Disabled")

    for name in of_type("AWS::IAM::Role"):
        assert "xray" not in json.dumps(resources[name]).lower()
    assert "WriteTraces" in json.dumps(deployed()["PollTasksStateMachineRole"])


@pytest.mark.parametrize("name", of_type("AWS::IAM::Role"))
def test_a_role_is_assumed_by_one_service(name: str) -> None:
    trust = of_type("AWS::IAM::Role")[name]["AssumeRolePolicyDocument"]

    (statement,) = trust["Statement"]
    ((kind, services),) = statement["Principal"].items()
    expected = "states" if name.removesuffix("Role") in STATE_MACHINES else "lambda"
    assert kind == "Service"
    if as_list(services) != ["scheduler.amazonaws.com"]:
        assert as_list(services) == [f"{expected}.amazonaws.com"]


def test_only_some_functions_write_objects_and_none_deletes_them() -> None:
    to_s3 = {
        (role, action)
        for role, statement in own_statements()
        for action in as_list(statement["Action"])
        if action.startswith("s3:")
    }

    assert to_s3 >= {
        ("ReceiveCallbackFunctionRole", "s3:PutObject"),
        ("PollTasksFunctionRole", "s3:PutObject"),
        ("ArchiveImagesFunctionRole", "s3:PutObject"),
        ("ArchiveImagesFunctionRole", "s3:GetObject"),
    }
    writers = {role for role, action in to_s3 if action == "s3:PutObject"}
    assert writers == {"ReceiveCallbackFunctionRole", "PollTasksFunctionRole", "ArchiveImagesFunctionRole"}
    assert not [action for _, action in to_s3 if "Delete" in action or "Acl" in action]


def test_no_function_may_delete_tasks() -> None:
    actions = {action for _, statement in own_statements() for action in as_list(statement["Action"])}

    assert not [action for action in actions if action.startswith("dynamodb:Delete")]


def test_only_functions_that_need_them_read_api_keys() -> None:
    readers = {
        role
        for role, statement in own_statements()
        if statement["Action"] == "secretsmanager:GetSecretValue" and "ProviderKeysSecret" in str(statement["Resource"])
    }

    # ReceiveCallback reads the webhook keys, which are in the same secret.
    assert readers == {
        *("ReceiveCallbackFunctionRole", "PollTasksFunctionRole", "ArchiveImagesFunctionRole"),
        "ServeTasksApiFunctionRole",
    }


@pytest.mark.parametrize("name", of_type("AWS::Lambda::Permission"))
def test_only_resources_of_the_stack_may_call_functions(name: str) -> None:
    permission = of_type("AWS::Lambda::Permission")[name]

    assert permission["Principal"] in {"apigateway.amazonaws.com", "events.amazonaws.com"}
    source = json.dumps(permission["SourceArn"])
    assert [logical_id for logical_id in RESOURCES if f'"{logical_id}"' in source or f"{{{logical_id}}}" in source]
