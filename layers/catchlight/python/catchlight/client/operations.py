"""The operations of the tasks API, without I/O: generators that TasksClient and AsyncTasksClient run.

A generator yields a Request and receives its response, unless an httpx.RequestError is thrown into it. After a Pause it
receives None. Its return value is the operation's result.
"""

import inspect
import json
import re
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import update_wrapper
from typing import Any, Literal, TypeAlias, TypeVar, get_args
from urllib.parse import quote, urlencode

import httpx

from catchlight.api.request_models import IDEMPOTENCY_KEY_PATTERN, MAX_TASKS_PER_PAGE
from catchlight.api.response_models import NewTask, RegisteredTasks, TaskPage, TaskResponse
from catchlight.client.errors import APIConnectionError, TasksApiError, UnexpectedResponseError
from catchlight.client.responses import error_from, parse_response, retry_after_seconds
from catchlight.client.retrying import Attempts, RetryPolicy
from catchlight.models import FailureReason, ImageKind, TaskStatus

# The tasks API's own limit: API Gateway ends a request after 30 s.
MAX_WAIT_SECONDS = 20
# Prevents a tight loop if the tasks API responds at once although the request asked it to wait.
PAUSE_BETWEEN_WAITS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is to be sent once."""

    method: Literal["GET", "POST", "DELETE"]
    url: str
    content: Mapping[str, Any] = field(default_factory=dict)  # further arguments of httpx.Client.request


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause before the next request."""

    seconds: float


Result = TypeVar("Result")
Step: TypeAlias = Request | Pause
Operation: TypeAlias = Generator[Step, Any, Result]
# Yields the operation that requests a page, and receives the page.
Pages: TypeAlias = Generator[Operation[TaskPage], TaskPage | None, None]


class Operations:
    """The operations of one tasks API."""

    def __init__(self, base_url: str, retry_policy: RetryPolicy) -> None:
        self._base_url = base_url.rstrip("/")
        self._retry_policy = retry_policy

    def submit(
        self,
        provider: str,
        request: Mapping[str, Any],
        *,
        endpoint: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        ref: str | None = None,
    ) -> Operation[NewTask]:
        """Sends a request for images to its provider and registers the task.

        Requests with the same idempotency key generate images only once, however often they are sent. Pass and store a
        key if you may have to repeat the call. By default, each call creates a new key, which only its retries share.

        Raises:
            UnknownOutcomeError: the provider may have accepted the request. After `release_key`, the request can be
                sent again.
            ValueError, TypeError: the request cannot be encoded as JSON.
            APIError: the provider or the tasks API refused the request; the error's `body` has the reason.
        """
        body: dict[str, Any] = {"provider": provider, "endpoint": endpoint, "request": dict(request)}
        body |= ({"metadata": dict(metadata)} if metadata else {}) | ({"ref": ref} if ref else {})
        # An empty key is an error of the caller. If it were replaced by a new key, every call would generate images.
        key = str(uuid.uuid4()) if idempotency_key is None else _checked_key(idempotency_key)
        response = yield from self._send(
            "POST",
            "/submissions",
            content=_json({name: value for name, value in body.items() if value is not None}),
            headers={"Idempotency-Key": key, "Content-Type": "application/json"},
        )
        return parse_response(response, NewTask)

    def release_key(self, idempotency_key: str) -> Operation[None]:
        """Releases the key of a submission with an unknown outcome. The next request with it may be charged twice."""
        yield from self._send("DELETE", f"/submissions/{_checked_key(idempotency_key)}")

    def register(
        self,
        provider: str,
        task_ids: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
        ref: str | None = None,
    ) -> Operation[tuple[NewTask, ...]]:
        """Registers up to 100 tasks that were submitted elsewhere, so that the stack polls for them."""
        body: dict[str, Any] = {"provider": provider, "taskIds": list(task_ids)}
        body |= ({"metadata": dict(metadata)} if metadata else {}) | ({"ref": ref} if ref else {})
        response = yield from self._send("POST", "/tasks", json=body)
        return parse_response(response, RegisteredTasks).tasks

    def task(self, provider: str, task_id: str, *, wait_seconds: int = 0) -> Operation[TaskResponse]:
        """Returns one task with links to its images, as soon as it is done or `wait_seconds` (at most 20) have passed.

        The stack responds earlier if too many requests are waiting already.

        Raises:
            NotFoundError: there is no such task.
        """
        response = yield from self._look_up(provider, task_id, wait_seconds)
        return parse_response(response, TaskResponse)

    def _look_up(self, provider: str, task_id: str, wait_seconds: int) -> Operation[httpx.Response]:
        return self._send("GET", _task_path(provider, task_id), {"wait": wait_seconds or None})

    def wait(self, provider: str, task_id: str, *, timeout_seconds: float = 600) -> Operation[TaskResponse]:
        """Returns the task as soon as it is done or `timeout_seconds` have passed; check its `done`."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = deadline - time.monotonic()
            wait_seconds = max(0, min(MAX_WAIT_SECONDS, round(left)))
            response = yield from self._look_up(provider, task_id, wait_seconds)
            task = parse_response(response, TaskResponse)
            left = deadline - time.monotonic()
            if task.done or left <= 0:
                return task
            yield Pause(min(retry_after_seconds(response) or PAUSE_BETWEEN_WAITS_SECONDS, left))

    def page(
        self,
        *,
        status: TaskStatus | None = None,
        provider: str | None = None,
        since: datetime | None = None,
        ref: str | None = None,
        metadata: str | None = None,
        reason: FailureReason | None = None,
        limit: int = MAX_TASKS_PER_PAGE,
        cursor: str | None = None,
    ) -> Operation[TaskPage]:
        """Returns one page of tasks, newest first; with a status, the most recently changed first.

        All arguments except `limit` and `cursor` filter the tasks. `metadata` has the format `NAME=VALUE`; `reason` is
        that of a failure. With `ref`, `metadata` or `reason`, a page may be empty and still have a cursor.
        """
        parameters = {
            "status": status,
            "provider": provider,
            "since": since and since.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "ref": ref,
            "metadata": metadata,
            "reason": reason,
            "limit": limit,
            "cursor": cursor,
        }
        response = yield from self._send("GET", "/tasks", parameters)
        return parse_response(response, TaskPage)

    def tasks(
        self,
        *,
        status: TaskStatus | None = None,
        provider: str | None = None,
        since: datetime | None = None,
        ref: str | None = None,
        metadata: str | None = None,
        reason: FailureReason | None = None,
        limit: int | None = None,
    ) -> Pages:
        """Yields the tasks of all pages, at most `limit`; each page is requested when it is needed.

        Malformed items of the table are left out. The pages of `pages` list their keys in `unreadable`.
        """
        filters: dict[str, Any] = {"status": status, "provider": provider, "since": since}
        return self.pages(**filters, ref=ref, metadata=metadata, reason=reason, limit=limit)

    def pages(
        self,
        *,
        status: TaskStatus | None = None,
        provider: str | None = None,
        since: datetime | None = None,
        ref: str | None = None,
        metadata: str | None = None,
        reason: FailureReason | None = None,
        limit: int | None = None,
        first_page: int = MAX_TASKS_PER_PAGE,
    ) -> Pages:
        """Yields all pages, with at most `limit` tasks in total; each page is requested when it is needed.

        The first page has at most `first_page` tasks, because a small page arrives sooner. The others are as large as
        possible.
        """
        filters: dict[str, Any] = {"status": status, "provider": provider, "since": since}
        left = limit
        cursor: str | None = None
        page_size = first_page
        while left is None or left > 0:
            size = page_size if left is None else min(left, page_size)
            page = yield self.page(**filters, ref=ref, metadata=metadata, reason=reason, limit=size, cursor=cursor)
            if page is None or not page.cursor:
                return
            cursor = page.cursor
            if left is not None:
                left -= len(page.tasks)
            page_size = MAX_TASKS_PER_PAGE

    def image_link(
        self, provider: str, task_id: str, kind: ImageKind | str, index: int, *, quarantined: bool = False
    ) -> Operation[str]:
        """Returns a presigned URL of an archived image, for GET requests without credentials for about 15 minutes.

        With `quarantined`, it is the URL of the image's bytes in quarantine.

        Raises:
            NotFoundError: there is no such image, it could not be archived, or it has no bytes in quarantine.
            APIError: the image is not archived yet, or the task's item is malformed.
        """
        path = f"{_task_path(provider, task_id)}/images/{_segment(f'{kind}-{index}')}"
        response = yield from self._send("GET", path, {"quarantined": "true"} if quarantined else None)
        if not response.is_redirect:
            raise UnexpectedResponseError(f"{response.url.host} does not redirect to the image, as the tasks API does.")
        return str(response.headers["Location"])

    def _send(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        parameters: Mapping[str, object] | None = None,
        **content: Any,
    ) -> Operation[httpx.Response]:
        """Sends a request, with retries except for DELETE. Returns the response, which is a success or a redirect."""
        given = {name: str(value) for name, value in (parameters or {}).items() if value is not None}
        # Encoded once, as Signature Version 4 requires, so that the signed URL is the URL that is sent.
        query = f"?{urlencode(given, quote_via=quote, safe='')}" if given else ""
        request = Request(method, f"{self._base_url}{path}{query}", content)
        if method == "DELETE":  # a retry could release a key that is in use again
            return (yield from _send_once(request))
        attempts = Attempts(self._retry_policy)
        while True:
            try:
                return (yield from _send_once(request))
            except TasksApiError as exc:
                pause = attempts.pause_after(exc)
            yield Pause(pause)


def document(method: Callable[..., Any], operation: Callable[..., Any], returns: Any = None) -> None:
    """Gives a client's method the name, docstring and signature of its operation, for `help()`.

    By default, the method returns the operation's result.
    """
    update_wrapper(method, operation)
    signature = inspect.signature(operation)
    returned = returns or get_args(signature.return_annotation)[-1]
    method.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]


def next_page(pages: Pages, page: TaskPage | None) -> Operation[TaskPage] | None:
    """Returns the operation that requests the page after `page`, None after the last page."""
    try:
        return pages.send(page)
    except StopIteration:
        return None


def _send_once(request: Request) -> Operation[httpx.Response]:
    try:
        response: httpx.Response = yield request
    except httpx.RequestError as exc:
        raise APIConnectionError(
            f"{httpx.URL(request.url).host} does not respond ({type(exc).__name__}). Check your network, then try "
            "again."
        ) from exc
    if response.is_success or response.is_redirect:
        return response
    raise error_from(response)


def link_headers(from_byte: int) -> dict[str, str]:
    """Returns the headers of a request for an image."""
    return {"Accept-Encoding": "identity"} | ({"Range": f"bytes={from_byte}-"} if from_byte else {})


@contextmanager
def explained_download() -> Iterator[None]:
    """Converts errors of httpx, raised in the block, into APIConnectionError."""
    try:
        yield
    except httpx.RequestError as exc:
        raise APIConnectionError(
            f"The download of the image was interrupted ({type(exc).__name__}). Try again."
        ) from exc


def check_download(response: httpx.Response) -> None:
    """Raises TasksApiError for a response that is not an image's bytes."""
    if not response.is_success:
        raise TasksApiError(f"S3 returned HTTP {response.status_code} for the image.", retryable=True)


def _checked_key(key: str) -> str:
    if not re.fullmatch(IDEMPOTENCY_KEY_PATTERN, key):
        raise TasksApiError(f"{key!r} is not an idempotency key (1 to 128 letters, digits, - and _). Nothing was sent.")
    return key


def _json(body: Mapping[str, Any]) -> bytes:
    """Encodes a body as JSON in UTF-8. Lone surrogates become JSON escapes, which the tasks API reports as invalid."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")


def _segment(text: str) -> str:
    return quote(text, safe="")


def _task_path(provider: str, task_id: str) -> str:
    return f"/tasks/{_segment(provider)}/{_segment(task_id)}"
