"""The provider `acedata`: Ace Data Cloud's Flux API, acedata.cloud.

A callback has the same body as the response to a synchronous call. The record that a poll returns contains this body in
`response`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, StrictBool, ValidationInfo, field_validator, model_validator

from catchlight.errors import (
    InvalidCallbackError,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RequestRefusedError,
    UnreadableAnswerError,
)
from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    Failure,
    FailureReason,
    GenerationRequest,
    ImageKind,
    LastAnswer,
    ProviderRecord,
    Reporter,
    TaskReport,
)
from catchlight.providers.base import PollRequest, Provider
from catchlight.providers.payloads import (
    STILL_RUNNING,
    SUCCESS_WITHOUT_URL,
    UNKNOWN_TASK,
    Code,
    Message,
    PayloadModel,
    ProviderResult,
    Url,
    find_task_id,
    integer_or_none,
    is_content_policy_code,
    is_refusal,
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

# Documented codes that affect every request of this account.
USED_UP = "used_up"
REFUSAL_CODES = frozenset({"invalid_token", USED_UP})
REFUSAL_STATUSES = frozenset({401, 402, 403})
# Documented: an account has to acquire Flux Tasks in addition to Flux Images. Without it, polls are refused.
SERVICES_ADVICE = "the account needs both Flux Images and Flux Tasks, which is acquired separately"
# Documented with HTTP 400: "Bad request, possibly due to missing or invalid parameters". So they concern this request
# only, despite their names.
BAD_REQUEST_CODES = frozenset({"token_mismatched", "api_not_implemented"})
BAD_REQUEST_STATUSES = frozenset({400, 422})
BUSY_CODE = "too_many_requests"
BUSY_STATUS = 429


class GeneratedImage(PayloadModel):
    """One generated image. Every field but the URL may be missing; `timings` is an object or a number."""

    image_url: Url = None
    prompt: Any = None
    seed: Any = None
    timings: Any = None


class TaskError(PayloadModel):
    """The error of a failed task or request."""

    code: Code = None
    message: Message = ""


class BareError(TaskError):
    """An error that is only a string. Clients have seen it in records of tasks that were still running."""


def _error(value: Any) -> Any:
    if isinstance(value, str):
        return BareError(message=value)
    return value if isinstance(value, Mapping) else None


class ErrorBody(PayloadModel):
    """The part of a body that describes a failure of a task or of a request."""

    error: Annotated[TaskError | None, BeforeValidator(_error)] = None


class RetrieveResponse(ErrorBody):
    """The result of a generation. Error bodies are documented both with `success` false and without `success`."""

    success: StrictBool | None = None
    trace_id: Any = None
    data: tuple[GeneratedImage, ...] | None = None

    @field_validator("data", mode="before")
    @classmethod
    def _ignore_unless_success(cls, data: Any, info: ValidationInfo) -> Any:
        if not info.data.get("success"):
            return None
        # An entry that is not an object makes one image unusable, not the whole answer.
        is_list = isinstance(data, list)
        return [entry if isinstance(entry, Mapping) else {"image_url": entry} for entry in data] if is_list else data

    @model_validator(mode="after")
    def _require_usable_url(self) -> Self:
        require_usable_url([url for _, url in self.images()])
        return self

    @property
    def failed(self) -> bool:
        """Whether the answer reports a failure: `success` is false, or is missing beside an error."""
        return self.success is False or (self.success is None and self.error is not None)

    def images(self) -> tuple[tuple[ImageKind, str], ...]:
        """Returns the images in the provider's order; entries without a URL are omitted."""
        return tuple((ImageKind.RESULT, image.image_url) for image in self.data or () if image.image_url)

    def request(self, reported: Any = None) -> GenerationRequest | None:
        """Returns the request's parameters from the record's `request`; without it, from the images."""
        images = self.data or ()
        reported = reported or {"prompt": next((image.prompt for image in images if image.prompt), None)}
        return generation_request(reported, seeds=(image.seed for image in images if image.image_url))

    def record(self, **others: Any) -> ProviderRecord | None:
        """Returns the answer's trace id and timings, and `others`, the values of the record that contains the answer.

        A trace id in `others` replaces the answer's, unless it is None.
        """
        timings = [image.timings for image in self.data or ()]
        own = {"trace_id": self.trace_id, "timings": timings if any(timings) else None}
        return provider_record(**own | {name: value for name, value in others.items() if value is not None})

    def failure(self) -> Failure:
        """Returns the error, with its code mapped to a `FailureReason`."""
        error = self.error or TaskError()
        return Failure(reason=_reason(error.code), code=error.code, message=error.message)


def _reason(code: str | None) -> FailureReason:
    if code == "api_error":  # documented: something went wrong on the server
        return FailureReason.INTERNAL
    if is_content_policy_code(code):  # no code for violations of the content policy is documented
        return FailureReason.CONTENT_POLICY
    return FailureReason.GENERATION_FAILED


class Record(PayloadModel):
    """The record of a task, as a poll returns it."""

    response: RetrieveResponse | None = None
    request: Any = None
    created_at: Any = None
    finished_at: Any = None
    trace_id: Any = None

    @model_validator(mode="after")
    def _success_has_images(self) -> Self:
        has_ended = self.response and self.response.success and (self.response.data or self.finished_at is not None)
        if self.response and has_ended and not self.response.images():
            raise ValueError("success without an image URL")
        return self

    def result(self) -> ProviderResult:
        """Returns the task's result.

        A running task has no `response`, a `response` without `data`, or one with a provisional failure: a failure is
        final only with an error object or with `finished_at`.
        """
        if self.response is None:
            return STILL_RUNNING
        record = self.response.record(
            created=self.created_at, completed=self.finished_at, trace_id=self.trace_id, parameters=self.request
        )
        if not self.response.failed:
            # Images beyond the limit are dropped. In a callback they are an error, but a poll's answer certainly comes
            # from the provider, and the user has requested this number of images.
            images = self.response.images()[:MAX_IMAGES_PER_TASK]
            request = self.response.request(self.request)
            completed_at = time_or_none(self.finished_at)
            return ProviderResult(images=images, completed_at=completed_at, request=request, record=record)
        provisional = self.response.error is None or isinstance(self.response.error, BareError)
        if provisional and self.finished_at is None:
            return STILL_RUNNING
        request = generation_request(self.request)
        return ProviderResult(failure=self.response.failure(), request=request, record=record)


class AceDataProvider(Provider):
    """Ace Data Cloud's implementation of `Provider`. One POST request polls up to `poll_batch_size` tasks."""

    def parse_submission(self, http_status: int, body: Any) -> str:
        """Returns the new task's id from `{"task_id": "..."}`, which may have further fields."""
        is_error = isinstance(body, Mapping) and _is_error_body(body)
        # An error with a task id is the failure of a created task, which is reported like other tasks' results.
        if http_status == HTTPStatus.OK and not (is_error and not any(task_ids_in(body))):
            return submitted_task_id(self.id, body)
        # The error does not quote the answer, because the user gets all of it, with secrets redacted.
        error = self._request_error(http_status, body, quotes=False)
        if is_refusal(http_status) and isinstance(error, ProviderUnavailableError):
            raise RequestRefusedError(f"{self.id} answered HTTP {http_status}: the request is refused")
        raise error

    def parse_callback(self, body: Any, *, received_at: datetime) -> TaskReport:
        """Parses a callback's body.

        One documented error body has no task id and is rejected; then only polling can determine the task's status.
        """
        task_id = find_task_id(body)
        answer = read(RetrieveResponse, body, error=InvalidCallbackError)
        images = answer.images()
        if len(images) > MAX_IMAGES_PER_TASK:
            raise InvalidCallbackError(f"data: should be at most {MAX_IMAGES_PER_TASK} images")
        if answer.failed:
            result = ProviderResult(failure=answer.failure(), record=answer.record())
        elif not images and not answer.success:
            raise InvalidCallbackError("body: neither a failure nor a success")
        elif not images:
            result = SUCCESS_WITHOUT_URL
        else:
            result = ProviderResult(images=images, request=answer.request(), record=answer.record())
        return report(self, task_id, result, reported_by=Reporter.CALLBACK, received_at=received_at)

    def poll_request(self, task_ids: Sequence[str]) -> PollRequest:
        """Builds the request that polls up to `poll_batch_size` tasks."""
        ids = tuple(task_ids)
        query: dict[str, Any] = {"id": ids[0], "action": "retrieve"}
        if len(ids) > 1:
            # A similar endpoint documents a default limit of 12.
            query = {"ids": list(ids), "action": "retrieve_batch", "limit": len(ids)}
        return PollRequest("POST", "/flux/tasks", ids, json=query)

    def parse_poll(
        self, request: PollRequest, http_status: int, body: Any, *, received_at: datetime
    ) -> list[TaskReport]:
        """Returns a report for each polled task. A task that is missing in the answer is not known (yet): PENDING.

        Records are used with any HTTP status: it is the status of the request, not of the tasks.
        """
        is_ok = http_status == HTTPStatus.OK
        if not isinstance(body, Mapping) or _is_error_body(body) or not (is_ok or _has_record(body)):
            raise self._request_error(http_status, body)
        results = self._results_of_batch(body["items"]) if "items" in body else self._result_of_one(request, body)
        remark = _count_mismatch(body)
        found = {task_id: results.get(task_id, UNKNOWN_TASK) for task_id in request.task_ids}
        return [
            report(
                self,
                task_id,
                replace(result, remark=result.remark or remark),
                reported_by=Reporter.POLL,
                received_at=received_at,
            )
            for task_id, result in found.items()
        ]

    def credits_request(self) -> PollRequest:
        """Builds a request for a task that does not exist: no request for the account's credits is documented."""
        return self.poll_request(["00000000-0000-0000-0000-000000000000"])

    def parse_credits(self, http_status: int, body: Any) -> float | None:
        """Returns 0 if the account is used up; None if the provider accepts the key, because it reports no credits."""
        error = _error_of(body)
        if error and error.code == USED_UP:
            return 0.0
        if http_status == HTTPStatus.OK and isinstance(body, Mapping) and error is None:
            return None
        raise self._request_error(http_status, body)

    def _result_of_one(self, request: PollRequest, body: Mapping[str, Any]) -> dict[str, ProviderResult]:
        if not body:  # an unknown id, as documented
            return {}
        task_id = _id_of(body)
        if task_id not in request.task_ids:
            raise UnreadableAnswerError(f"{self.id} answered without a record of the requested task")
        return {task_id: _result_of_record(body)}

    def _results_of_batch(self, items: Any) -> dict[str, ProviderResult]:
        if not isinstance(items, list):
            raise UnreadableAnswerError(f"{self.id} answered a batch without a list of items")
        results = {}
        for item in items:
            # A malformed record leaves its task PENDING, to be polled again; the others are still used.
            try:
                results[_id_of(item)] = _result_of_record(item)
            except UnreadableAnswerError as exc:
                results[_id_of(item)] = ProviderResult(answer=LastAnswer.UNREADABLE, remark=str(exc))
        return results

    def _request_error(self, http_status: int, body: Any, *, quotes: bool = True) -> ProviderError:
        error = _error_of(body)
        code = error.code if error else None
        answered = f"{self.id} answered HTTP {http_status}"
        message = quoted(error.message, body.get("trace_id")) if quotes and error else ""
        if code in REFUSAL_CODES or http_status in REFUSAL_STATUSES:
            advice = f"; {SERVICES_ADVICE}" if http_status in (401, 403) and code != USED_UP else ""
            return ProviderRefusedError(f"{answered}: the key or the account is refused{message}{advice}")
        if code == BUSY_CODE or http_status == BUSY_STATUS:
            return ProviderBusyError(f"{answered}: the rate limit is reached{message}")
        if code in BAD_REQUEST_CODES or http_status in BAD_REQUEST_STATUSES:
            return RequestRefusedError(f"{answered}: the request is refused{message}")
        return ProviderUnavailableError(f"{answered} with no record of a task{message}")


def _has_record(body: Mapping[str, Any]) -> bool:
    return "response" in body or "items" in body


def _error_of(body: Any) -> TaskError | None:
    return ErrorBody.model_validate(body).error if isinstance(body, Mapping) else None


def _is_error_body(body: Mapping[str, Any]) -> bool:
    """Decides whether a body reports an error of the request: a top-level `error`, and no record."""
    return body.get("error") is not None and not _has_record(body)


def _count_mismatch(body: Mapping[str, Any]) -> str:
    """Describes a batch whose `count` of records differs from the number of its items; "" if they are equal."""
    count, items = integer_or_none(body.get("count")), body.get("items")
    if count is None or not isinstance(items, list) or count == len(items):
        return ""
    return f"the answer's count is {count}, and it has {len(items)} items"


def _result_of_record(record: Any) -> ProviderResult:
    """Returns the result in a record.

    Raises:
        UnreadableAnswerError: the record is malformed and does not report a success.
    """
    try:
        return read(Record, record, error=UnreadableAnswerError).result()
    except UnreadableAnswerError as exc:
        response = record.get("response") if isinstance(record, Mapping) else None
        # A running task may have a response without data.
        if not (isinstance(response, Mapping) and response.get("success") is True):
            raise
        if not response.get("data") and record.get("finished_at") is None:
            raise
        return unreadable_success({**response, "task_id": _id_of(record)}, exc)


def _id_of(record: Any) -> str:
    found = (record.get("id") or record.get("task_id")) if isinstance(record, Mapping) else None
    return found if isinstance(found, str) else ""


PROVIDER = AceDataProvider(
    id="acedata",
    base_url="https://api.acedata.cloud",
    image_hosts=(
        "*.acedata.cloud",
        # Documented examples have URLs of a bucket on this domain. Every customer of Alibaba Cloud can create buckets
        # there, so this name restricts little.
        "*.aliyuncs.com",
        "fal.media",
        "*.fal.media",
        "*.bfl.ai",
        "bfldeliveryprod.blob.core.windows.net",
    ),
    url_lifetimes={
        ImageKind.ORIGIN: timedelta(minutes=10),  # none was received yet: the shortest lifetime of other providers
        ImageKind.RESULT: timedelta(hours=24),  # no lifetime is documented: a cautious assumption
    },
    submit_paths={"images": "/flux/images"},
    callback_url_field="callback_url",
    poll_batch_size=50,  # the limit in the vendor's own clients
    max_concurrent_polls=4,  # 200 tasks at the same time
)
