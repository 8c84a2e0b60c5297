"""Implements the JSON format of kie.ai's family of APIs: an envelope for callbacks and a record for polls.

The Flux Kontext API and the NanoBanana API differ only in their URLs, image hosts and URL lifetimes. The Market API has
another record in the same envelope: see `kie_market`.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, ValidationInfo, field_validator, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from catchlight.errors import (
    InvalidCallbackError,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RequestRefusedError,
    UnauthorizedError,
    UnreadableAnswerError,
)
from catchlight.models import Failure, FailureReason, ImageKind, Reporter, TaskReport
from catchlight.providers.base import PollRequest, Provider
from catchlight.providers.payloads import (
    STILL_RUNNING,
    SUCCESS_WITHOUT_URL,
    UNKNOWN_TASK,
    Code,
    Integer,
    Message,
    PayloadModel,
    ProviderResult,
    UnusableUrl,
    Url,
    find_task_id,
    integer_or_none,
    is_refusal,
    parse_url,
    quoted,
    read,
    report,
    require_usable_url,
    submitted_task_id,
    task_ids_in,
    time_or_none,
    unreadable_success,
)
from catchlight.providers.records import generation_request, provider_record

OK = 200
NO_CREDITS = 402

# Hosts of image URLs that were seen in answers of this family's APIs.
KIE_IMAGE_HOSTS = (
    "*.aiquickdraw.com",
    "*.redpandaai.co",
    "*.kie.ai",
    # Every customer of Alibaba Cloud can create buckets below this domain, so this name restricts little. The providers
    # do not document which buckets are theirs.
    "*.aliyuncs.com",
)

# Documented both for `code` of callbacks and for `errorCode` of records. A failed record may lack a code.
CONTENT_POLICY_CODE = "400"
FAILURE_REASONS = {
    CONTENT_POLICY_CODE: FailureReason.CONTENT_POLICY,
    "500": FailureReason.INTERNAL,
    "501": FailureReason.GENERATION_FAILED,
    None: FailureReason.GENERATION_FAILED,
}

# A record may not be available immediately after a task's creation, so "not found" is not final. 404 is
# documented; 422 "Record does not exist" was recorded, with HTTP 200.
NOT_FOUND = frozenset({404, 422})

# The only `code` of the envelope that is about the task and not about the request. Documented for answers to polls
# ("Generation Failed - Image generation task failed") as for callbacks; it may come without a record.
GENERATION_FAILED = 501

# Values of the envelope's `code` in the answer to a poll that are errors of the request, never of the task. All are
# documented except 403.
REQUEST_ERRORS: dict[int, tuple[type[ProviderError], str]] = {
    401: (ProviderRefusedError, "the API key is missing or wrong"),
    NO_CREDITS: (ProviderRefusedError, "the account has no credits"),
    403: (ProviderRefusedError, "access is denied"),
    433: (ProviderRefusedError, "the key has reached its own limit"),
    505: (ProviderRefusedError, "the feature is disabled"),
    429: (ProviderBusyError, "the rate limit is reached"),
    455: (ProviderBusyError, "maintenance"),
}

# kie.ai signs the task id and the time, and sends the signature and the time in these headers; documented at
# docs.kie.ai, "Webhook verification".
TIMESTAMP_HEADER = "x-webhook-timestamp"
SIGNATURE_HEADER = "x-webhook-signature"
TIMESTAMP_PATTERN = re.compile(r"[0-9]{10}", re.ASCII)
SIGNATURE_PATTERN = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)
# No tolerance is documented; other clients of this scheme use five minutes in both directions.
SIGNATURE_TOLERANCE = timedelta(seconds=300)

# Documented at docs.kie.ai, "Get Download URL": for files that kie.ai has generated; others are answered with 422. Only
# kie.ai itself documents such a request.
DOWNLOAD_URL_PATH = "/api/v1/common/download-url"
DOWNLOAD_URL_LIFETIME = timedelta(minutes=20)  # documented


class SuccessFlag(IntEnum):
    """The status of a task in a record."""

    GENERATING = 0
    SUCCESS = 1
    CREATE_TASK_FAILED = 2
    GENERATE_FAILED = 3


class KieModel(PayloadModel):
    """Base of the models of this family's JSON, which has names in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class ImageUrls(KieModel):
    """The field `info` of a callback or `response` of a record. NanoBanana's callbacks have only the result's URL."""

    origin_image_url: Url = None
    result_image_url: Url = None

    def images(self) -> tuple[tuple[ImageKind, str], ...]:
        """Returns the images that have a URL; the origin image first, because its URL expires first."""
        urls = ((ImageKind.ORIGIN, self.origin_image_url), (ImageKind.RESULT, self.result_image_url))
        return tuple((kind, url) for kind, url in urls if url)


class CallbackData(KieModel):
    """The field `data` of a callback."""

    info: ImageUrls | None = None


class Callback(KieModel):
    """The callback's envelope; `code` is the result of the task."""

    code: Integer
    msg: Message = ""
    data: CallbackData | None = None

    @field_validator("data", mode="before")
    @classmethod
    def _ignore_unless_success(cls, data: Any, info: ValidationInfo) -> Any:
        # In failures, `data` was seen as null, with `info` null, and with empty strings as values.
        return data if info.data.get("code") == OK else None

    @model_validator(mode="after")
    def _require_usable_url(self) -> Self:
        require_usable_url([url for _, url in self._images()])
        return self

    def result(self) -> ProviderResult:
        """Returns the task's result; a hint, if the callback reports a success without a URL."""
        if self.code == OK:
            return ProviderResult(images=self._images()) if self._images() else SUCCESS_WITHOUT_URL
        code = str(self.code)
        reason = FAILURE_REASONS.get(code, FailureReason.OTHER)
        return ProviderResult(failure=Failure(reason=reason, code=code, message=self.msg))

    def _images(self) -> tuple[tuple[ImageKind, str], ...]:
        return self.data.info.images() if self.data and self.data.info else ()


def _response(value: Any) -> Any:
    """Normalises a record's `response`. Clients have received an object, its JSON in a string, and a bare URL."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return from_json(value.encode(errors="replace"))  # from_json raises TypeError for lone surrogates
    return {"resultImageUrl": value}


class Record(KieModel):
    """The field `data` of a poll's answer, and of the callbacks of NanoBanana's `/generate-2`.

    `successFlag` is the result of the task.
    """

    success_flag: Annotated[SuccessFlag, BeforeValidator(integer_or_none)]
    response: Annotated[ImageUrls | None, BeforeValidator(_response)] = None
    error_code: Code = None
    error_message: Message = ""
    create_time: Any = None
    complete_time: Any = None
    param_json: Any = None  # the request's parameters, as JSON in a string

    @field_validator("response", mode="before")
    @classmethod
    def _ignore_unless_success(cls, response: Any, info: ValidationInfo) -> Any:
        return response if info.data.get("success_flag") is SuccessFlag.SUCCESS else None

    @model_validator(mode="after")
    def _require_usable_url(self) -> Self:
        require_usable_url([url for _, url in self._images()])
        return self

    def result(self) -> ProviderResult:
        """Returns the task's result; a hint, if the record reports a success without a URL."""
        if self.success_flag is SuccessFlag.GENERATING:
            return STILL_RUNNING
        request = generation_request(self.param_json)
        record = provider_record(created=self.create_time, completed=self.complete_time, parameters=self.param_json)
        if self.success_flag is not SuccessFlag.SUCCESS:
            failure = Failure(reason=self._failure_reason(), code=self.error_code, message=self.error_message)
            return ProviderResult(failure=failure, request=request, record=record)
        images = self._images()
        if not images:
            return SUCCESS_WITHOUT_URL
        completed_at = time_or_none(self.complete_time)
        return ProviderResult(images=images, completed_at=completed_at, request=request, record=record)

    def _images(self) -> tuple[tuple[ImageKind, str], ...]:
        return self.response.images() if self.response else ()

    def _failure_reason(self) -> FailureReason:
        # Not with code 400: a prompt that violates the content policy is also rejected at the task's creation.
        if self.success_flag is SuccessFlag.CREATE_TASK_FAILED and self.error_code != CONTENT_POLICY_CODE:
            return FailureReason.CREATE_FAILED
        return FAILURE_REASONS.get(self.error_code, FailureReason.OTHER)


@dataclass(frozen=True, kw_only=True)
class KieProvider(Provider):
    """The implementation of `Provider` for kie.ai's family of APIs."""

    record_info_path: str
    poll_batch_size: int = 1
    # The only documented limit for polls is 3 requests a second per task. If another limit is exceeded, the provider
    # answers 429 and is not polled for a while.
    max_concurrent_polls: int = 100
    callback_url_field: str = "callBackUrl"
    signs_callbacks: bool = True
    credits_path: str = "/api/v1/chat/credit"

    def parse_submission(self, http_status: int, body: Any) -> str:
        """Returns the new task's id from `{"code": 200, "msg": "success", "data": {"taskId": "..."}}`."""
        code = self._request_code(http_status, body)
        if code == OK:
            return submitted_task_id(self.id, body)
        if is_refusal(code) and code not in REQUEST_ERRORS:
            raise RequestRefusedError(f"{self.id} answered {code}: the request is refused")
        raise self._request_error(code)

    def parse_callback(self, body: Any, *, received_at: datetime) -> TaskReport:
        """Parses a callback's body. Its `data` is either that of the `Callback` envelope or a whole `Record`."""
        task_id = find_task_id(body)
        result = self._result_of_callback(body)
        return report(self, task_id, result, reported_by=Reporter.CALLBACK, received_at=received_at)

    def _result_of_callback(self, body: Mapping[str, Any]) -> ProviderResult:
        data = body.get("data")
        if isinstance(data, Mapping) and data.get("successFlag") is not None:
            # The envelope's code is 200 even if the task failed.
            return read(Record, data, at="data", error=InvalidCallbackError).result()
        return read(Callback, body, error=InvalidCallbackError).result()

    def verify_callback(self, callback: TaskReport, headers: Mapping[str, str], keys: Iterable[str]) -> None:
        verify_signature(headers, callback.task_id, keys, now=callback.reported_at)

    def poll_request(self, task_ids: Sequence[str]) -> PollRequest:
        """Builds the request that polls one task."""
        (task_id,) = task_ids
        return PollRequest("GET", self.record_info_path, (task_id,), params={"taskId": task_id})

    def parse_poll(
        self, request: PollRequest, http_status: int, body: Any, *, received_at: datetime
    ) -> list[TaskReport]:
        """Returns a report of the polled task, as a list of one.

        HTTP 200 does not mean success: the envelope's `code` is the status of the request, `successFlag` the status of
        the task. So a record that has failed or succeeded is used even if the envelope has an error. Without such a
        record, the envelope's code 501 is the failure of the task, as in a callback.
        """
        (task_id,) = request.task_ids
        code = self._request_code(http_status, body)
        envelope = body if isinstance(body, Mapping) else {}
        result = self._result_of_record(task_id, envelope, is_required=code == OK)
        if result.is_pending and code not in (OK, *NOT_FOUND):
            if integer_or_none(envelope.get("code")) != GENERATION_FAILED:
                raise self._request_error(code, envelope.get("msg"))
            result = read(Callback, {"code": code, "msg": envelope.get("msg")}, error=UnreadableAnswerError).result()
        return [report(self, task_id, result, reported_by=Reporter.POLL, received_at=received_at)]

    def credits_request(self) -> PollRequest:
        return PollRequest("GET", self.credits_path, ())

    def parse_credits(self, http_status: int, body: Any) -> float | None:
        """Returns the account's credits from `{"code": 200, "msg": "success", "data": 35.95}`."""
        code = self._request_code(http_status, body)
        if code == NO_CREDITS:
            return 0.0
        if code != OK:
            raise self._request_error(code)
        balance = body.get("data")
        return balance if isinstance(balance, int | float) else None

    def download_url_request(self, url: str) -> PollRequest:
        return PollRequest("POST", DOWNLOAD_URL_PATH, (), json={"url": url})

    def parse_download_url(self, http_status: int, body: Any) -> str:
        """Returns the URL from `{"code": 200, "msg": "success", "data": "https://..."}`."""
        code = self._request_code(http_status, body)
        url = parse_url(body.get("data")) if code == OK else None
        if url is None or isinstance(url, UnusableUrl):
            raise ProviderUnavailableError(f"no download URL: HTTP {http_status}, code {code}")
        return url

    @staticmethod
    def _request_code(http_status: int, body: Any) -> int | None:
        """Returns the status code of the request: the envelope's, or HTTP's if only HTTP reports an error."""
        code = integer_or_none(body.get("code")) if isinstance(body, Mapping) else None
        return http_status if http_status != OK and code in (None, OK) else code

    def _result_of_record(self, task_id: str, body: Mapping[str, Any], *, is_required: bool) -> ProviderResult:
        """Returns the result in the answer's record. A malformed record is ignored, unless `is_required`.

        Raises:
            UnreadableAnswerError: the record is of another task; or it is required, malformed, and reports no success.
        """
        if body.get("data") is None:  # an unknown id, as recorded
            return UNKNOWN_TASK
        if any(found != task_id for found in task_ids_in(body)):
            raise UnreadableAnswerError(f"{self.id} answered with another task's record")
        data = body["data"]
        if isinstance(data, Mapping) and not data.get("errorMessage") and integer_or_none(body.get("code")) != OK:
            data = {**data, "errorMessage": body.get("msg")}  # documented: the error message of codes other than 200
        try:
            result = self._result_of_data(data)
            if result.is_hint:
                raise UnreadableAnswerError(f"data: {result.remark}")
        except UnreadableAnswerError as exc:
            if not is_required:
                return UNKNOWN_TASK
            if not (isinstance(data, Mapping) and self._has_succeeded(data)):
                raise
            return unreadable_success({**body, "data": {**data, "taskId": task_id}}, exc)
        return result

    def _result_of_data(self, data: Any) -> ProviderResult:
        return read(Record, data, at="data", error=UnreadableAnswerError).result()

    def _has_succeeded(self, data: Mapping[str, Any]) -> bool:
        return integer_or_none(data.get("successFlag")) == SuccessFlag.SUCCESS

    def _request_error(self, code: int | None, message: Any = None) -> ProviderError:
        if code is None:
            return UnreadableAnswerError(f"{self.id} answered without a code")
        error, meaning = REQUEST_ERRORS.get(code, (ProviderUnavailableError, "the request failed"))
        return error(f"{self.id} answered {code}: {meaning}{quoted(message)}")


def sign(key: str, task_id: str, timestamp: str) -> str:
    """Returns kie.ai's signature: base64(HMAC-SHA256(key, taskId + "." + timestamp))."""
    # The secret may contain any text, even a lone surrogate (half of a character).
    digest = hmac.digest(key.encode(errors="surrogatepass"), f"{task_id}.{timestamp}".encode(), hashlib.sha256)
    return base64.b64encode(digest).decode()


def verify_signature(headers: Mapping[str, str], task_id: str, live_keys: Iterable[str], *, now: datetime) -> None:
    """Checks the signature that kie.ai computes as `sign` does.

    The signature covers only the task id and the time: status and URLs in the body stay unconfirmed.

    Args:
        headers: names in lower case. A header that was sent twice is comma-joined and therefore rejected.
        live_keys: the webhook keys valid now. Without keys, or with empty ones only, every signature is rejected.

    Raises:
        UnauthorizedError: the signature is missing, malformed, too old, too new, or made with another key.
    """
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    signature = headers.get(SIGNATURE_HEADER, "")
    if TIMESTAMP_PATTERN.fullmatch(timestamp) and SIGNATURE_PATTERN.fullmatch(signature):
        age = abs(now.timestamp() - int(timestamp))
        for key in live_keys:
            is_made_with_key = hmac.compare_digest(signature, sign(key, task_id, timestamp))
            if key and is_made_with_key and age <= SIGNATURE_TOLERANCE.total_seconds():
                return
    raise UnauthorizedError("the webhook signature is missing, malformed, expired or made with another key")
