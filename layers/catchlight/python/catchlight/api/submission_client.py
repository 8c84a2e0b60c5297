"""Sends requests for images to providers: once each, and knows whether one may have arrived."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Timer
from typing import Any

import httpx

from catchlight.errors import ProviderUnavailableError, ProviderUnreachableError
from catchlight.polling.provider_client import CONNECT_TIMEOUT_SECONDS, USER_AGENT
from catchlight.providers import Provider

# An answer names a task or an error.
MAX_ANSWER_BYTES = 64 * 1024
# Of the 29 s that the function has, the rest is for secrets, the table and a cold start.
ANSWER_TIMEOUT_SECONDS = 18.0

# Whoever is told one of these has sent nothing but a handshake.
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer to a request for images."""

    status: int
    text: str
    retry_after_seconds: int | None = None

    @property
    def json(self) -> Any:
        """The body, None if it is no JSON."""
        try:
            return json.loads(self.text, parse_constant=str)  # NaN, which is no JSON
        except (ValueError, RecursionError):
            return None


class SubmissionClient:
    """Speaks HTTP with the providers. Never sends anything a second time."""

    def __init__(
        self,
        base_urls: Mapping[str, str],
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._base_urls = base_urls
        self._http = httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            # A kept connection may have died while the function was frozen, and then nobody knows what has arrived.
            limits=httpx.Limits(max_keepalive_connections=0),
            # The API key goes to the configured host and nowhere else: no redirects, no proxy from the environment.
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Content-Type": "application/json"},
        )

    def send(self, provider: Provider, path: str, body: Mapping[str, Any], *, api_key: str) -> Reply:
        """What a provider answers to a request for images.

        Raises:
            ProviderUnreachableError: it has received nothing.
            ProviderUnavailableError: it may have received it, but there is no answer that could be read.
        """
        try:
            with (
                _ended_after(ANSWER_TIMEOUT_SECONDS) as trace,
                self._http.stream(
                    "POST",
                    self._base_urls.get(provider.id, provider.base_url) + path,
                    content=json.dumps(body, separators=(",", ":")).encode(),
                    headers={"Authorization": f"Bearer {api_key}"},
                    extensions={"trace": trace},
                ) as response,
            ):
                content = _read(response)
        except _NOTHING_SENT as exc:
            raise ProviderUnreachableError(f"{provider.id} could not be reached: {type(exc).__name__}") from exc
        except httpx.HTTPError as exc:
            raise ProviderUnavailableError(f"{provider.id} did not answer: {type(exc).__name__}") from exc
        return Reply(response.status_code, content.decode(errors="replace"), _seconds(response.headers))


def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise ProviderUnavailableError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


@contextmanager
def _ended_after(seconds: float) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Shuts a request's connection down when so much time has passed. Yields what is to be its `trace` extension.

    httpx's limits are for single reads, and an answer that dribbles has any number of them.
    """
    connections: list[socket.socket] = []

    def note(event: str, told: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            # A second handle of the bare connection: TLS above it is in another thread's hands.
            connections.append(told["return_value"].get_extra_info("socket").dup())

    def shut_down() -> None:
        for connection in connections:
            with suppress(OSError):  # it has come to its end by itself
                connection.shutdown(socket.SHUT_RDWR)

    timer = Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield note
    finally:
        timer.cancel()
        for connection in connections:
            connection.close()


def _seconds(headers: httpx.Headers) -> int | None:
    value = headers.get("retry-after", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else None
