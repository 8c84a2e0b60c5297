"""Requests the status of tasks from providers, in parallel up to each provider's limit."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any, Self
from urllib.parse import urlencode

import httpcore

from catchlight import __version__
from catchlight.aws.secrets import Redactor
from catchlight.errors import (
    ProviderBusyError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RequestRefusedError,
)
from catchlight.http_connections import HTTP_ERRORS, Deadline, Exchange, ResponseTooLargeError
from catchlight.models import TaskReport
from catchlight.outbound_http import HttpClient
from catchlight.providers import PollRequest, Provider

# This many requests are sent before the others. If the provider is busy or refuses the key, the others are not sent.
FIRST_REQUESTS = 10
# Providers answer in well under a second. A request that takes 10 s is aborted and repeated by the next poll.
REQUEST_TIMEOUT_SECONDS = 10.0
# A batch of 50 Ace Data records is about 50 KB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024

# Errors of the account or the whole service, after which no further requests are sent: they would fail, too.
_STOPPING = (ProviderBusyError, ProviderRefusedError)

HEADERS: Mapping[str, str] = {
    "User-Agent": f"Catchlight/{__version__} (+image task receiver)",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}


@dataclass(slots=True)
class LookupResults:
    """The result of status requests to one provider: task reports, and the errors of failed requests."""

    reports: list[TaskReport] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)  # an error other than ProviderError is a bug in Catchlight
    failed: dict[str, Exception] = field(default_factory=dict)  # by task id: why the task has no report
    requests: int = 0

    @classmethod
    def of_error(cls, error: Exception, task_ids: Sequence[str], *, requests: int = 0) -> Self:
        """Returns the results if none of the tasks has a report because of this error."""
        return cls(errors=[error], failed=dict.fromkeys(task_ids, error), requests=requests)

    def add(self, other: "LookupResults") -> None:
        """Adds the results of further requests."""
        self.reports += other.reports
        self.errors += other.errors
        self.failed |= other.failed
        self.requests += other.requests

    @property
    def is_busy(self) -> bool:
        """Whether the provider answered that it is busy (rate limit or maintenance)."""
        return any(isinstance(error, ProviderBusyError) for error in self.errors)


class ProviderClient:
    """Requests task status from providers over HTTP. Thread-safe; keeps connections open for the next poll."""

    def __init__(
        self,
        base_urls: Mapping[str, str],
        *,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_urls = base_urls
        self._timeout_seconds = timeout_seconds
        self._http = http or HttpClient(keeps_connections=True)
        self._clock = clock

    def request_statuses(
        self,
        provider: Provider,
        task_ids: Sequence[str],
        *,
        api_key: str,
        now: Callable[[], datetime],
        deadline: float = float("inf"),
    ) -> LookupResults:
        """Requests the status of tasks of one provider, at most `max_concurrent_polls` requests at once.

        Sends FIRST_REQUESTS requests before the others. Stops when the provider is busy or refuses the account, and at
        `deadline` (on the client's clock). If the provider rejects a request about several tasks, because of one of
        their ids, the request is split until that id is requested alone: 12 further requests for a batch of 50, and 98
        if it rejects every id. Errors are returned, not raised. Callers repeat the request for tasks without a report.
        """
        results = LookupResults()
        stop = Event()

        def send(request: PollRequest) -> LookupResults:
            if stop.is_set() or self._clock() >= deadline:
                return LookupResults()
            ids = request.task_ids
            try:
                requested_at = now()  # not later than the time from which the URLs in the answer are valid
                answer = self._exchange(provider, request, api_key)
                return LookupResults(provider.parse_poll(request, *answer, received_at=requested_at), requests=1)
            except Exception as exc:  # noqa: BLE001 - the caller reports it; the reports of other tasks must be kept
                if isinstance(exc, _STOPPING):
                    stop.set()
                if not isinstance(exc, RequestRefusedError) or len(ids) == 1:
                    return LookupResults.of_error(exc, ids, requests=1)
            parts = LookupResults(requests=1)
            half = len(ids) // 2
            for part in (ids[:half], ids[half:]):
                parts.add(send(provider.poll_request(part)))
            return parts

        requests = list(_poll_requests(provider, task_ids))
        # Threads, not asyncio: with asyncio the pool checks each idle connection through anyio, which costs seven times
        # the CPU time. A hundred waiting threads cost 8 MB.
        with ThreadPoolExecutor(max_workers=min(provider.max_concurrent_polls, len(requests) or 1)) as pool:
            for part in (requests[:FIRST_REQUESTS], requests[FIRST_REQUESTS:]):
                for sent in pool.map(send, part):
                    results.add(sent)
        if stopped := [error for error in results.errors if isinstance(error, _STOPPING)]:
            # The error that stopped the requests is also the reason for those that were not sent.
            reported = {report.task_id for report in results.reports}
            unsent = (task_id for task_id in task_ids if task_id not in reported)
            results.failed = dict.fromkeys(unsent, stopped[0]) | results.failed
        return results

    def credits(self, provider: Provider, *, api_key: str) -> float | None:
        """Requests the account's credits; None if the provider accepts the key, but does not report its credits.

        Raises:
            ProviderRefusedError: the provider refuses the key.
            ProviderError: the answer, if any, does not show whether the provider accepts the key.
        """
        return provider.parse_credits(*self._exchange(provider, provider.credits_request(), api_key))

    def download_url(self, provider: Provider, url: str, *, api_key: str) -> str:
        """Requests another URL of a file of a provider with `download_url_lifetime`.

        Raises:
            ProviderError: the request failed, or its answer has no URL.
        """
        return provider.parse_download_url(*self._exchange(provider, provider.download_url_request(url), api_key))

    def close(self) -> None:
        """Closes the idle connections."""
        self._http.close()

    def _exchange(self, provider: Provider, request: PollRequest, api_key: str) -> tuple[int, Any]:
        """Sends a request and returns the HTTP status and the decoded JSON; None if the body is not JSON.

        Raises:
            ProviderUnavailableError: the provider did not answer, or its answer is too long.
        """
        url = self._base_urls.get(provider.id, provider.base_url) + request.path
        if request.params:
            url += f"?{urlencode(request.params)}"
        headers = {**HEADERS, "Authorization": f"Bearer {api_key}"}
        content = b""
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(request.json, separators=(",", ":")).encode()
        exchange = Exchange(Deadline(self._timeout_seconds))
        try:
            with self._http.send(request.method, httpcore.URL(url), headers, content, exchange=exchange) as response:
                body = response.read(MAX_ANSWER_BYTES)
        except ResponseTooLargeError as exc:
            raise ProviderUnavailableError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes") from exc
        except HTTP_ERRORS as exc:
            raise ProviderUnavailableError(f"{provider.id} did not answer: {type(exc).__name__}") from exc
        # Error messages may quote the key, and records contain the callback URL.
        return response.status, _json_or_none(Redactor([api_key]).redact(body))


def _poll_requests(provider: Provider, task_ids: Sequence[str]) -> Iterator[PollRequest]:
    for start in range(0, len(task_ids), provider.poll_batch_size):
        yield provider.poll_request(task_ids[start : start + provider.poll_batch_size])


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
