"""The permissions of callers that docs/tasks-api.md lists, decided as IAM does for every route of the tasks API."""

import json
import re

import pytest

from local.permissions.decision import Grant, PermissionRequest, decide
from tests.unit.template.expanded import REPOSITORY, of_type

PAGE = (REPOSITORY / "docs" / "tasks-api.md").read_text()
ROUTES = {
    f"{method.upper()} {path}"
    for path, operations in of_type("AWS::ApiGatewayV2::Api")["TasksApi"]["Body"]["paths"].items()
    for method in operations
}
READING = {"GET /tasks", "GET /tasks/{provider}/{taskId}", "GET /tasks/{provider}/{taskId}/images/{image}"}
ALLOWED = {
    "read": READING,
    "register": {"POST /tasks"},
    "submit": {"POST /submissions"},
    "release": {"DELETE /submissions/{key}"},
}
EXAMPLES = {"{provider}": "flux-kontext", "{taskId}": "task12345", "{image}": "result-0", "{key}": "order-17"}


def documented() -> dict[str, str]:
    """Returns the resource of each permission in the page's table."""
    return dict(re.findall(r"^\| (read|register|submit|release)\b[^|]* \| `([A-Z]+/[^`]+)` \|", PAGE, re.MULTILINE))


def arn(resource: str) -> str:
    return f"arn:aws:execute-api:us-east-1:123456789012:a1b2c3/$default/{resource}"


def allows(resource: str, route: str) -> bool:
    """Decides a request of a caller with this resource in its policy."""
    method, _, path = route.partition(" ")
    for name, value in EXAMPLES.items():
        path = path.replace(name, value)
    grant = Grant("policy", "caller", "execute-api:Invoke", arn(resource))
    return decide(PermissionRequest("caller", "execute-api:Invoke", arn(f"{method}{path}")), [grant])


@pytest.mark.parametrize("permission", ALLOWED)
def test_a_permission_allows_its_routes_only(permission: str) -> None:
    assert {route for route in ROUTES if allows(documented()[permission], route)} == ALLOWED[permission]


def test_each_route_needs_one_permission() -> None:
    for route in ROUTES:
        assert sum(route in routes for routes in ALLOWED.values()) == 1, route


def test_the_policy_in_the_page_allows_reading_only() -> None:
    (policy,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    (statement,) = policy["Statement"]
    assert statement["Action"] == "execute-api:Invoke"
    _, _, resource = statement["Resource"].partition("$default/")

    assert {route for route in ROUTES if allows(resource, route)} == READING
