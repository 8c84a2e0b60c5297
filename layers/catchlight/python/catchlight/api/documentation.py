"""Describes the responses of the tasks API's routes, for its OpenAPI document."""

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


def success(
    description: str, model: type[BaseModel] | None = None, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Describes a successful response. `headers` are in OpenAPI's format."""
    content = {"application/json": {"model": model}} if model else {}
    response = {"description": description, "content": content}
    return response | {"headers": headers} if headers else response


def location(description: str) -> dict[str, Any]:
    """Describes the header Location of a response, which is always present."""
    return {"Location": {"description": description, "required": True, "schema": {"type": "string"}}}


def retry_after(description: str) -> dict[str, Any]:
    """Describes the header Retry-After of a response, which has a number of seconds."""
    return {"Retry-After": {"description": description, "schema": {"type": "integer"}}}


def responses(status: HTTPStatus, successful: dict[str, Any], *problems: Problem) -> dict[int, Any]:
    """Returns a route's `responses`: the successful one, its problems, and those that all routes have in common."""
    described = {status: successful}
    for problem in (*problems, UNAVAILABLE):
        _add(described, problem.status, f"`{problem.name}`: {problem.title}")
        content = described[problem.status]["content"]
        types = content.setdefault("application/problem+json", _problem_body())["schema"]["allOf"][1]
        types["properties"]["type"]["enum"].append(problem.type)
        if problem in WORTH_WAITING:
            described[problem.status]["headers"] = retry_after("Seconds after which the request may be repeated")
    for status, description in GATEWAY_RESPONSES.items():
        _add(described, status, description)
        described[status]["content"]["application/json"] = {"model": ApiMessage}
    return {status.value: described[status] for status in sorted(described)}


def _add(described: dict[HTTPStatus, dict[str, Any]], status: HTTPStatus, description: str) -> None:
    response = described.setdefault(status, {"description": "", "content": {}})
    response["description"] = "; ".join(filter(None, [response["description"], description]))


def _problem_body() -> dict[str, Any]:
    problem = {"$ref": "#/components/schemas/ProblemBody"}
    return {"schema": {"allOf": [problem, {"properties": {"type": {"enum": []}}}]}}
