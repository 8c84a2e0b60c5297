"""Decodes and checks requests to the tasks API, and builds the errors that name their invalid fields."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel

from catchlight.api.problems import (
    BODY_TOO_LARGE,
    INVALID_PARAMETER,
    INVALID_REQUEST,
    KEY_MISSING,
    MALFORMED_BODY,
    APIError,
    FieldProblem,
)
from catchlight.api.request_models import IDEMPOTENCY_KEY_PATTERN
from catchlight.providers.payloads import decode_json

# Enough for the longest prompt and a list of image URLs. Requests do not contain images.
MAX_BODY_BYTES = 256 * 1024
# A registration may have a hundred malformed task ids: the first errors are enough to understand the mistake.
MAX_ERRORS = 10
MAX_FIELD_PATH_LENGTH = 100

_READ_THE_DOCUMENT = "See docs/tasks-api.openapi.yaml."


def decode_body(text: str) -> dict[str, Any]:
    """Decodes the body of a request. The route validates the result.

    Raises:
        MalformedBodyError: the body is not strict JSON.
        APIError: body-too-large, invalid-request
    """
    # surrogatepass: a lone surrogate must not fail here; `decode_json` rejects it.
    content = text.encode(errors="surrogatepass")
    if len(content) > MAX_BODY_BYTES:
        raise APIError(
            BODY_TOO_LARGE,
            f"the body is longer than {MAX_BODY_BYTES} bytes",
            advice="Send URLs of images instead of the images themselves.",
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
            "without an Idempotency-Key, a repeated submission could generate images twice",
            advice="Send a header Idempotency-Key with a new value for each request, such as a UUID, and with the same "
            "value when you repeat the request.",
        )
    if not re.fullmatch(IDEMPOTENCY_KEY_PATTERN, key):
        error = FieldProblem(at="Idempotency-Key", detail="should be 1 to 128 letters, digits, - and _")
        raise APIError(INVALID_PARAMETER, f"{error.at} {error.detail}", advice="Use a UUID.", errors=(error,))
    return key


def refuse_unknown_parameters(query: type[BaseModel], query_string: str) -> None:
    """Checks that the query string has only parameters of this model, each of them at most once.

    Raises:
        APIError: invalid-parameter
    """
    known = {field.alias for field in query.model_fields.values()}
    names = [name for name, _ in parse_qsl(query_string, keep_blank_values=True)]
    wrong = {name: "is not known" for name in names if name not in known}
    wrong |= {name: "occurs more than once" for name in names if name in known and names.count(name) > 1}
    if wrong:
        raise invalid_request(
            [{"loc": ("query", "query", name), "type": "", "msg": detail} for name, detail in wrong.items()]
        )


def invalid_request(validation_errors: Sequence[Mapping[str, Any]]) -> APIError:
    """Returns the problem for a request with these errors of Powertools' validation.

    An error's `loc` begins with `query`, `query` or with `body`.
    """
    first = validation_errors[0]
    if first["loc"] == ("body",) and first["type"] == "missing":
        return malformed_body("the body is empty")
    is_body = first["loc"][0] == "body"
    paths = [error["loc"] for error in validation_errors]
    # pydantic does not count malformed items: it also reports a list with only such items as too short. This second
    # error would be misleading.
    found = [error for error in validation_errors if error["type"] != "too_short" or not _is_outer(error["loc"], paths)]
    begin = 1 if is_body else 2
    errors = tuple(
        FieldProblem(at=_field_path(error["loc"][begin:]), detail=_detail(error)) for error in found[:MAX_ERRORS]
    )
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


def _is_outer(path: tuple[int | str, ...], others: list[tuple[int | str, ...]]) -> bool:
    """Decides whether one of the other paths leads to a part of the field at this path."""
    return any(len(other) > len(path) and other[: len(path)] == path for other in others)


def _field_path(steps: tuple[int | str, ...]) -> str:
    # Field names come from the caller: a JSON escape can be a lone surrogate, which cannot be encoded in UTF-8.
    return ".".join(map(str, steps)).encode(errors="replace").decode()[:MAX_FIELD_PATH_LENGTH] or "body"


def _detail(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "is not known"
    text: str = error["msg"]
    return text.removeprefix("Value error, ")
