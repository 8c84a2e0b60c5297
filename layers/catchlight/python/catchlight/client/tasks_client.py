"""Python client of the tasks API, which `docs/tasks-api.openapi.yaml` specifies."""

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

import httpx

from catchlight.api.schemas import (
    IDEMPOTENCY_KEY_PATTERN,
    MAX_TASKS_PER_PAGE,
    NewTask,
    RegisteredTasks,
    TaskPage,
    TaskResponse,
)
from catchlight.client.aws_errors import explained_errors
from catchlight.client.errors import APIConnectionError, CatchlightError, TasksApiError, UnexpectedResponseError
from catchlight.client.http_client import http_client
from catchlight.client.responses import error_from, parse_response, retry_after_seconds
from catchlight.client.retrying import RetryPolicy
from catchlight.client.signing import SignedRequests
from catchlight.client.stack import Stack, StackChoice
from catchlight.models import ImageKind, TaskStatus

# The tasks API's own limit: API Gateway ends a request after 30 s.
MAX_WAIT_SECONDS = 20
# Prevents a tight loop if the tasks API responds at once although the request asked it to wait.
PAUSE_BETWEEN_WAITS_SECONDS = 1.0
# A submission is answered only after its provider has responded; API Gateway allows 30 s for that.
TIMEOUT = httpx.Timeout(connect=5, read=35, write=10, pool=60)


def connect(
    stack_name: str | None = None,
    *,
    local: bool = False,
    state_dir: str | None = None,
    region: str | None = None,
    profile: str | None = None,
) -> "TasksClient":
    """Returns a client of the deployed stack of this name, or with `local` of the local stack of `make up`.

    `state_dir` is the folder of a local stack's state (default: .local). Without arguments, the stack is selected as by
    the command line: see docs/command-line.md.

    Raises:
        UsageError: the arguments and configuration files do not determine a stack; nothing was sent.
        CatchlightError: there is no such stack, or it cannot be read with these credentials.
    """
    with explained_errors():
        return TasksClient.of(StackChoice(stack_name, local, state_dir, region, profile).find())


class TasksClient:
    """Submits, registers, looks up, lists and waits for tasks, and opens their images. Thread-safe.

    After failed connections, HTTP 429 and 5xx, requests that are safe to repeat are retried by `retry_policy`:
    look-ups, registrations and, because they have idempotency keys, submissions.

    Every method may raise:
        TasksApiError: see `catchlight.client.errors`.
        BotoCoreError: the credentials cannot be obtained or renewed.
    """

    def __init__(
        self,
        base_url: str,
        auth: httpx.Auth | None = None,
        *,
        trust_environment: bool = True,
        retry_policy: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self.retry_policy = retry_policy or RetryPolicy()
        shared: dict[str, Any] = {"trust_environment": trust_environment, "timeout": TIMEOUT, "transport": transport}
        self._api = http_client(auth=auth, **shared)
        # Image links are presigned; the credentials for the tasks API must not be sent to S3.
        self._storage = http_client(**shared)

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Returns a client of a stack that signs requests with the credentials of the stack's session."""
        if not stack.tasks_api_url:
            raise CatchlightError(f"{stack} has no tasks API. Update it with `make build && sam deploy`.")
        return cls(stack.tasks_api_url, SignedRequests.of(stack.session), trust_environment=not stack.is_local)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._api.close()
        self._storage.close()

    def submit(
        self,
        provider: str,
        request: Mapping[str, Any],
        *,
        endpoint: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        ref: str | None = None,
    ) -> NewTask:
        """Sends a request for images to its provider and registers the task.

        Requests with the same idempotency key generate images only once, however often they are sent. Pass and store a
        key if you may have to repeat the call: by default each call creates a new key, which only its retries share.

        Raises:
            UnknownOutcomeError: the provider may have accepted the request. `release_key` allows to send it again.
            ValueError, TypeError: the request cannot be encoded as JSON.
            APIError: the provider or the tasks API refused the request; its `body` says why.
        """
        body: dict[str, Any] = {"provider": provider, "endpoint": endpoint, "request": dict(request)}
        body |= ({"metadata": dict(metadata)} if metadata else {}) | ({"ref": ref} if ref else {})
        # An empty key is an error of the caller. If it were replaced by a new key, every call would generate images.
        key = str(uuid.uuid4()) if idempotency_key is None else _checked_key(idempotency_key)
        response = self._send(
            "POST",
            "/submissions",
            content=_json({name: value for name, value in body.items() if value is not None}),
            headers={"Idempotency-Key": key, "Content-Type": "application/json"},
        )
        return parse_response(response, NewTask)

    def release_key(self, idempotency_key: str) -> None:
        """Releases the key of a submission with an unknown outcome. The next request with it may be charged twice."""
        self._send("DELETE", f"/submissions/{_checked_key(idempotency_key)}")

    def register(
        self,
        provider: str,
        task_ids: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
        ref: str | None = None,
    ) -> tuple[NewTask, ...]:
        """Registers up to 100 tasks that were submitted elsewhere, so that the stack polls for them."""
        body: dict[str, Any] = {"provider": provider, "taskIds": list(task_ids)}
        body |= ({"metadata": dict(metadata)} if metadata else {}) | ({"ref": ref} if ref else {})
        response = self._send("POST", "/tasks", json=body)
        return parse_response(response, RegisteredTasks).tasks

    def task(self, provider: str, task_id: str, *, wait_seconds: int = 0) -> TaskResponse:
        """Returns one task with links to its images, as soon as it is done or `wait_seconds` (at most 20) are over.

        The stack answers earlier if too many requests wait already.

        Raises:
            NotFoundError: there is no such task.
        """
        return parse_response(self._send_look_up(provider, task_id, wait_seconds), TaskResponse)

    def _send_look_up(self, provider: str, task_id: str, wait_seconds: int) -> httpx.Response:
        return self._send("GET", _task_path(provider, task_id), {"wait": wait_seconds or None})

    def wait(self, provider: str, task_id: str, *, timeout_seconds: float = 600) -> TaskResponse:
        """Returns the task as soon as it is done or `timeout_seconds` are over; its `done` says which of the two."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = deadline - time.monotonic()
            response = self._send_look_up(provider, task_id, max(0, min(MAX_WAIT_SECONDS, round(left))))
            task = parse_response(response, TaskResponse)
            left = deadline - time.monotonic()
            if task.done or left <= 0:
                return task
            time.sleep(min(retry_after_seconds(response) or PAUSE_BETWEEN_WAITS_SECONDS, left))

    def page(
        self,
        *,
        status: TaskStatus | None = None,
        provider: str | None = None,
        since: datetime | None = None,
        ref: str | None = None,
        metadata: str | None = None,
        limit: int = MAX_TASKS_PER_PAGE,
        cursor: str | None = None,
    ) -> TaskPage:
        """Returns one page of tasks, newest first; with a status, the most recently changed first.

        `ref` and `metadata` (`NAME=VALUE`) select the tasks with these: a page may then be empty and have a cursor.
        """
        parameters = {
            "status": status,
            "provider": provider,
            "since": since and since.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "ref": ref,
            "metadata": metadata,
            "limit": limit,
            "cursor": cursor,
        }
        return parse_response(self._send("GET", "/tasks", parameters), TaskPage)

    def tasks(
        self,
        *,
        status: TaskStatus | None = None,
        provider: str | None = None,
        since: datetime | None = None,
        ref: str | None = None,
        metadata: str | None = None,
        limit: int | None = None,
    ) -> Iterator[TaskResponse]:
        """Yields the tasks of all pages, at most `limit`; each page is requested when it is needed.

        Malformed items of the table are left out. The pages that `pages` yields list their keys in `unreadable`.
        """
        filters: dict[str, Any] = {"status": status, "provider": provider, "since": since}
        for page in self.pages(**filters, ref=ref, metadata=metadata, limit=limit):
            yield from page.tasks

    def pages(
        self,
        *,
        status: TaskStatus | None = None,
        provider: str | None = None,
        since: datetime | None = None,
        ref: str | None = None,
        metadata: str | None = None,
        limit: int | None = None,
    ) -> Iterator[TaskPage]:
        """Yields all pages, with at most `limit` tasks in total; each page is requested when it is needed."""
        filters: dict[str, Any] = {"status": status, "provider": provider, "since": since}
        left = limit
        cursor: str | None = None
        while left is None or left > 0:
            size = MAX_TASKS_PER_PAGE if left is None else min(left, MAX_TASKS_PER_PAGE)
            page = self.page(**filters, ref=ref, metadata=metadata, limit=size, cursor=cursor)
            yield page
            if not page.cursor:
                return
            cursor = page.cursor
            if left is not None:
                left -= len(page.tasks)

    def image_link(
        self, provider: str, task_id: str, kind: ImageKind | str, index: int, *, quarantined: bool = False
    ) -> str:
        """Returns a presigned URL of an archived image: it can be read by GET without credentials for about 15 minutes.

        With `quarantined`, the URL is that of the bytes which were kept because they could not be archived.

        Raises:
            NotFoundError: there is no such image, it could not be archived, or nothing is in quarantine for it.
            APIError: the image is not archived yet, or the task's item is malformed.
        """
        path = f"{_task_path(provider, task_id)}/images/{_segment(f'{kind}-{index}')}"
        response = self._send("GET", path, {"quarantined": "true"} if quarantined else None)
        if not response.is_redirect:
            raise UnexpectedResponseError(f"{response.url.host} does not redirect to the image, as the tasks API does.")
        return str(response.headers["Location"])

    @contextmanager
    def open_link(self, link: str, *, from_byte: int = 0) -> Iterator[httpx.Response]:
        """Streams an image. Status 206 means that the bytes begin at `from_byte`, 200 that the image is complete.

        Raises:
            TasksApiError: S3 did not respond, or refused the request.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={from_byte}-"} if from_byte else {})
        try:
            with self._storage.stream("GET", link, headers=headers) as response:
                if not response.is_success:
                    raise TasksApiError(f"S3 returned HTTP {response.status_code} for the image.", retryable=True)
                yield response
        except httpx.RequestError as exc:
            raise APIConnectionError(
                f"The download of the image was interrupted ({type(exc).__name__}). Try again."
            ) from exc

    def _send(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        parameters: Mapping[str, object] | None = None,
        **content: Any,
    ) -> httpx.Response:
        """Sends a request, with retries except for DELETE; returns a success or a redirection."""
        given = {name: str(value) for name, value in (parameters or {}).items() if value is not None}
        # Encoded once, as Signature Version 4 requires, so that the signed URL is the URL that is sent.
        query = f"?{urlencode(given, quote_via=quote, safe='')}" if given else ""
        url = f"{self._base_url}{path}{query}"
        if method == "DELETE":  # a retry could release a key that is in use again
            return self._send_once(method, url, content)
        return self.retry_policy.call(lambda: self._send_once(method, url, content))

    def _send_once(self, method: str, url: str, content: Mapping[str, Any]) -> httpx.Response:
        try:
            response = self._api.request(method, url, **content)
        except httpx.RequestError as exc:
            raise APIConnectionError(
                f"{httpx.URL(url).host} does not respond ({type(exc).__name__}). Check your network, then try again."
            ) from exc
        if response.is_success or response.is_redirect:
            return response
        raise error_from(response)


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
