"""Decodes the bodies of requests to the tasks API, and names every part of a request that is not what it should be."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, TypeAdapter, ValidationError

from catchlight.api.problems import (
    BODY_TOO_LARGE,
    INVALID_PARAMETER,
    INVALID_REQUEST,
    KEY_MISSING,
    MALFORMED_BODY,
    APIError,
)
from catchlight.api.schemas import FieldProblem, IdempotencyKey
from catchlight.providers.payloads import decode_json

# Enough for the longest prompt and a list of image URLs. Images themselves are not part of a request.
MAX_BODY_BYTES = 256 * 1024
# The first errors are enough to understand the mistake: a registration may have a hundred malformed task ids.
MAX_ERRORS = 10
MAX_PLACE_LENGTH = 100

_IDEMPOTENCY_KEY: TypeAdapter[str] = TypeAdapter(IdempotencyKey)
_READ_THE_DOCUMENT = "See docs/tasks-api.openapi.yaml."


def decode_body(text: str) -> dict[str, Any]:
    """Decodes a body, which its route validates afterwards.

    Raises:
        MalformedBodyError: it is not strict JSON.
        APIError: body-too-large, invalid-request
    """
    # surrogatepass: a lone surrogate must not fail here; `decode_json` rejects it.
    content = text.encode(errors="surrogatepass")
    if len(content) > MAX_BODY_BYTES:
        raise APIError(
            BODY_TOO_LARGE,
            f"the body is longer than {MAX_BODY_BYTES} bytes",
            advice="Send URLs of images instead of images.",
        )
    decoded = decode_json(content)
    # Powertools would report an empty object as a missing body.
    if not isinstance(decoded, dict) or not decoded:
        raise APIError(INVALID_REQUEST, "the body should be a JSON object with members", advice=_READ_THE_DOCUMENT)
    return decoded


def malformed_body(reason: object) -> APIError:
    """Returns the error for a body that is not strict JSON."""
    return APIError(MALFORMED_BODY, str(reason), advice="Send JSON in UTF-8.")


def read_idempotency_key(key: str | None) -> str:
    """Returns the validated `Idempotency-Key` of a submission.

    Raises:
        APIError: idempotency-key-missing, invalid-parameter
    """
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


def refuse_unknown_parameters(query: type[BaseModel], query_string: str) -> None:
    """Checks that the query string has only parameters of this model, and each of them once.

    Raises:
        APIError: invalid-parameter
    """
    known = {field.alias for field in query.model_fields.values()}
    names = [name for name, _ in parse_qsl(query_string, keep_blank_values=True)]
    wrong = {name: "is not known" for name in names if name not in known}
    wrong |= {name: "is there twice" for name in names if name in known and names.count(name) > 1}
    if wrong:
        raise invalid_request(
            [{"loc": ("query", "query", name), "type": "", "msg": detail} for name, detail in wrong.items()]
        )


def invalid_request(every: Sequence[Mapping[str, Any]]) -> APIError:
    """Returns the error for a request with these errors of Powertools' validation.

    An error's `loc` begins with `query`, `query` or with `body`.
    """
    if every[0]["loc"] == ("body",) and every[0]["type"] == "missing":
        return malformed_body("the body is empty")
    is_body = every[0]["loc"][0] == "body"
    places = [error["loc"] for error in every]
    # pydantic does not count malformed items: a list that has only such items is also reported as too short. That
    # second error would mislead.
    found = [error for error in every if error["type"] != "too_short" or not _is_within(error["loc"], places)]
    begin = 1 if is_body else 2
    errors = tuple(FieldProblem(at=_place(error["loc"][begin:]), detail=_detail(error)) for error in found[:MAX_ERRORS])
    advice = _READ_THE_DOCUMENT
    if not is_body:
        advice = f"Change the query string. {_READ_THE_DOCUMENT}"
    elif any(error["loc"] == ("body", "request") and error["type"] == "extra_forbidden" for error in found):
        advice = f"This route registers tasks; requests for images are sent to POST /submissions. {_READ_THE_DOCUMENT}"
    return APIError(
        INVALID_REQUEST if is_body else INVALID_PARAMETER,
        "; ".join(f"{error.at}: {error.detail}" for error in errors),
        advice=advice,
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
