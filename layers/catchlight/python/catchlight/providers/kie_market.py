"""The provider `kie-market`: kie.ai's Market API, one pair of endpoints for the models of many vendors.

A callback and a poll's answer have the same record in `data`. Some models generate videos, audio or text, even in the
same list as images; these outputs are reported as skipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import PlainValidator, model_validator
from pydantic_core import from_json

from catchlight.errors import InvalidCallbackError, UnreadableAnswerError
from catchlight.models import MAX_IMAGES_PER_TASK, Failure, FailureReason, ImageKind, Media, SkippedOutput
from catchlight.providers.kie import (
    DOWNLOAD_URL_LIFETIME,
    FAILURE_REASONS,
    KIE_IMAGE_HOSTS,
    OK,
    KieModel,
    KieProvider,
    SuccessFlag,
)
from catchlight.providers.payloads import (
    STILL_RUNNING,
    SUCCESS_WITHOUT_URL,
    Code,
    Message,
    ProviderResult,
    UnusableUrl,
    integer_or_none,
    is_content_policy_code,
    parse_url,
    read,
    require_usable_url,
    time_or_none,
)
from catchlight.providers.records import generation_request, provider_record

# How often JSON may be encoded as a string within JSON: once in documented and recorded results, twice in `param`.
MAX_JSON_LEVELS = 2

# The fields of a result, in the order in which their outputs are numbered. `resultUrls` is in all documented results;
# models of some vendors add the same video with a watermark, or its first and last frame, which are images.
OUTPUT_FIELDS = ("resultUrls", "resultImageUrl", "resultWaterMarkUrls", "firstFrameUrl", "lastFrameUrl")
# The result of models that generate text.
TEXT_FIELD = "resultObject"

# The media of outputs by the extension of their URL. Every other output is treated as an image: extensions of images
# were seen to be wrong or missing, and the archiver decides by the bytes.
MEDIA_BY_EXTENSION = {
    **dict.fromkeys(("mp4", "mov", "webm", "mkv", "avi", "m4v", "mpg", "mpeg", "m3u8"), Media.VIDEO),
    **dict.fromkeys(("mp3", "wav", "m4a", "aac", "flac", "ogg", "opus"), Media.AUDIO),
    **dict.fromkeys(("txt", "json", "srt", "vtt", "md", "csv"), Media.TEXT),
    **dict.fromkeys(("zip", "glb", "gltf", "obj", "fbx", "ply", "stl", "usdz", "pdf"), Media.OTHER),
}


# The values of `state`. Records since September 2026 also have the field `successFlag` of the Flux Kontext API.
STATES = {
    "waiting": SuccessFlag.GENERATING,
    "queuing": SuccessFlag.GENERATING,
    "generating": SuccessFlag.GENERATING,
    "success": SuccessFlag.SUCCESS,
    "fail": SuccessFlag.GENERATE_FAILED,
}

# The URL of an image, or an output that is not an image.
Output = str | SkippedOutput


def _decoded(value: Any) -> Any:
    """Decodes JSON in a string. Other values, also URLs and texts, are returned unchanged.

    Raises:
        ValueError: the string begins like JSON, but is cut off or malformed.
    """
    for _ in range(MAX_JSON_LEVELS):
        if not (isinstance(value, str) and value.lstrip().startswith(("{", "[", '"'))):
            break
        try:
            value = from_json(value.encode(errors="replace"))  # from_json raises TypeError for lone surrogates
        except ValueError:
            raise ValueError("should be JSON, but is cut off or malformed") from None
    return value


def _outputs(result: Any) -> tuple[Output, ...]:
    """Returns the outputs in `resultJson` or `response`.

    Raises:
        ValueError: the value is malformed JSON.
    """
    result = _decoded(result)
    if not isinstance(result, Mapping):
        result = {OUTPUT_FIELDS[0]: result}  # a bare URL, as in other APIs of the family, or a list of URLs
    found: list[Output] = [_output(text) for name in OUTPUT_FIELDS for text in _texts(result.get(name))]
    if result.get(TEXT_FIELD):
        found.append(SkippedOutput(media=Media.TEXT))
    if not found:
        # A vendor may put the outputs into a field of its own: then the URLs in all fields are used. Sorted, because
        # the outputs must have the same order in the callback and in the record.
        others = (text for name in sorted(result) for text in _texts(result[name]))
        found = [_output(text) for text in others if _is_url(text)]
    return tuple(found)


def _texts(value: Any) -> Iterator[str]:
    """Yields the non-empty strings in a field: one string, a list of them, or objects with `url`."""
    value = _decoded(value)
    for part in value if isinstance(value, list) else (value,):
        text = part.get("url") if isinstance(part, Mapping) else part
        if isinstance(text, str) and text.strip().lower() not in ("", "null"):
            yield text.strip()


def _output(text: str) -> Output:
    if text.lower().startswith("data:"):
        return SkippedOutput(media=Media.OTHER)
    if not _is_url(text):
        return SkippedOutput(media=Media.TEXT)
    url = parse_url(text) or text
    path = text.partition("?")[0].partition("#")[0]
    media = MEDIA_BY_EXTENSION.get(path.rpartition("/")[2].rpartition(".")[2].lower())
    if media:
        return SkippedOutput(media=media, url=None if isinstance(url, UnusableUrl) else url)
    return url


def _is_url(text: str) -> bool:
    return text.lower().startswith(("https://", "http://"))


def _status_of(record: Mapping[str, Any]) -> SuccessFlag | None:
    """Returns the status in a record; None if it has no known one.

    The first known value of these determines it: `state`, `successFlag`, the `code` of a callback's envelope.
    """
    state, flag, code = record.get("state"), integer_or_none(record.get("successFlag")), record.get("code")
    if isinstance(state, str) and state.strip().lower() in STATES:
        return STATES[state.strip().lower()]
    if flag in set(SuccessFlag):
        return SuccessFlag(flag)
    if code is None:
        return None
    return SuccessFlag.SUCCESS if code == OK else SuccessFlag.GENERATE_FAILED


class MarketRecord(KieModel):
    """The field `data` of a callback and of a poll's answer, and the envelope's code and message of a callback."""

    success_flag: SuccessFlag
    code: Code = None
    msg: Message = ""
    result_json: Annotated[tuple[Output, ...], PlainValidator(_outputs)] = ()
    response: Annotated[tuple[Output, ...], PlainValidator(_outputs)] = ()
    fail_code: Code = None
    fail_msg: Message = ""
    error_code: Code = None
    error_message: Message = ""
    create_time: Any = None
    complete_time: Any = None
    cost_time: Any = None  # in seconds
    param: Any = None  # the request for images, as JSON in a string; in it `input` is an object or JSON in a string
    param_json: Any = None  # the same in newer records

    @model_validator(mode="before")
    @classmethod
    def _resolve_status(cls, record: Any) -> Any:
        if not isinstance(record, Mapping):
            return record
        status = _status_of(record)
        if status is None:
            raise ValueError(f"state: should be {', '.join(STATES)}")
        # Only a success has outputs: a running task's resultJson is "", and a failed task's is ignored.
        no_outputs = {} if status is SuccessFlag.SUCCESS else {"resultJson": None, "response": None}
        return {**record, "successFlag": status, **no_outputs}

    @model_validator(mode="after")
    def _require_usable_url(self) -> Self:
        require_usable_url((*self.result_json, *self.response))
        return self

    def result(self) -> ProviderResult:
        """Returns the task's result; a hint, if the record reports a success without a result."""
        if self.success_flag is SuccessFlag.GENERATING:
            return STILL_RUNNING
        request = generation_request(self.param) or generation_request(self.param_json)
        record = provider_record(
            created=self.create_time,
            completed=self.complete_time,
            timings=self.cost_time,
            parameters=self.param or self.param_json,
        )
        if self.success_flag is not SuccessFlag.SUCCESS:
            return ProviderResult(failure=self._failure(), request=request, record=record)
        # Newer records have the same URLs in both fields.
        outputs = dict.fromkeys((*self.result_json, *self.response))
        if not outputs:
            return replace(SUCCESS_WITHOUT_URL, remark="success without a result")
        return ProviderResult(
            images=tuple((ImageKind.RESULT, output) for output in outputs if isinstance(output, str)),
            skipped=tuple(output for output in outputs if isinstance(output, SkippedOutput)),
            completed_at=time_or_none(self.complete_time),
            request=request,
            record=record,
        )

    def _failure(self) -> Failure:
        code = self.fail_code or self.error_code or (self.code if self.code != str(OK) else None)
        message = self.fail_msg or self.error_message or self.msg
        return Failure(reason=_reason(code), code=code, message=message)


def _reason(code: str | None) -> FailureReason:
    # `failCode` is documented as a number like an HTTP status, and as GENERATION_FAILED.
    if is_content_policy_code(code):
        return FailureReason.CONTENT_POLICY
    if code and code.upper() == FailureReason.GENERATION_FAILED:
        return FailureReason.GENERATION_FAILED
    return FAILURE_REASONS.get(code, FailureReason.OTHER)


def _limited(result: ProviderResult) -> ProviderResult:
    return replace(result, images=result.images[:MAX_IMAGES_PER_TASK], skipped=result.skipped[:MAX_IMAGES_PER_TASK])


class KieMarketProvider(KieProvider):
    """The implementation of `Provider` for the Market API: kie.ai's envelope around another record."""

    def _result_of_callback(self, body: Mapping[str, Any]) -> ProviderResult:
        data = body.get("data")
        record = {**(data if isinstance(data, Mapping) else {}), "msg": body.get("msg")}
        record["code"] = integer_or_none(body.get("code"))
        result = read(MarketRecord, record, at="data", error=InvalidCallbackError).result()
        if len(result.images) > MAX_IMAGES_PER_TASK:
            raise InvalidCallbackError(f"data.resultJson: should be at most {MAX_IMAGES_PER_TASK} images")
        return _limited(result)

    def _has_succeeded(self, data: Mapping[str, Any]) -> bool:
        return _status_of(data) is SuccessFlag.SUCCESS

    def _result_of_data(self, data: Any) -> ProviderResult:
        return _limited(read(MarketRecord, data, at="data", error=UnreadableAnswerError).result())


PROVIDER = KieMarketProvider(
    id="kie-market",
    base_url="https://api.kie.ai",
    record_info_path="/api/v1/jobs/recordInfo",
    submit_paths={"createTask": "/api/v1/jobs/createTask"},
    image_hosts=KIE_IMAGE_HOSTS,  # tempfile.aiquickdraw.com in all recorded results
    # Documented both as 24 hours and as 14 days; the shorter is safe.
    url_lifetimes={ImageKind.RESULT: timedelta(hours=24)},
    download_url_lifetime=DOWNLOAD_URL_LIFETIME,
)
