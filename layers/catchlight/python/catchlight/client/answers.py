"""Converts HTTP responses of the tasks API, and of API Gateway in front of it, into models and errors."""

from http import HTTPStatus
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from catchlight.api.schemas import ProblemBody
from catchlight.client.errors import PermissionDeniedError, TasksApiError, UnexpectedResponseError, error_of

Answer = TypeVar("Answer", bound=BaseModel)

_MAX_QUOTED_CHARACTERS = 300


def read_answer(response: httpx.Response, model: type[Answer]) -> Answer:
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
            f"{response.url.host} answered, but not as this version's tasks API does ({problems}). Install the "
            "catchlight that the stack was deployed from."
        ) from exc


def refusal(response: httpx.Response) -> TasksApiError:
    """Returns the error for a response that is neither a success nor a redirection, with its Retry-After."""
    error = _refusal(response)
    error.retry_after_seconds = _retry_after_seconds(response)
    return error


def _refusal(response: httpx.Response) -> TasksApiError:
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return error_of(read_answer(response, ProblemBody))
    said = _gateway_message(response)
    match response.status_code:
        case HTTPStatus.FORBIDDEN | HTTPStatus.UNAUTHORIZED:
            return PermissionDeniedError(
                f"The stack's API does not let your credentials in ({said}). They need execute-api:Invoke on it."
            )
        case HTTPStatus.NOT_FOUND:
            return UnexpectedResponseError(
                f"{response.url.host} has no tasks API ({said}). Update the stack: `make build && sam deploy`, or "
                "start it again with `make up`."
            )
        case HTTPStatus.TOO_MANY_REQUESTS:
            return TasksApiError(f"Too many requests for the stack's API ({said}). Try again later.", again=True)
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return TasksApiError(f"The stack's API failed: HTTP {status} ({said}). Its logs say why.", again=True)
        case status:
            return UnexpectedResponseError(f"{response.url.host} answered HTTP {status} ({said}), which no desk does.")


def _gateway_message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])[:_MAX_QUOTED_CHARACTERS]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase or f"{len(response.content)} bytes of something else"


def _retry_after_seconds(response: httpx.Response) -> float | None:
    """Reads Retry-After in seconds; API Gateway and the tasks API never send it as a date."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
