"""Converts HTTP responses of the tasks API and of API Gateway into models and errors."""

from http import HTTPStatus
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from catchlight.api.problems import ProblemBody
from catchlight.client.errors import PermissionDeniedError, TasksApiError, UnexpectedResponseError, api_error

Body = TypeVar("Body", bound=BaseModel)

_MAX_QUOTED_CHARACTERS = 300


def parse_response(response: httpx.Response, model: type[Body]) -> Body:
    """Validates a response's body and returns it as `model`.

    Raises:
        UnexpectedResponseError: the body does not fit the model.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in exc.errors(include_input=False)
        )
        raise UnexpectedResponseError(
            f"The response of {response.url.host} is not that of this version's tasks API ({problems}). Install the "
            "version of catchlight that the stack was deployed from."
        ) from exc


def error_from(response: httpx.Response) -> TasksApiError:
    """Returns the error for a response that is neither a success nor a redirect, with the seconds of Retry-After."""
    error = _error_from(response)
    error.retry_after_seconds = retry_after_seconds(response)
    return error


def _error_from(response: httpx.Response) -> TasksApiError:
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return api_error(parse_response(response, ProblemBody))
    message = _gateway_message(response)
    match response.status_code:
        case HTTPStatus.FORBIDDEN | HTTPStatus.UNAUTHORIZED:
            return PermissionDeniedError(
                f"The stack's API refuses your credentials ({message}). They need execute-api:Invoke on this route."
            )
        case HTTPStatus.NOT_FOUND:
            return UnexpectedResponseError(
                f"{response.url.host} has no tasks API ({message}). Update the stack with `make build && sam deploy`, "
                "or restart the local one with `make up`."
            )
        case HTTPStatus.TOO_MANY_REQUESTS:
            return TasksApiError(f"The stack's API throttles requests ({message}). Try again later.", retryable=True)
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return TasksApiError(f"The stack's API failed: HTTP {status} ({message}). See its logs.", retryable=True)
        case status:
            return UnexpectedResponseError(
                f"{response.url.host} returned HTTP {status} ({message}), which the tasks API never does."
            )


def _gateway_message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])[:_MAX_QUOTED_CHARACTERS]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase or f"{len(response.content)} bytes without a message"


def retry_after_seconds(response: httpx.Response) -> float | None:
    """Reads Retry-After in seconds; API Gateway and the tasks API never send it as a date."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
