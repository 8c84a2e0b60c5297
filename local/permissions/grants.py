"""Reads the grants in the template: the policies of its roles and of its resources."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from moto.iam.aws_managed_policies import aws_managed_policies_data

from local import UnsupportedError
from local.permissions.decision import OPERATORS, Condition, Grant
from local.permissions.deployed import DeployedResources
from local.permissions.required import function_arn

_ROLE_PROPERTIES = {"AssumeRolePolicyDocument", "Description", "ManagedPolicyArns", "Policies", "Tags"}
_PERMISSION_PROPERTIES = {"Action", "FunctionName", "Principal", "SourceAccount", "SourceArn"}
_STATEMENT_ELEMENTS = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


def read_grants(resources: DeployedResources) -> tuple[Grant, ...]:
    """Returns every grant and every denial of the template.

    Raises:
        LocalStackError: a policy has an element that the local stack does not support.
    """
    return (*_role_grants(resources), *_policy_grants(resources), *_function_grants(resources))


@cache
def _managed_policies() -> dict[str, Any]:
    """Returns AWS's own policies. SAM attaches some of them to the roles of functions."""
    policies: dict[str, Any] = json.loads(aws_managed_policies_data)
    return policies


def _role_grants(resources: DeployedResources) -> Iterator[Grant]:
    roles = dict(resources.of_type("AWS::IAM::Role"))
    for role, properties in roles.items():
        _check_known(role, properties, _ROLE_PROPERTIES)
        # The trust policy states which service may assume the role. It has no Resource element: the role itself is the
        # resource.
        for statement in _statements(properties["AssumeRolePolicyDocument"]):
            yield from statement_grants(role, statement | {"Resource": resources.attribute(role, "Arn")})
    for actor in resources.actors():
        properties = roles[actor.role]
        for policy in properties.get("Policies", []):
            for statement in _statements(policy["PolicyDocument"]):
                yield from statement_grants(actor.role, statement, principal=actor.logical_id)
        for policy_arn in properties.get("ManagedPolicyArns", []):
            name = policy_arn.rpartition("/")[2]
            if name not in _managed_policies():
                raise _unsupported(actor.role, f"managed policy {policy_arn}")
            for statement in _statements(_managed_policies()[name]["Document"]):
                yield from statement_grants(f"{name} of {actor.role}", statement, principal=actor.logical_id)


def _policy_grants(resources: DeployedResources) -> Iterator[Grant]:
    for type_name in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
        for logical_id, properties in resources.of_type(type_name):
            for statement in _statements(properties["PolicyDocument"]):
                yield from statement_grants(logical_id, statement)


def _function_grants(resources: DeployedResources) -> Iterator[Grant]:
    for logical_id, properties in resources.of_type("AWS::Lambda::Permission"):
        _check_known(logical_id, properties, _PERMISSION_PROPERTIES)
        sources = [("ArnLike", "aws:SourceArn", "SourceArn"), ("StringEquals", "aws:SourceAccount", "SourceAccount")]
        conditions = tuple(
            Condition(operator, key, (properties[name],)) for operator, key, name in sources if name in properties
        )
        # A permission for a function does not apply to its aliases, and that for an alias not to the function.
        resource = function_arn(properties["FunctionName"])
        yield Grant(logical_id, properties["Principal"], properties["Action"], resource, conditions)


def statement_grants(policy: str, statement: Mapping[str, Any], *, principal: str | None = None) -> Iterator[Grant]:
    """Yields the grants of one statement, whose references are resolved.

    `principal` is the owner of the role if the statement is from a role's permissions policy, which has no Principal
    element; otherwise None.

    Raises:
        LocalStackError: the statement has an element that the local stack does not support.
    """
    _check_known(policy, statement, _STATEMENT_ELEMENTS)
    conditions = tuple(
        Condition(operator, key, tuple(_as_list(value)))
        for operator, tests in statement.get("Condition", {}).items()
        for key, value in tests.items()
    )
    _check_known(policy, [condition.operator for condition in conditions], OPERATORS)
    for name in [principal] if principal else _principals(policy, statement["Principal"]):
        for action in _as_list(statement["Action"]):
            for resource in _as_list(statement["Resource"]):
                if "${" in resource:  # a policy variable, such as ${aws:username}
                    raise _unsupported(policy, resource)
                yield Grant(policy, name, action, resource, conditions, statement["Effect"] == "Deny")


def _principals(policy: str, principal: Any) -> list[str]:
    if principal == "*":
        return ["*"]
    _check_known(policy, principal, {"Service"})
    return _as_list(principal["Service"])


def _statements(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _as_list(document["Statement"])


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_known(policy: str, found: Any, known: Any) -> None:
    if unknown := sorted(set(found) - set(known)):
        raise _unsupported(policy, ", ".join(unknown))


def _unsupported(policy: str, feature: str) -> UnsupportedError:
    return UnsupportedError(f"{policy}: {feature}", "local/permissions/grants.py")
