"""Validates requests to the tasks API strictly: returns a model, or raises an error that lists the invalid fields."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from catchlight.api.problems import (
    BODY_TOO_LARGE,
    INVALID_PARAMETER,
    INVALID_REQUEST,
    KEY_MISSING,
    MALFORMED_BODY,
    APIError,
    Problem,
)
from catchlight.api.schemas import FieldProblem, IdempotencyKey, Registration, Submission
from catchlight.errors import MalformedBodyError
from catchlight.providers.payloads import decode_json

# Enough for the longest prompt and a list of image URLs. Images themselves are not part of a request.
MAX_BODY_BYTES = 256 * 1024
# The first errors are enough to understand the mistake: a registration may have a hundred malformed task ids.
MAX_ERRORS = 10
MAX_PLACE_LENGTH = 100

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_IDEMPOTENCY_KEY: TypeAdapter[str] = TypeAdapter(IdempotencyKey)
_READ_THE_DOCUMENT = "See docs/tasks-api.openapi.yaml."


def read_query(model: type[AnyModel], parameters: Mapping[str, str]) -> AnyModel:
    """Validates a query string's parameters and returns them as `model`.

    Raises:
        APIError: invalid-parameter
    """
    try:
        return model.model_validate(parameters)
    except ValidationError as exc:
        raise _invalid(INVALID_PARAMETER, exc, "Change the query string.") from None


def read_body(body: bytes) -> Registration | Submission:
    """Decodes the body of `POST /tasks` into a registration or a submission.

    Raises:
        APIError: body-too-large, malformed-body, invalid-request
    """
    if len(body) > MAX_BODY_BYTES:
        raise APIError(
            BODY_TOO_LARGE,
            f"the body is longer than {MAX_BODY_BYTES} bytes",
            advice="Send URLs of images instead of images.",
        )
    try:
        decoded = decode_json(body)
    except MalformedBodyError as exc:
        raise APIError(MALFORMED_BODY, str(exc), advice="Send JSON in UTF-8.") from None
    is_submission, is_registration = (isinstance(decoded, dict) and name in decoded for name in ("request", "taskIds"))
    if is_submission == is_registration:
        raise APIError(
            INVALID_REQUEST,
            "the body should have either taskIds, to register tasks, or request, to submit one",
            advice=_READ_THE_DOCUMENT,
        )
    model: type[Registration | Submission] = Submission if is_submission else Registration
    try:
        return model.model_validate(decoded)
    except ValidationError as exc:
        raise _invalid(INVALID_REQUEST, exc, _READ_THE_DOCUMENT) from None


def read_idempotency_key(headers: Mapping[str, str]) -> str:
    """Returns the validated `Idempotency-Key` of a submission. Header names must be in lower case.

    Raises:
        APIError: idempotency-key-missing, invalid-parameter
    """
    key = headers.get("idempotency-key")
    if key is None:
        raise APIError(
            KEY_MISSING,
            "a submission without Idempotency-Key could generate, and cost, twice",
            advice="Send a header Idempotency-Key that you make up for each request, a UUID for instance, and send the "
            "same one when you try again.",
        )
    try:
        return _IDEMPOTENCY_KEY.validate_python(key)
    except ValidationError:
        raise APIError(
            INVALID_PARAMETER,
            "Idempotency-Key should be 1 to 128 letters, digits, - and _",
            advice="Use a UUID.",
            errors=(FieldProblem(at="Idempotency-Key", detail="should be 1 to 128 letters, digits, - and _"),),
        ) from None


def _invalid(problem: Problem, invalid: ValidationError, advice: str) -> APIError:
    every = invalid.errors(include_url=False, include_context=False, include_input=False)
    places = [error["loc"] for error in every]
    # pydantic does not count malformed items: a list that has only such items is also reported as too short. That
    # second error would mislead.
    found = [error for error in every if error["type"] != "too_short" or not _is_within(error["loc"], places)]
    errors = tuple(FieldProblem(at=_place(error["loc"]), detail=_detail(error)) for error in found[:MAX_ERRORS])
    return APIError(
        problem,
        "; ".join(f"{error.at}: {error.detail}" for error in errors),
        advice=f"{advice} {_READ_THE_DOCUMENT}" if advice != _READ_THE_DOCUMENT else advice,
        errors=errors,
    )


def _is_within(place: tuple[int | str, ...], others: list[tuple[int | str, ...]]) -> bool:
    return any(len(other) > len(place) and other[: len(place)] == place for other in others)


def _place(steps: tuple[int | str, ...]) -> str:
    # Field names come from the caller, and a JSON escape can encode a lone surrogate, which UTF-8 cannot.
    return ".".join(map(str, steps)).encode(errors="replace").decode()[:MAX_PLACE_LENGTH] or "body"


def _detail(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "is not known"
    text: str = error["msg"]
    return text.removeprefix("Value error, ")
