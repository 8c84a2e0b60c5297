"""docs/tasks-api.openapi.yaml is generated from the code, and documents every part of the tasks API."""

import re
from typing import Any

import pytest

from catchlight.api import problems
from catchlight.api.request_models import MAX_WAIT_SECONDS
from catchlight.api.response_models import TaskResponse
from catchlight.api.tasks_api import IMAGE_PATTERN
from catchlight.models import MAX_IMAGES_PER_TASK
from catchlight.providers import PROVIDERS
from catchlight.tasks.task import Task
from functions.serve_tasks_api import app
from local.template.expand import Template
from scripts import write_openapi
from tests.integration.tasks_api.api_harness import DOCUMENT

PROBLEMS = [each for each in vars(problems).values() if isinstance(each, problems.Problem)]
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}


def test_the_openapi_document_is_up_to_date() -> None:
    assert write_openapi.DOCUMENT.read_text() == write_openapi.text(), "run python -m scripts.write_openapi"


def test_the_openapi_document_and_the_template_have_the_same_routes(template: Template) -> None:
    paths = template.resources["TasksApi"]["Properties"]["Body"]["paths"]
    routes = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}

    assert routes == OPERATIONS.keys()


def test_tags_and_operation_ids_give_generated_clients_readable_interfaces() -> None:
    """Generators create a module or class from each tag, and a method from each operation id."""
    assert {name: (operation["tags"], operation["operationId"]) for name, operation in OPERATIONS.items()} == {
        "POST /submissions": (["Submissions"], "submitTask"),
        "DELETE /submissions/{key}": (["Submissions"], "releaseKey"),
        "GET /tasks": (["Tasks"], "listTasks"),
        "POST /tasks": (["Tasks"], "registerTasks"),
        "GET /tasks/{provider}/{taskId}": (["Tasks"], "getTask"),
        "GET /tasks/{provider}/{taskId}/images/{image}": (["Images"], "getImage"),
    }
    assert [tag["name"] for tag in DOCUMENT["tags"]] == ["Submissions", "Tasks", "Images"]


def test_response_schemas_are_shared_by_reference() -> None:
    """Generators create a separate class from each schema without a name."""
    for operation in OPERATIONS.values():
        contents = [
            content for response in operation["responses"].values() for content in response.get("content", {}).values()
        ]
        assert all(content["schema"].keys() == {"$ref"} for content in contents)


@pytest.mark.parametrize("route", OPERATIONS)
def test_every_operation_has_a_summary_and_a_description(route: str) -> None:
    assert OPERATIONS[route]["summary"].strip()
    assert OPERATIONS[route]["description"].strip()


def test_every_problem_is_documented_for_an_operation() -> None:
    documented = {name for operation in OPERATIONS.values() for name in problem_types(operation)}

    assert documented == {problem.type for problem in PROBLEMS}
    assert len(documented) == len(PROBLEMS)


def problem_types(operation: dict[str, Any]) -> list[str]:
    found = []
    for status, response in operation["responses"].items():
        content = response.get("content", {}).get("application/problem+json")
        if content:
            types = content["x-problem-types"]
            assert {problem.status for problem in PROBLEMS if problem.type in types} == {int(status)}
            found += types
    return found


@pytest.mark.parametrize("route", OPERATIONS)
def test_every_operation_can_be_forbidden_throttled_and_unavailable(route: str) -> None:
    responses = OPERATIONS[route]["responses"]

    for status in ("403", "429", "503"):
        assert "application/json" in responses[status]["content"]  # API Gateway's own
    assert "500" not in responses


def test_no_field_of_a_response_may_be_null() -> None:
    def nulls(schema: Any) -> bool:
        match schema:
            case {"type": "null"}:
                return True
            case dict():
                return any(map(nulls, schema.values()))
            case list():
                return any(map(nulls, schema))
            case _:
                return False

    # A provider's reply may be any JSON.
    schemas = {name: schema for name, schema in DOCUMENT["components"]["schemas"].items() if name != "ProviderReply"}
    assert not nulls(schemas)


def test_schemas_forbid_additional_properties() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if schema.get("type") == "object" and name != "ApiMessage":
            assert schema["additionalProperties"] is False, name


def test_the_endpoints_of_every_provider_are_listed() -> None:
    description = DOCUMENT["components"]["schemas"]["Submission"]["properties"]["endpoint"]["description"]

    for provider in PROVIDERS.values():
        assert f"{provider.id}: {', '.join(provider.submit_paths)}" in description


def test_a_task_response_has_all_public_attributes() -> None:
    """All attributes except the internal ones."""
    assert Task.model_fields.keys() - TaskResponse.model_fields.keys() == {
        "rank",
        "polling_since",
        "not_found_at",
        "reconciled_at",
        "archive_tries",
        "negative_tries",
        "archiving_since",
    }


def test_every_image_of_a_task_has_a_path() -> None:
    for index in range(MAX_IMAGES_PER_TASK):
        assert re.fullmatch(IMAGE_PATTERN, f"result-{index}")


def test_the_longest_wait_ends_before_the_functions_timeout(template: Template) -> None:
    timeout = template.resources["ServeTasksApiFunction"]["Properties"]["Timeout"]

    assert timeout > MAX_WAIT_SECONDS + app.RESERVED_SECONDS
