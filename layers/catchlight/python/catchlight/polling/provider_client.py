"""Asks providers about tasks, many at once but never more than they like."""

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

# Sent before the others: a provider that is busy, or refuses the key, is not asked for every task.
FIRST_REQUESTS = 10
# Answers come in well under a second; a request that takes 10 is asked again by the next poll.
REQUEST_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 3.0
# A batch of 50 Ace Data records is about 50 KB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024

USER_AGENT = "Catchlight/0.1 (+image task receiver)"


@dataclass(slots=True)
class LookupResults:
    """What one provider said: reports of the tasks it spoke about, and the errors of requests that failed."""

    reports: list[TaskReport] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)  # anything but a ProviderError is a fault of our own
    requests: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether the provider asked for patience."""
        return any(isinstance(error, ProviderBusyError) for error in self.errors)


class ProviderClient:
    """Asks providers over HTTP. Thread-safe; connections are kept for the next poll."""

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
        # The one used last is used next: its connections are the least likely to have been closed.
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
        """Asks about tasks of one provider, `max_concurrent_polls` requests at once after the first few.

        Stops asking when the provider says that it is busy or refuses the account, and at `deadline` (on the client's
        clock). Tasks without a report are to be asked about again.
        """
        answers = LookupResults()
        stop = Event()

        def send(request: PollRequest) -> list[TaskReport] | Exception | None:
            if stop.is_set() or self._clock() >= deadline:
                return None
            try:
                return self._send(provider, request, api_key, now())
            except (ProviderBusyError, ProviderRefusedError) as exc:
                # It concerns the account or the whole service: the other requests would only make it worse.
                stop.set()
                return exc
            except Exception as exc:  # noqa: BLE001 - the caller reports it; other tasks' answers must not be lost by it
                return exc

        requests = list(_poll_requests(provider, task_ids))
        # Threads, not asyncio: there the pool's search for a connection goes through anyio for each that is idle, and
        # costs seven times the CPU time. a hundred threads that wait cost 8 MB.
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
        """What a provider says of a single task.

        Raises:
            ProviderError: it could not be asked, or said nothing of the task.
            Exception: a fault of our own met its answer.
        """
        answers = self.ask(provider, [task_id], api_key=api_key, now=now)
        if answers.errors:
            raise answers.errors[0]
        if not answers.reports:
            raise ProviderUnavailableError(f"{provider.id} said nothing of the task")
        return answers.reports[0]

    def close(self) -> None:
        """Closes the connections that are kept."""
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
        """A client that nobody else uses meanwhile.

        One for each request that is under way, not one for all: httpcore looks through all connections of a pool, twice
        for every request, and asks the system about each that is idle. With 64 of them that is a
        third of the CPU time of a request.
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
            # The API key goes to the configured host and nowhere else: no redirects, no proxy from the environment.
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
            if self._clock() > ends_by:  # httpx's limits are for single reads
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
