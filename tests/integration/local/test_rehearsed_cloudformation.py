"""The CloudFormation that a deployment is rehearsed with: change sets say what they would do, and nothing else."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.moto_server import MotoServer
from local.rehearsed_cloudformation import NO_CHANGES, Rehearsal, RehearsedChange, rehearsed_cloudformation

STACK = "example"


def template(**properties: Any) -> str:
    """A SAM function, a queue that depends on a condition, and a table."""
    return json.dumps(
        {
            "Transform": "AWS::Serverless-2016-10-31",
            "Parameters": {
                "Level": {"Type": "String", "Default": "INFO", "AllowedValues": ["INFO", "DEBUG"]},
                "Seconds": {"Type": "Number", "Default": 3, "MinValue": 1, "MaxValue": 9},
            },
            "Conditions": {"Verbose": {"Fn::Equals": [{"Ref": "Level"}, "DEBUG"]}},
            "Resources": {
                "Work": {
                    "Type": "AWS::Serverless::Function",
                    "Properties": {
                        "CodeUri": "s3://artifacts/work",
                        "Handler": "app.handler",
                        "Runtime": "python3.13",
                        "Timeout": {"Ref": "Seconds"},
                        **properties,
                    },
                },
                "Debugged": {"Type": "AWS::SQS::Queue", "Condition": "Verbose"},
                "Table": {"Type": "AWS::DynamoDB::Table", "Properties": {"BillingMode": "PAY_PER_REQUEST"}},
            },
        }
    )


class Stack:
    """Change sets of one stack, made and executed as `sam deploy` does it."""

    def __init__(self, client: Any, rehearsal: Rehearsal) -> None:
        self._client = client
        self.rehearsal = rehearsal

    def deploy(self, body: str, *, kind: str = "UPDATE", **parameters: str | None) -> dict[str, Any]:
        """The change set, executed if it holds changes. A parameter that is None keeps its value."""
        given = [
            {"ParameterKey": name, "UsePreviousValue": True}
            if value is None
            else {"ParameterKey": name, "ParameterValue": value}
            for name, value in parameters.items()
        ]
        made = self._client.create_change_set(
            StackName=STACK, ChangeSetName="next", ChangeSetType=kind, TemplateBody=body, Parameters=given
        )
        change_set: dict[str, Any] = self._client.describe_change_set(ChangeSetName=made["Id"])
        if change_set["Status"] == "CREATE_COMPLETE":
            self._client.execute_change_set(ChangeSetName=made["Id"])
        return change_set

    @property
    def changes(self) -> list[RehearsedChange]:
        return self.rehearsal.changes[STACK]


@pytest.fixture
def stack() -> Iterator[Stack]:
    with rehearsed_cloudformation() as rehearsal:
        server = MotoServer()
        server.start()
        try:
            yield Stack(server.client("cloudformation"), rehearsal)
        finally:
            server.stop()


def test_a_first_deployment_adds_what_the_template_expands_to(stack: Stack) -> None:
    change_set = stack.deploy(template(), kind="CREATE")

    added = {change["ResourceChange"]["LogicalResourceId"] for change in change_set["Changes"]}
    assert added == {"Work", "WorkRole", "Table"}
    assert {change.action for change in stack.changes} == {"Add"}
    assert stack.rehearsal.resources[STACK]["Work"]["Properties"]["Timeout"] == "3"


def test_the_same_template_again_holds_no_changes(stack: Stack) -> None:
    stack.deploy(template(), kind="CREATE")

    again = stack.deploy(template())

    assert (again["Status"], again["StatusReason"]) == ("FAILED", NO_CHANGES)


def test_a_change_names_the_properties_that_it_changes(stack: Stack) -> None:
    stack.deploy(template(), kind="CREATE")

    stack.deploy(template(MemorySize=512))

    assert stack.changes == [RehearsedChange("Modify", "Work", "AWS::Lambda::Function", ("MemorySize",))]


def test_a_parameter_changes_what_it_is_used_in_and_stays(stack: Stack) -> None:
    stack.deploy(template(), kind="CREATE")

    stack.deploy(template(), Seconds="5")
    assert stack.changes == [RehearsedChange("Modify", "Work", "AWS::Lambda::Function", ("Timeout",))]
    stack.deploy(template(), Seconds=None, Level="DEBUG")
    assert stack.changes == [RehearsedChange("Add", "Debugged", "AWS::SQS::Queue")]
    assert stack.rehearsal.parameters[STACK] == {"Level": "DEBUG", "Seconds": "5"}


def test_what_is_no_more_is_removed(stack: Stack) -> None:
    stack.deploy(template(), kind="CREATE", Level="DEBUG")

    stack.deploy(template(), Level="INFO")

    assert stack.changes == [RehearsedChange("Remove", "Debugged", "AWS::SQS::Queue")]


@pytest.mark.parametrize("parameters", [{"Seconds": "10"}, {"Level": "LOUD"}, {"Unknown": "1"}])
def test_a_parameter_that_cloudformation_would_refuse_is_refused(stack: Stack, parameters: dict[str, str]) -> None:
    with pytest.raises(ClientError, match=next(iter(parameters))):
        stack.deploy(template(), kind="CREATE", **parameters)
    assert STACK not in stack.rehearsal.resources
