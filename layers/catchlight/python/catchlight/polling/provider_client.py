"""Requests the status of tasks from providers, in parallel up to each provider's limit."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, LifoQueue
from threading import Event
from typing import Any

import httpx

from catchlight.errors import ProviderBusyError, ProviderRefusedError, ProviderUnavailableError
from catchlight.models import TaskReport
from catchlight.providers import PollRequest, Provider

# These are sent before the others: if the provider is busy or refuses the key, the other requests are not sent.
FIRST_REQUESTS = 10
# Providers answer in well under a second. A request that takes 10 s is aborted and repeated by the next poll.
REQUEST_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 3.0
# A batch of 50 Ace Data records is about 50 KB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024

USER_AGENT = "Catchlight/0.1 (+image task receiver)"


@dataclass(slots=True)
class LookupResults:
    """The result of status requests to one provider: task reports, and the errors of failed requests."""

    reports: list[TaskReport] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)  # an error other than ProviderError is a bug in Catchlight
    requests: int = 0

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
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_urls = base_urls
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._transport = transport
        # Made once: parsing the CA bundle costs 15 ms.
        self._tls = httpx.create_ssl_context(trust_env=False)
        # Last in, first out: the connection of the client used last is the least likely to have been closed.
        self._idle: LifoQueue[httpx.Client] = LifoQueue()

    def ask(
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
        `deadline` (on the client's clock). Errors are returned, not raised. Callers repeat the request for tasks
        without a report.
        """
        answers = LookupResults()
        stop = Event()

        def send(request: PollRequest) -> list[TaskReport] | Exception | None:
            if stop.is_set() or self._clock() >= deadline:
                return None
            try:
                return self._send(provider, request, api_key, now())
            except (ProviderBusyError, ProviderRefusedError) as exc:
                # The error concerns the account or the whole service: further requests would only make it worse.
                stop.set()
                return exc
            except Exception as exc:  # noqa: BLE001 - the caller reports it; the reports of other tasks must be kept
                return exc

        requests = list(_poll_requests(provider, task_ids))
        # Threads, not asyncio: with asyncio the pool checks each idle connection through anyio, which costs seven times
        # the CPU time. A hundred waiting threads cost 8 MB.
        with ThreadPoolExecutor(max_workers=min(provider.max_concurrent_polls, len(requests) or 1)) as pool:
            for some in (requests[:FIRST_REQUESTS], requests[FIRST_REQUESTS:]):
                for result in pool.map(send, some):
                    if result is None:
                        continue
                    answers.requests += 1
                    if isinstance(result, Exception):
                        answers.errors.append(result)
                    else:
                        answers.reports += result
        return answers

    def ask_about(self, provider: Provider, task_id: str, *, api_key: str, now: Callable[[], datetime]) -> TaskReport:
        """Requests the status of a single task and returns the provider's report.

        Raises:
            ProviderError: the request failed, or the answer does not contain the task.
            Exception: a bug in Catchlight, met while reading the answer.
        """
        answers = self.ask(provider, [task_id], api_key=api_key, now=now)
        if answers.errors:
            raise answers.errors[0]
        if not answers.reports:
            raise ProviderUnavailableError(f"{provider.id} said nothing of the task")
        return answers.reports[0]

    def close(self) -> None:
        """Closes the idle connections."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def _send(self, provider: Provider, request: PollRequest, api_key: str, now: datetime) -> list[TaskReport]:
        base_url = self._base_urls.get(provider.id, provider.base_url)
        ends_by = self._clock() + self._timeout_seconds
        try:
            with (
                self._client() as client,
                client.stream(
                    request.method,
                    base_url + request.path,
                    params=request.params or None,
                    json=request.json,
                    headers={"Authorization": f"Bearer {api_key}"},
                ) as response,
            ):
                content = self._read_bounded(response, ends_by)
        except httpx.HTTPError as exc:
            raise ProviderUnavailableError(f"{provider.id} did not answer: {type(exc).__name__}") from exc
        return provider.parse_poll(request, response.status_code, _json_or_none(content), received_at=now)

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        """Lends an HTTP client for the exclusive use of one request.

        Each concurrent request has its own client instead of one shared client: httpcore goes through all connections
        of a pool twice for every request, with a system call for each idle one. With 64 connections that is a third of
        the CPU time of a request.
        """
        try:
            client = self._idle.get_nowait()
        except Empty:
            client = self._new_client()
        try:
            yield client
        finally:
            self._idle.put(client)

    def _new_client(self) -> httpx.Client:
        return httpx.Client(
            transport=self._transport,
            verify=self._tls,
            timeout=httpx.Timeout(self._timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS),
            # The API key is sent to the configured host only: no redirects, no proxy from the environment.
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
        )

    def _read_bounded(self, response: httpx.Response, ends_by: float) -> bytes:
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise ProviderUnavailableError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            if self._clock() > ends_by:  # httpx's timeouts apply to single reads only
                raise ProviderUnavailableError("the answer does not come to an end")
        return bytes(content)


def _poll_requests(provider: Provider, task_ids: Sequence[str]) -> Iterator[PollRequest]:
    for start in range(0, len(task_ids), provider.poll_batch_size):
        yield provider.poll_request(task_ids[start : start + provider.poll_batch_size])


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
