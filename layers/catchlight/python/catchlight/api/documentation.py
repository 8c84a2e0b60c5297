"""Describes the responses of the tasks API's routes, for its OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from catchlight.api.problems import UNAVAILABLE, WORTH_WAITING, Problem
from catchlight.api.schemas import ApiMessage

# Answers of API Gateway itself, which is also throttled, and answers 404 if the path's parameters are empty.
API_ANSWERS = {
    HTTPStatus.FORBIDDEN: "Not signed, or not allowed",
    HTTPStatus.NOT_FOUND: "No such path",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests",
    HTTPStatus.SERVICE_UNAVAILABLE: "Not available",
}


@dataclass(frozen=True)
class Answer:
    """A response that is not a problem body."""

    description: str
    model: type[BaseModel] | None = None
    headers: dict[str, str] = field(default_factory=dict)  # description by name
    optional_headers: dict[str, str] = field(default_factory=dict)  # numbers


def responses(answers: Mapping[HTTPStatus, Answer], *problems: Problem) -> dict[int, Any]:
    """Returns the `responses` of a route: its answers, its problems, and those that every route may have."""
    described = {status: _answer(answer) for status, answer in answers.items()}
    for problem in (*problems, UNAVAILABLE):
        _add(described, problem.status, f"`{problem.name}`: {problem.title}")
        content = described[problem.status]["content"]
        types = content.setdefault("application/problem+json", _problem_of())["schema"]["allOf"][1]
        types["properties"]["type"]["enum"].append(problem.type)
        if problem in WORTH_WAITING:
            retry_after = {"description": "Seconds", "schema": {"type": "integer"}}
            described[problem.status]["headers"] = {"Retry-After": retry_after}
    for status, description in API_ANSWERS.items():
        _add(described, status, description)
        described[status]["content"]["application/json"] = {"model": ApiMessage}
    return {status.value: described[status] for status in sorted(described)}


def _answer(answer: Answer) -> dict[str, Any]:
    content = {"application/json": {"model": answer.model}} if answer.model else {}
    response: dict[str, Any] = {"description": answer.description, "content": content}
    if answer.headers:
        response["headers"] = {
            name: {"description": description, "required": True, "schema": {"type": "string"}}
            for name, description in answer.headers.items()
        }
    if answer.optional_headers:
        response["headers"] = {
            name: {"description": description, "schema": {"type": "integer"}}
            for name, description in answer.optional_headers.items()
        }
    return response


def _add(described: dict[HTTPStatus, dict[str, Any]], status: HTTPStatus, description: str) -> None:
    response = described.setdefault(status, {"description": "", "content": {}})
    response["description"] = "; ".join(filter(None, [response["description"], description]))


def _problem_of() -> dict[str, Any]:
    problem = {"$ref": "#/components/schemas/ProblemBody"}
    return {"schema": {"allOf": [problem, {"properties": {"type": {"enum": []}}}]}}
