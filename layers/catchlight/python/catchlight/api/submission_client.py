"""Sends image requests to providers, each once, and reports whether a failed one may have reached its provider."""

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

# A response holds a task id or an error, nothing larger.
MAX_ANSWER_BYTES = 64 * 1024
# The function times out after 29 s; the rest is for reading secrets, writing to DynamoDB and a cold start.
ANSWER_TIMEOUT_SECONDS = 18.0

# Raised before the request is sent: at most a handshake has taken place.
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's response to an image request."""

    status: int
    text: str
    retry_after_seconds: int | None = None

    @property
    def json(self) -> Any:
        """The decoded body; None if it is not valid JSON."""
        try:
            return json.loads(self.text, parse_constant=str)  # NaN and Infinity are not JSON
        except (ValueError, RecursionError):
            return None


class SubmissionClient:
    """Sends image requests to providers over HTTP. Never retries: a second request could generate, and cost, twice."""

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
            # A kept-alive connection may have been closed while the function was frozen; a request sent over it would
            # fail with an unknown outcome.
            limits=httpx.Limits(max_keepalive_connections=0),
            # The API key must reach the configured host only: no redirects, no proxy from the environment.
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Content-Type": "application/json"},
        )

    def send(self, provider: Provider, path: str, body: Mapping[str, Any], *, api_key: str) -> Reply:
        """Sends one image request and returns the provider's response, of any HTTP status.

        Raises:
            ProviderUnreachableError: the provider has not received the request.
            ProviderUnavailableError: the provider may have received the request, but no readable response arrived.
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
    """Shuts down a request's connection after `seconds`. Yields a callback for the request's `trace` extension.

    httpx's timeouts apply to each read, so they do not limit a response that arrives slowly, in many reads.
    """
    connections: list[socket.socket] = []

    def note(event: str, told: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            # A duplicate of the TCP socket, because another thread uses the TLS layer above it.
            connections.append(told["return_value"].get_extra_info("socket").dup())

    def shut_down() -> None:
        for connection in connections:
            with suppress(OSError):  # the connection is closed already
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
