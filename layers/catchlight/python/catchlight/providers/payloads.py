"""Parses the values that the JSON of all providers contains: ids, URLs, codes, messages, times and results of tasks."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError

from catchlight.errors import InvalidCallbackError, MalformedBodyError, ProviderUnavailableError
from catchlight.models import (
    MAX_MESSAGE_LENGTH,
    MAX_URL_BYTES_PER_TASK,
    MAX_URL_LENGTH,
    TASK_ID_PATTERN,
    Failure,
    FailureReason,
    GenerationRequest,
    Image,
    ImageKind,
    LastAnswer,
    ProviderRecord,
    Reporter,
    SkippedOutput,
    TaskReport,
    TaskStatus,
    encode_url,
)
from catchlight.providers.base import Provider

# Catchlight's error messages quote at most this many characters of a provider's error message.
MAX_QUOTED_LENGTH = 200
# Codes are short words or numbers; longer ones are cut.
MAX_CODE_LENGTH = 64
# The maximum number of digits of a status code, a seed or a time in milliseconds.
MAX_INTEGER_DIGITS = 15

# Codes that contain one of these words count as violations of the content policy.
CONTENT_POLICY_WORDS = ("policy", "moderation", "sensitive", "nsfw")

# Times without a zone are Beijing time: in recorded answers they are 8 h ahead of the epoch time in image file names.
BEIJING = timezone(timedelta(hours=8))
# All providers started later, so an earlier time is an error, or zero.
FIRST_PLAUSIBLE_TIME = datetime(2020, 1, 1, tzinfo=UTC)
# Larger numbers are milliseconds: as seconds, this one is the year 5138.
MAX_EPOCH_SECONDS = 100_000_000_000


class PayloadModel(BaseModel):
    """Base of the models of providers' JSON. Unknown keys are ignored, because providers add keys without notice."""

    # Validators are built on first use, because a callback's cold start needs those of one provider's callbacks only.
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, defer_build=True)


# Replacements for pydantic's messages with names of Python types and classes, which API callers do not know.
_JSON_TERMS = {"model_type": "should be an object", "tuple_type": "should be a list", "missing": "is missing"}

AnyPayloadModel = TypeVar("AnyPayloadModel", bound=PayloadModel)


def read(
    model: type[AnyPayloadModel],
    value: Any,
    *,
    error: type[InvalidCallbackError] | type[ProviderUnavailableError],
    at: str = "",
) -> AnyPayloadModel:
    """Validates a value as the given model. `at` is the path of the value in the body, for error messages.

    Raises:
        InvalidCallbackError, ProviderUnavailableError: the value is invalid; `error` selects which one is raised. The
            message names the field, never its value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in (at, *first["loc"]) if step != "") or "body"
        what = _JSON_TERMS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        raise error(f"{where}: {what}") from None


# ------------------------------------------------------------------------------------------------ JSON


def decode_json(body: bytes) -> Any:
    """Decodes JSON according to RFC 8259: in UTF-8, without NaN, repeated keys, or nesting that exhausts the stack.

    A byte order mark before it is ignored, as section 8.1 allows: some programs write one.

    Raises:
        MalformedBodyError: the body is not such JSON.
    """
    try:
        return json.loads(
            body.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated_keys
        )
    except UnicodeDecodeError:
        raise MalformedBodyError("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedBodyError("the body is nested too deeply") from None
    except json.JSONDecodeError as exc:
        raise MalformedBodyError(f"the body is not JSON: {exc.msg} at character {exc.pos}") from None
    except ValueError:
        # int() rejects an integer of thousands of digits (CVE-2020-10735).
        raise MalformedBodyError("the body contains a number that is too long") from None


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedBodyError("the body is not JSON: NaN and Infinity are not valid numbers")


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two parsers of {"taskId": "a", "taskId": "b"} may return different ids.
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedBodyError("the body has an object with the same key twice")
    return result


# ------------------------------------------------------------------------------------------------ values


def integer_or_none(value: Any) -> int | None:
    """Returns an integer, or the integer in a string: `code` was received as both. None for true, 200.0 and others."""
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


class UnusableUrl(str):
    """A value that a provider sent instead of a URL, and from which no image can be requested.

    It is stored like a URL, but in a form that the URL policy rejects and that no browser executes as a script. So one
    unusable URL rejects one image and not the report, in which other images may have usable ones.
    """

    __slots__ = ()


# Control characters, and lone surrogates, which AWS services reject.
_UNSENDABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_url(value: Any) -> str | None:
    """Returns an image's URL as browsers send it; None if there is no image: for null, "" and the string "null".

    All other values, from which no image can be requested, become an `UnusableUrl`.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        return UnusableUrl("not-text")
    url = value.strip()
    if url.lower() in ("", "null"):  # providers send both if there is no image
        return None
    # The URL policy rejects every backslash.
    sendable = encode_url(_UNSENDABLE.sub(r"\\", url))
    if not sendable.lower().startswith(("https://", "http://")):
        return UnusableUrl(sendable.replace(":", "%3A", 1)[: MAX_URL_LENGTH + 1])
    if len(sendable) > MAX_URL_LENGTH or _UNSENDABLE.search(url):
        return UnusableUrl(sendable[: MAX_URL_LENGTH + 1])
    return sendable


def require_usable_url(outputs: Collection[object]) -> None:
    """Checks that at least one of a success's outputs is not an `UnusableUrl`. A success without outputs is accepted.

    Raises:
        ValueError: all outputs are unusable URLs.
    """
    if outputs and all(isinstance(output, UnusableUrl) for output in outputs):
        raise ValueError("success without a usable image URL")


def text_or_none(value: Any, max_length: int = MAX_CODE_LENGTH) -> str | None:
    """Returns a string, cut to `max_length` characters; None if it is empty, and for values that are not strings."""
    # JSON can contain lone surrogates, which AWS services reject.
    return (value.encode(errors="replace").decode()[:max_length] or None) if isinstance(value, str) else None


def _message(value: Any) -> str:
    return text_or_none(value, MAX_MESSAGE_LENGTH) or ""


def quoted(message: Any, trace_id: Any = None) -> str:
    """Returns a phrase with the provider's message about a failed request, for the end of an error message.

    It is "" if there is no message and no trace id. `trace_id` is the provider's id of the request, for its support.
    Control characters are replaced, because error messages are shown in terminals.
    """
    text, trace = ("".join(c if c.isprintable() else " " for c in _message(value)) for value in (message, trace_id))
    phrase = f', and says "{text[:MAX_QUOTED_LENGTH]}"' if text.strip() else ""
    return phrase + (f" (trace {trace[:MAX_CODE_LENGTH]})" if trace.strip() else "")


def _code(value: Any) -> str | None:
    integer = integer_or_none(value)
    if integer is not None:
        return str(integer)
    return _message(value).strip()[:MAX_CODE_LENGTH] or None


def is_content_policy_code(code: str | None) -> bool:
    """Decides by the words in a failure's code whether the task has violated the provider's content policy."""
    return code is not None and any(word in code.lower() for word in CONTENT_POLICY_WORDS)


def time_or_none(value: Any) -> datetime | None:
    """Parses ISO 8601 with a zone, `YYYY-MM-DD HH:MM:SS` in UTC+8, and epoch seconds or milliseconds.

    Returns None for other values and for times before `FIRST_PLAUSIBLE_TIME`.
    """
    if isinstance(value, str):
        if value.isdecimal() and len(value) <= MAX_INTEGER_DIGITS:
            return time_or_none(int(value))
        try:
            time = datetime.fromisoformat(value)
        except ValueError:  # for example an hour of 24, which is documented
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


# A status code that determines the result: anything but an integer is rejected.
Integer = Annotated[int, BeforeValidator(_integer)]
# A code that is stored with a failure, like its message: an invalid one counts as absent.
Code = Annotated[str | None, BeforeValidator(_code)]
Message = Annotated[str, BeforeValidator(_message)]
# An image's URL, percent-encoded as browsers send it; None for `null`, "" and the string "null"; an `UnusableUrl` for
# all other values. Whether its host is allowed is decided by the URL policy, at the download.
Url = Annotated[str | None, PlainValidator(parse_url)]


# ------------------------------------------------------------------------------------------------ ids


def task_ids_in(body: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the values of the four fields in which providers send a task's id; null counts as absent."""
    for holder in (body.get("data"), body):
        if isinstance(holder, Mapping):
            yield from (holder[name] for name in ("taskId", "task_id") if holder.get(name) is not None)


def find_task_id(body: Any) -> str:
    """Returns the id of a callback's task.

    Raises:
        InvalidCallbackError: the body has no task id, a malformed one, or several that differ.
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
    """Decides whether a status code, of HTTP or of an envelope, proves that the provider has rejected a request.

    408 proves nothing: a server that timed out may have received the whole request.
    """
    return code is not None and 400 <= code < 500 and code != HTTPStatus.REQUEST_TIMEOUT


def submitted_task_id(provider_id: str, body: Any) -> str:
    """Returns the task id from the answer to an accepted request for images.

    Raises:
        ProviderUnavailableError: the answer has no valid task id.
    """
    try:
        return find_task_id(body)
    except InvalidCallbackError as exc:
        raise ProviderUnavailableError(f"{provider_id} seems to have accepted the request, but: {exc}") from None


# ------------------------------------------------------------------------------------------------ results


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """The result of a task in a provider's answer: outputs, a failure, or neither while the task is running."""

    images: tuple[tuple[ImageKind, str], ...] = ()
    skipped: tuple[SkippedOutput, ...] = ()
    failure: Failure | None = None
    completed_at: datetime | None = None
    request: GenerationRequest | None = None
    record: ProviderRecord | None = None
    answer: LastAnswer = LastAnswer.STILL_RUNNING  # why there is no result, if there is none
    is_hint: bool = False  # see `TaskReport`
    remark: str = ""  # an anomaly of the answer; for the log
    unreadable: str | None = None  # see `unreadable_success`

    @property
    def is_pending(self) -> bool:
        """Whether the task has neither outputs nor a failure."""
        return not (self.images or self.skipped) and self.failure is None

    @property
    def has_original_only(self) -> bool:
        """Whether a success has only the original image, and no result image: the task is not finished."""
        kinds = {kind for kind, _ in self.images}
        return kinds == {ImageKind.ORIGIN} and not self.skipped


STILL_RUNNING = ProviderResult()
UNKNOWN_TASK = ProviderResult(answer=LastAnswer.NOT_FOUND)
# A callback that reports a success without a URL is accepted: the provider's record may have the URL, and an error
# would only make the provider send the same body up to three times more.
SUCCESS_WITHOUT_URL = ProviderResult(is_hint=True, remark="success without an image URL")


def unreadable_success(callback: Mapping[str, Any], problem: object) -> ProviderResult:
    """Returns a failure for a task whose record reports a success, but has no image URL that can be read.

    The task fails at once instead of being polled until polling gives up. `callback` is the body of a callback with the
    same result: it is kept with the rejected deliveries, so that a later version can read it.
    """
    try:
        text = json.dumps(callback)
    except RecursionError:
        text = "{}"
    message = f"the service reports a success, but no image URL in its answer can be read: {problem}"
    failure = Failure(reason=FailureReason.OTHER, message=_message(message))
    return ProviderResult(failure=failure, answer=LastAnswer.UNREADABLE, unreadable=text)


def report(
    provider: Provider, task_id: str, result: ProviderResult, *, reported_by: Reporter, received_at: datetime
) -> TaskReport:
    """Converts a provider's result into a `TaskReport`.

    The lifetime of URLs starts when the task was completed, or when the result was received if the provider reports no
    completion time or one in the future, because its clock is ahead.
    """
    ready_at = min(result.completed_at or received_at, received_at)
    if result.has_original_only:
        remark = result.remark or "success with the original image only"
        result = replace(result, is_hint=True, answer=LastAnswer.ORIGINAL_ONLY, remark=remark)
    images, skipped = _outputs_that_fit(result)
    return TaskReport(
        provider=provider.id,
        task_id=task_id,
        status=_status(result),
        reported_by=reported_by,
        reported_at=received_at,
        images=tuple(
            Image(kind=kind, url=url, expires_at=ready_at + provider.url_lifetimes[kind]) for kind, url in images
        ),
        skipped=skipped,
        failure=result.failure,
        request=result.request,
        provider_record=result.record,
        answer=result.answer,
        is_hint=result.is_hint,
        remark=result.remark,
        unreadable=result.unreadable,
    )


def _outputs_that_fit(result: ProviderResult) -> tuple[list[tuple[ImageKind, str]], list[SkippedOutput]]:
    """Returns the images and the skipped outputs, with at most `MAX_URL_BYTES_PER_TASK` of URLs, images first.

    The URL of an image that exceeds this limit becomes an `UnusableUrl`, that of a skipped output None.
    """
    left = MAX_URL_BYTES_PER_TASK
    images, skipped = [], []
    for kind, url in result.images:
        kept = url if len(url) <= left else UnusableUrl("no-room-for-a-URL-this-long")
        images.append((kind, kept))
        left -= len(kept)
    for output in result.skipped:
        has_room = output.url is None or len(output.url) <= left
        skipped.append(output if has_room else output.model_copy(update={"url": None}))
        left -= len(skipped[-1].url or "")
    return images, skipped


def _status(result: ProviderResult) -> TaskStatus:
    if result.failure:
        return TaskStatus.FAILED
    return TaskStatus.PENDING if result.is_pending or result.has_original_only else TaskStatus.SUCCEEDED
