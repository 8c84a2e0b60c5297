"""Writes docs/tasks-api.openapi.yaml from the models and problems of the tasks API. Run it when they change."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from catchlight.api import problems
from catchlight.api.problems import Problem
from catchlight.api.schemas import (
    IDEMPOTENCY_KEY_PATTERN,
    LinkQuery,
    NewTask,
    PageQuery,
    ProblemBody,
    RegisteredTasks,
    Registration,
    Submission,
    TaskPage,
    TaskQuery,
    TaskResponse,
)
from catchlight.models import TASK_ID_PATTERN
from catchlight.providers import PROVIDERS

DOCUMENT = Path(__file__).parent.parent / "docs" / "tasks-api.openapi.yaml"

DESCRIPTION = """\
Submit, register, look up and list image tasks, and get their images.

Every request is signed with AWS Signature Version 4 for the service `execute-api`; the caller needs
`execute-api:Invoke` on the route. What API Gateway answers on its own account, as to a request that is not signed, is
`{"message": "..."}` in application/json; what the tasks API refuses is a problem body (RFC 9457) in
application/problem+json that says what to do next.

A submission is sent to the provider once. Its `Idempotency-Key`, which the caller makes up (a UUID, or the id of an
order), may be sent again with the same request as often as it takes to get an answer: nothing is generated twice. Only
`submission-in-doubt` asks for a decision.
"""

# Answers of API Gateway itself: the request is not signed or not allowed, or there are too many requests.
API_ANSWERS = {HTTPStatus.FORBIDDEN: "Not signed, or not allowed", HTTPStatus.TOO_MANY_REQUESTS: "Too many requests"}
# Possible for every operation, if the table, a secret or the function itself is unavailable.
ANYWHERE = (problems.UNAVAILABLE,)


@dataclass(frozen=True)
class Answer:
    """A response that is not a problem body."""

    description: str
    model: type[BaseModel] | None = None
    headers: dict[str, str] = field(default_factory=dict)  # description by name


@dataclass(frozen=True)
class Operation:
    """A route of the API with its parameters, body and all responses."""

    method: str
    path: str
    id: str
    summary: str
    answers: dict[HTTPStatus, Answer]
    problems: tuple[Problem, ...] = ()
    description: str = ""
    query: type[BaseModel] | None = None
    body: tuple[type[BaseModel], ...] = ()

    @property
    def route_key(self) -> str:
        """The route key, as in the template and in API Gateway's events."""
        return f"{self.method} {self.path}"


OPERATIONS = (
    Operation(
        "POST",
        "/tasks",
        "postTasks",
        "Registers tasks, or submits a request for images",
        {
            HTTPStatus.OK: Answer("Registered, or known already", RegisteredTasks),
            HTTPStatus.CREATED: Answer(
                "Taken by the provider, and registered. The same again for the same key and request",
                NewTask,
                {"Location": "Path of the task"},
            ),
        },
        (
            *(problems.MALFORMED_BODY, problems.INVALID_PARAMETER, problems.KEY_MISSING, problems.BODY_TOO_LARGE),
            *(problems.IN_PROGRESS, problems.IN_DOUBT, problems.INVALID_REQUEST, problems.KEY_USED),
            *(problems.REQUEST_REFUSED, problems.ACCOUNT_REFUSED),
            *(problems.PROVIDER_BUSY, problems.PROVIDER_UNAVAILABLE),
        ),
        description=(
            "With `taskIds`, tasks that were submitted elsewhere are registered, so that they are polled for if their "
            "callbacks get lost.\n\nWith `request`, the request is sent to the provider with the callback URL put in, "
            "and the task that it makes of it is registered. A callback URL in the request is refused: callbacks "
            "belong here.\n"
        ),
        body=(Registration, Submission),
    ),
    Operation(
        "GET",
        "/tasks",
        "listTasks",
        "Lists tasks, the newest first",
        {HTTPStatus.OK: Answer("One page", TaskPage)},
        (problems.INVALID_PARAMETER,),
        description=(
            "In the order in which the table first heard of them; with `status`, in the order of their last change, "
            "where a task that changes meanwhile may be met twice or not at all.\n\nA task that somebody put into the "
            "table without `feed` and `arrivedAt` is listed once there is news of it.\n"
        ),
        query=PageQuery,
    ),
    Operation(
        "GET",
        "/tasks/{provider}/{taskId}",
        "getTask",
        "One task, with links to its images",
        {HTTPStatus.OK: Answer("The task as it is now", TaskResponse)},
        (problems.INVALID_PARAMETER, problems.NO_SUCH_TASK, problems.UNREADABLE_ITEM),
        query=TaskQuery,
    ),
    Operation(
        "GET",
        "/tasks/{provider}/{taskId}/images/{image}",
        "getImage",
        "Redirects to an archived image",
        {HTTPStatus.FOUND: Answer("The image is there", headers={"Location": "A link that lives linkSeconds"})},
        (
            *(problems.INVALID_PARAMETER, problems.NO_SUCH_TASK, problems.NO_SUCH_IMAGE),
            *(problems.IMAGE_NOT_ARCHIVED, problems.UNREADABLE_ITEM),
        ),
        query=LinkQuery,
    ),
    Operation(
        "DELETE",
        "/submissions/{key}",
        "giveUpSubmission",
        "Gives up a submission that is in doubt",
        {HTTPStatus.NO_CONTENT: Answer("The key is free: the next request under it is sent to the provider")},
        (
            *(problems.INVALID_PARAMETER, problems.NO_SUCH_SUBMISSION),
            *(problems.IN_PROGRESS, problems.NOT_IN_DOUBT),
        ),
        description="The decision to generate once more, and perhaps to pay twice, is the caller's.\n",
    ),
)

PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "provider": {"schema": {"type": "string", "enum": [*PROVIDERS]}},
    "taskId": {"schema": {"type": "string", "pattern": TASK_ID_PATTERN}},
    "image": {
        "description": "`{kind}-{index}`, as `result-0`.",
        "schema": {"type": "string", "pattern": "^(origin|result)-[0-9]{1,2}$"},
    },
    "key": {
        "description": "The `Idempotency-Key` that it was sent with.",
        "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY_PATTERN},
    },
}

IDEMPOTENCY_KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Required of a submission, and kept with its task. Registering takes it and needs none.",
    "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY_PATTERN},
}


def document() -> dict[str, Any]:
    """Returns the OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Catchlight's tasks API", "version": "1", "description": DESCRIPTION},
        "servers": [
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com",
                "variables": {"api": {"default": "your-api"}, "region": {"default": "us-east-1"}},
            }
        ],
        "security": [{"sigv4": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "sigv4": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4, service `execute-api`",
                }
            },
            "schemas": dict(sorted(_schemas().items())),
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    if parameters := list(_parameters(operation)):
        described["parameters"] = parameters
    if operation.body:
        schema = {"oneOf": [_reference(model) for model in operation.body]}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    described["responses"] = {str(status.value): body for status, body in sorted(_responses(operation).items())}
    return described


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, described in PATH_PARAMETERS.items():
        if f"{{{name}}}" in operation.path:
            yield {"name": name, "in": "path", "required": True, **described}
    if operation.query:
        properties = operation.query.model_json_schema(mode="validation")
        definitions = properties.get("$defs", {})
        for name, schema in properties["properties"].items():
            schema = _without_null(_inlined(schema, definitions))
            described = {"description": schema.pop("description")}
            yield {"name": name, "in": "query", **described, "schema": schema}
    if Submission in operation.body:
        yield IDEMPOTENCY_KEY_HEADER


def _responses(operation: Operation) -> dict[HTTPStatus, dict[str, Any]]:
    responses: dict[HTTPStatus, dict[str, Any]] = {}
    for status, answer in operation.answers.items():
        response: dict[str, Any] = {"description": answer.description}
        if answer.headers:
            response["headers"] = {
                name: {"description": description, "required": True, "schema": {"type": "string"}}
                for name, description in answer.headers.items()
            }
        if answer.model:
            response["content"] = {"application/json": {"schema": _reference(answer.model)}}
        responses[status] = response
    for problem in (*operation.problems, *ANYWHERE):
        response = responses.setdefault(problem.status, {"description": "", "content": {}})
        response["description"] = "; ".join(
            filter(None, [response["description"], f"`{problem.name}`: {problem.title}"])
        )
        schema = response["content"].setdefault(
            "application/problem+json",
            {"schema": {"allOf": [_reference(ProblemBody), {"properties": {"type": {"enum": []}}}]}},
        )["schema"]
        schema["allOf"][1]["properties"]["type"]["enum"].append(problem.type)
        if problem in problems.WORTH_WAITING:
            response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    api_answers = [*API_ANSWERS.items(), (HTTPStatus.SERVICE_UNAVAILABLE, "")]
    if "{" in operation.path:
        api_answers.append((HTTPStatus.NOT_FOUND, "No such path"))
    for status, description in api_answers:
        response = responses.setdefault(status, {"description": "", "content": {}})
        response["description"] = "; ".join(filter(None, [response["description"], description]))
        response["content"]["application/json"] = {"schema": {"$ref": "#/components/schemas/ApiMessage"}}
    return responses


def _by_name(models: set[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)


def _schemas() -> dict[str, Any]:
    asked: set[type[BaseModel]] = {model for operation in OPERATIONS for model in operation.body}
    answered: set[type[BaseModel]] = {
        answer.model for operation in OPERATIONS for answer in operation.answers.values() if answer.model
    }
    _, definitions = models_json_schema(
        [
            *((model, "validation") for model in _by_name(asked)),
            *((model, "serialization") for model in _by_name({*answered, ProblemBody})),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schemas = {name: _without_null(schema) for name, schema in definitions["$defs"].items()}
    schemas["ApiMessage"] = {
        "description": "What API Gateway answers on its own account.",
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
    }
    return schemas


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Returns the schema with its references inlined: query parameters have few, and some tools do not resolve them."""
    match schema:
        case {"$ref": str(reference), **rest}:
            return {**_inlined(definitions[reference.rpartition("/")[2]], definitions), **rest}
        case dict():
            return {name: _inlined(part, definitions) for name, part in schema.items()}
        case list():
            return [_inlined(part, definitions) for part in schema]
        case _:
            return schema


def _without_null(schema: Any) -> Any:
    """Returns the schema without titles, which repeat names, and without null, because missing values are omitted."""
    match schema:
        case {"anyOf": [only, {"type": "null"}], **rest}:
            rest.pop("default", None)
            return _without_null({**only, **rest})
        case dict():
            return {
                name: {key: _without_null(part) for key, part in value.items()}
                if name == "properties"
                else _without_null(value)
                for name, value in schema.items()
                if name != "title"
            }
        case list():
            return [_without_null(part) for part in schema]
        case _:
            return schema


def text() -> str:
    """Returns the document as the text of the file."""
    head = "# Made by scripts/write_openapi.py from the models in catchlight/api/schemas.py: change those.\n"
    return head + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Dumps YAML without anchors, and with texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _block)


def main() -> int:
    """Writes the file and returns exit status 0."""
    DOCUMENT.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
