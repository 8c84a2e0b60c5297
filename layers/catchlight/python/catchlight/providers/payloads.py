"""What the providers' JSON has in common: ids, URLs, codes, messages and times, and what they say of a task."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from catchlight.errors import InvalidCallbackError, ProviderUnavailableError
from catchlight.models import (
    MAX_MESSAGE_LENGTH,
    MAX_PROMPT_LENGTH,
    MAX_URL_LENGTH,
    TASK_ID_PATTERN,
    Failure,
    GenerationRequest,
    Image,
    ImageKind,
    Reporter,
    TaskReport,
    TaskStatus,
)
from catchlight.providers.protocol import Provider

# Codes are short words or numbers; what is longer is no code but somebody's text.
MAX_CODE_LENGTH = 64
# Longest way to write an integer in JSON that still can be a status code or milliseconds.
MAX_INTEGER_DIGITS = 15

TIMEOUT = HTTPStatus.REQUEST_TIMEOUT

# Naive times are Beijing time: in recorded answers they are 8 h ahead of the epoch in the image's file name.
BEIJING = timezone(timedelta(hours=8))
# None of these services is older, so an earlier time is a mistake, or zero.
FIRST_PLAUSIBLE_TIME = datetime(2020, 1, 1, tzinfo=UTC)
# Above this a number counts milliseconds: as seconds it would be the year 5138.
MAX_EPOCH_SECONDS = 100_000_000_000


class PayloadModel(BaseModel):
    """A piece of a provider's JSON. Unknown keys are normal: providers add some without notice."""

    # Deferred: a callback's cold start needs the validators of one provider's callbacks, no others.
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, defer_build=True)


# Where pydantic would talk of Python's types and of our classes.
_JSON_TERMS = {"model_type": "should be an object", "tuple_type": "should be a list", "missing": "is missing"}

AnyPayloadModel = TypeVar("AnyPayloadModel", bound=PayloadModel)


def read(
    model: type[AnyPayloadModel],
    value: Any,
    *,
    error: type[InvalidCallbackError] | type[ProviderUnavailableError],
    at: str = "",
) -> AnyPayloadModel:
    """The value as that model; `at` says where in the body it stands.

    Raises:
        InvalidCallbackError, ProviderUnavailableError: as `error` says. The message names the field, never its value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in (at, *first["loc"]) if step != "") or "body"
        what = _JSON_TERMS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        raise error(f"{where}: {what}") from None


# ------------------------------------------------------------------------------------------------ values


def integer_or_none(value: Any) -> int | None:
    """An integer, also one spelt as a string: both were seen for `code`. JSON's true is none, and neither is 200.0."""
    if isinstance(value, str) and re.fullmatch(rf"\s*-?[0-9]{{1,{MAX_INTEGER_DIGITS}}}\s*", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**MAX_INTEGER_DIGITS:
        return value
    return None


def _integer(value: Any) -> int:
    integer = integer_or_none(value)
    if integer is None:
        raise ValueError("should be an integer")
    return integer


def _url(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("should be a URL")
    url = value.strip()
    if url.lower() in ("", "null"):  # both are sent where there is no image
        return None
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"should be a URL of at most {MAX_URL_LENGTH} characters")
    if not url.lower().startswith(("https://", "http://")):
        raise ValueError("should be a URL that begins with https:// or http://")
    if not url.isprintable():  # line breaks, and half a surrogate pair, which no store takes
        raise ValueError("should be a URL of printable characters")
    return url


def _message(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    # JSON can spell half a surrogate pair, which no store takes.
    return value.encode(errors="replace").decode()[:MAX_MESSAGE_LENGTH]


def _code(value: Any) -> str | None:
    integer = integer_or_none(value)
    if integer is not None:
        return str(integer)
    return _message(value).strip()[:MAX_CODE_LENGTH] or None


def time_or_none(value: Any) -> datetime | None:
    """ISO 8601 with a zone, `YYYY-MM-DD HH:MM:SS` in UTC+8, epoch seconds or milliseconds. Anything else is None."""
    if isinstance(value, str):
        if value.isdecimal() and len(value) <= MAX_INTEGER_DIGITS:
            return time_or_none(int(value))
        try:
            time = datetime.fromisoformat(value)
        except ValueError:  # an hour of 24 is documented, too
            return None
        if time.tzinfo is None:
            if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", value):
                return None
            time = time.replace(tzinfo=BEIJING)
    elif isinstance(value, int | float) and 0 < value < MAX_EPOCH_SECONDS * 1000:
        time = datetime.fromtimestamp(value / 1000 if value > MAX_EPOCH_SECONDS else value, UTC)
    else:
        return None
    return time if time >= FIRST_PLAUSIBLE_TIME else None


# A status code that decides: anything but an integer is refused.
Integer = Annotated[int, BeforeValidator(_integer)]
# A code that is only kept for people, like a message: what is none counts as absent.
Code = Annotated[str | None, BeforeValidator(_code)]
Message = Annotated[str, BeforeValidator(_message)]
# An image's URL; None where `null`, "" or the string "null" says that there is none. What may be fetched is decided by
# whoever fetches.
Url = Annotated[str | None, BeforeValidator(_url)]
# A time, None if it cannot be read: it never decides about a task.
Time = Annotated[datetime | None, BeforeValidator(time_or_none)]


# ------------------------------------------------------------------------------------------------ ids


def task_ids_in(body: Mapping[str, Any]) -> Iterator[Any]:
    """What stands at the four places where providers put a task's id; null counts as absent."""
    for holder in (body.get("data"), body):
        if isinstance(holder, Mapping):
            yield from (holder[name] for name in ("taskId", "task_id") if holder.get(name) is not None)


def find_task_id(body: Any) -> str:
    """The id of the task that a callback speaks of.

    Raises:
        InvalidCallbackError: there is none, there are several, or it is not one.
    """
    if not isinstance(body, Mapping):
        raise InvalidCallbackError("body: should be an object")
    ids = list(task_ids_in(body))
    if not ids:
        raise InvalidCallbackError("task id is missing: looked for taskId and task_id, in data and beside it")
    if not all(isinstance(task_id, str) and re.fullmatch(TASK_ID_PATTERN, task_id) for task_id in ids):
        raise InvalidCallbackError("task id is malformed: should be 1 to 128 letters, digits, - and _")
    if len(set(ids)) > 1:
        raise InvalidCallbackError("task id is ambiguous: the body holds several that differ")
    return str(ids[0])


# ------------------------------------------------------------------------------------------------ submissions


def is_refusal(code: int | None) -> bool:
    """Whether a status, of HTTP or of an envelope, says for certain that a request was not taken.

    408 does not: a server that was tired of waiting may have read it all.
    """
    return code is not None and HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR and code != TIMEOUT


def submitted_task_id(provider_id: str, body: Any) -> str:
    """The id in the answer to a request for images that was taken.

    Raises:
        ProviderUnavailableError: there is none that could be a task's.
    """
    try:
        return find_task_id(body)
    except InvalidCallbackError as exc:
        raise ProviderUnavailableError(f"{provider_id} seems to have taken the request, but: {exc}") from None


# ------------------------------------------------------------------------------------------------ what was asked


def generation_request(told: Any, *, seeds: Iterable[Any] = ()) -> GenerationRequest | None:
    """What a provider tells of its task's request, be it an object or its JSON; None if it tells nothing.

    Nothing in it fails a task: what cannot be read is left out.
    """
    if isinstance(told, str | bytes):
        try:
            told = json.loads(told)
        except (ValueError, RecursionError):
            told = None
    values = told if isinstance(told, Mapping) else {}
    # The images' own seeds, where they tell: the one that was asked for is not another image's.
    known_seeds = tuple(_integers(seeds)) or tuple(_integers((values.get("seed"),)))
    sizes = (_text(values.get(name)) for name in ("size", "image_size", "aspectRatio"))
    request = GenerationRequest(
        prompt=_text(values.get("prompt"), MAX_PROMPT_LENGTH),
        model=_text(values.get("model")),
        size=next(filter(None, sizes), None),
        seeds=known_seeds or None,
    )
    return request if request != GenerationRequest() else None


def _integers(values: Iterable[Any]) -> Iterator[int]:
    return (number for number in map(integer_or_none, values) if number is not None)


def _text(value: Any, max_length: int = MAX_CODE_LENGTH) -> str | None:
    # JSON can spell half a surrogate pair, which no store takes.
    return (value.encode(errors="replace").decode()[:max_length] or None) if isinstance(value, str) else None


# ------------------------------------------------------------------------------------------------ news


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """What an answer says of a task: images, or a failure, or neither while the provider is at work."""

    images: tuple[tuple[ImageKind, str], ...] = ()
    failure: Failure | None = None
    completed_at: datetime | None = None
    request: GenerationRequest | None = None


STILL_RUNNING = ProviderResult()


def report(
    provider: Provider, task_id: str, verdict: ProviderResult, *, reported_by: Reporter, received_at: datetime
) -> TaskReport:
    """The verdict as news.

    URLs live from the moment the task was completed, as far as that is told; a clock that runs ahead of ours does not
    prolong them.
    """
    ready_at = min(verdict.completed_at or received_at, received_at)
    return TaskReport(
        provider=provider.id,
        task_id=task_id,
        status=_status(verdict),
        reported_by=reported_by,
        reported_at=received_at,
        images=tuple(
            Image(kind=kind, url=url, expires_at=ready_at + provider.url_lifetimes[kind])
            for kind, url in verdict.images
        ),
        failure=verdict.failure,
        request=verdict.request,
    )


def _status(verdict: ProviderResult) -> TaskStatus:
    if verdict.failure:
        return TaskStatus.FAILED
    return TaskStatus.SUCCEEDED if verdict.images else TaskStatus.PENDING
