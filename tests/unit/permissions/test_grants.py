"""The grants in the policies of a template's roles."""

from types import SimpleNamespace
from typing import Any

import pytest

from local import UnsupportedError
from local.permissions.deployed import Actor
from local.permissions.grants import read_grants


def resources_with(managed_policy: str) -> Any:
    role = {
        "AssumeRolePolicyDocument": {"Statement": []},
        "ManagedPolicyArns": [f"arn:aws:iam::aws:policy/{managed_policy}"],
    }
    return SimpleNamespace(
        of_type=lambda name: [("Role", role)] if name == "AWS::IAM::Role" else [],
        actors=lambda: [Actor("Function", "lambda.amazonaws.com", "Role")],
    )


def test_a_managed_policy_grants_its_actions_on_every_resource() -> None:
    grants = read_grants(resources_with("service-role/AWSLambdaSQSQueueExecutionRole"))

    assert {grant.action for grant in grants} == {
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
        *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
    }
    assert {(grant.principal, grant.resource) for grant in grants} == {("Function", "*")}


def test_an_unknown_managed_policy_is_an_error() -> None:
    with pytest.raises(UnsupportedError, match="NoSuchPolicy"):
        read_grants(resources_with("NoSuchPolicy"))
