"""Decides whether AWS allows a request: implements the parts of IAM's policy evaluation that the template uses.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

ANYONE = "*"


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """One action on one resource that a principal requests.

    principal    logical id of the function, state machine or schedule whose role is used, or a service such as
                 `lambda.amazonaws.com`
    resource     an ARN, or `*` for an action that has no resources
    context      values of condition keys, such as `aws:SourceArn`
    """

    principal: str
    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a statement. It holds if one of `values` matches the request's value of `key`."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """One action on one resource that a statement allows or denies. A statement yields a grant for each combination.

    policy       the resource that holds the statement, or `MANAGED POLICY of ROLE`
    principal    as in PermissionRequest; `*` in a resource policy means anyone
    """

    policy: str
    principal: str
    action: str
    resource: str
    conditions: tuple[Condition, ...] = ()
    denies: bool = False

    def applies_to(self, request: PermissionRequest) -> bool:
        """Returns whether every element of the statement matches the request."""
        return (
            self.principal in (request.principal, ANYONE)
            # IAM compares actions case-insensitively, and resources case-sensitively.
            and _matches(self.action.lower(), request.action.lower())
            and _matches(self.resource, request.resource)
            and all(_holds(condition, request.context) for condition in self.conditions)
        )


def decide(request: PermissionRequest, grants: Iterable[Grant]) -> bool:
    """Returns whether the request is allowed: an explicit deny wins, then any allow; without either it is denied.

    Principal and resource belong to one account, so either the role's policy or the resource's policy suffices.
    """
    applying = grants_that_apply(request, grants)
    return bool(applying) and not any(grant.denies for grant in applying)


def grants_that_apply(request: PermissionRequest, grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Returns the grants and denials that match a request."""
    return tuple(grant for grant in grants if grant.applies_to(request))


def _arn_matches(pattern: str, arn: str) -> bool:
    # Each of the six parts is compared separately: a wildcard does not match across a colon.
    #
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    patterns, parts = pattern.split(":", 5), arn.split(":", 5)
    return len(patterns) == len(parts) and all(map(_matches, patterns, parts))


OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "ArnEquals": _arn_matches,  # IAM treats it as ArnLike
    "ArnLike": _arn_matches,
    "Bool": lambda expected, value: expected.lower() == value.lower(),
    "StringEquals": lambda expected, value: expected == value,
}


def _holds(condition: Condition, context: Iterable[tuple[str, str]]) -> bool:
    """Returns whether a condition holds. It does not hold if the request has no value for its key."""
    matches = OPERATORS[condition.operator]
    values = [value for key, value in context if key.lower() == condition.key.lower()]
    return any(matches(expected, value) for value in values for expected in condition.values)


def _matches(pattern: str, value: str) -> bool:
    return _compiled(pattern).fullmatch(value) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Translates a policy's wildcards to a regular expression: `*` is any text, `?` any one character."""
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
