"""IAM's evaluation of policies: each element of a statement separately, denials before grants."""

from typing import Any

import pytest

from local.permissions.decision import Condition, Grant, PermissionRequest, decide

OBJECT = "arn:aws:s3:::pictures/images/a.png"
READ = PermissionRequest("Archiver", "s3:GetObject", OBJECT)
GRANT = Grant("ArchiverRole", "Archiver", "s3:GetObject", "arn:aws:s3:::pictures/images/*")


def changed(grant: Grant, **changes: Any) -> Grant:
    fields = {name: getattr(grant, name) for name in Grant.__dataclass_fields__}
    return Grant(**(fields | changes))


@pytest.mark.parametrize(
    "grant",
    [
        GRANT,
        changed(GRANT, action="S3:getobject"),
        changed(GRANT, action="s3:Get*"),
        changed(GRANT, resource="*"),
        changed(GRANT, resource="arn:aws:s3:::pictures/images/?.png"),
        changed(GRANT, principal="*"),
    ],
)
def test_a_matching_statement_allows(grant: Grant) -> None:
    assert decide(READ, [grant])


@pytest.mark.parametrize(
    "grant",
    [
        changed(GRANT, principal="Poller"),
        changed(GRANT, action="s3:PutObject"),
        changed(GRANT, action="s3:GetObjec?t"),
        changed(GRANT, resource="arn:aws:s3:::pictures/rejected/*"),
        changed(GRANT, resource="arn:aws:s3:::pictures/images"),
        changed(GRANT, resource="arn:aws:s3:::PICTURES/images/*"),
        changed(GRANT, resource="arn:aws:s3:::pictures/images/a.pn."),
        changed(GRANT, conditions=(Condition("StringEquals", "s3:prefix", ("images/",)),)),
    ],
)
def test_each_element_must_match(grant: Grant) -> None:
    assert not decide(READ, [grant])


def test_without_a_statement_nothing_is_allowed() -> None:
    assert not decide(READ, [])


def test_a_denial_wins_over_every_grant() -> None:
    denial = changed(GRANT, principal="*", action="s3:*", denies=True)

    assert not decide(READ, [GRANT, denial, GRANT])
    assert not decide(READ, [denial])
    assert decide(READ, [GRANT, changed(denial, action="s3:PutObject")])


ROUTE = "arn:aws:execute-api:us-east-1:123456789012:Api/$default/POST/callbacks/{provider}/{token+}"


@pytest.mark.parametrize(
    ("operator", "expected", "value", "holds"),
    [
        ("Bool", "false", "false", True),
        ("Bool", "false", "False", True),
        ("Bool", "false", "true", False),
        ("StringEquals", "123456789012", "123456789012", True),
        ("StringEquals", "1234*", "123456789012", False),
        ("ArnLike", ROUTE.replace("$default", "*").replace("{provider}", "*"), ROUTE, True),
        ("ArnLike", ROUTE.replace("POST", "GET"), ROUTE, False),
        ("ArnLike", "arn:aws:execute-api:*:Api/*", ROUTE, False),  # a wildcard does not match a colon
    ],
)
def test_conditions(operator: str, expected: str, value: str, holds: bool) -> None:
    grant = changed(GRANT, conditions=(Condition(operator, "aws:Key", (expected,)),))

    assert decide(PermissionRequest("Archiver", "s3:GetObject", OBJECT, (("aws:Key", value),)), [grant]) is holds
    assert decide(PermissionRequest("Archiver", "s3:GetObject", OBJECT, (("AWS:KEY", value),)), [grant]) is holds
    assert not decide(READ, [grant])  # a request without this condition key


def test_all_conditions_must_hold_each_for_one_value() -> None:
    either = Condition("StringEquals", "a", ("1", "2"))
    other = Condition("StringEquals", "b", ("1",))
    request = PermissionRequest("Archiver", "s3:GetObject", OBJECT, (("a", "2"), ("b", "1")))

    assert decide(request, [changed(GRANT, conditions=(either, other))])
    assert not decide(
        PermissionRequest(*READ_PARTS, (("a", "2"), ("b", "2"))), [changed(GRANT, conditions=(either, other))]
    )
    assert not decide(
        PermissionRequest(*READ_PARTS, (("a", "3"), ("b", "1"))), [changed(GRANT, conditions=(either, other))]
    )


READ_PARTS = (READ.principal, READ.action, READ.resource)
