"""Describes the responses of the tasks API's routes, for its OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from catchlight.api.problems import UNAVAILABLE, WORTH_WAITING, Problem

# Responses of API Gateway itself to requests of every route. 404: for example if a parameter of the path is empty.
GATEWAY_RESPONSES = {
    HTTPStatus.FORBIDDEN: "API Gateway: the request is not signed, or not allowed",
    HTTPStatus.NOT_FOUND: "API Gateway: there is no such path",
    HTTPStatus.TOO_MANY_REQUESTS: "API Gateway: too many requests",
    HTTPStatus.SERVICE_UNAVAILABLE: "API Gateway: the function is not available",
}


class ApiMessage(BaseModel):
    """An error response of API Gateway itself."""

    message: str


@dataclass(frozen=True)
class DocumentedResponse:
    """The description of a successful response."""

    description: str
    model: type[BaseModel] | None = None
    headers: dict[str, str] = field(default_factory=dict)  # required headers: description by name
    optional_headers: dict[str, str] = field(default_factory=dict)  # headers with integers: description by name


def responses(successful: Mapping[HTTPStatus, DocumentedResponse], *problems: Problem) -> dict[int, Any]:
    """Returns a route's `responses`: its successful ones, its problems, and those that all routes have in common."""
    described = {status: _successful_response(documented) for status, documented in successful.items()}
    for problem in (*problems, UNAVAILABLE):
        _add(described, problem.status, f"`{problem.name}`: {problem.title}")
        content = described[problem.status]["content"]
        types = content.setdefault("application/problem+json", _problem_body())["schema"]["allOf"][1]
        types["properties"]["type"]["enum"].append(problem.type)
        if problem in WORTH_WAITING:
            retry_after = {
                "description": "Seconds after which the request may be repeated",
                "schema": {"type": "integer"},
            }
            described[problem.status]["headers"] = {"Retry-After": retry_after}
    for status, description in GATEWAY_RESPONSES.items():
        _add(described, status, description)
        described[status]["content"]["application/json"] = {"model": ApiMessage}
    return {status.value: described[status] for status in sorted(described)}


def _successful_response(documented: DocumentedResponse) -> dict[str, Any]:
    content = {"application/json": {"model": documented.model}} if documented.model else {}
    response: dict[str, Any] = {"description": documented.description, "content": content}
    if documented.headers:
        response["headers"] = {
            name: {"description": description, "required": True, "schema": {"type": "string"}}
            for name, description in documented.headers.items()
        }
    if documented.optional_headers:
        response["headers"] = {
            name: {"description": description, "schema": {"type": "integer"}}
            for name, description in documented.optional_headers.items()
        }
    return response


def _add(described: dict[HTTPStatus, dict[str, Any]], status: HTTPStatus, description: str) -> None:
    response = described.setdefault(status, {"description": "", "content": {}})
    response["description"] = "; ".join(filter(None, [response["description"], description]))


def _problem_body() -> dict[str, Any]:
    problem = {"$ref": "#/components/schemas/ProblemBody"}
    return {"schema": {"allOf": [problem, {"properties": {"type": {"enum": []}}}]}}
