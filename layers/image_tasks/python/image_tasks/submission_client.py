"""Sends requests for images to providers: once each, and knows whether one may have arrived."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from image_tasks.errors import ProviderUnavailableError, ProviderUnreachableError
from image_tasks.provider_client import CONNECT_TIMEOUT_SECONDS, USER_AGENT
from image_tasks.providers import Provider

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_urls = base_urls
        self._clock = clock
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
        ends_by = self._clock() + ANSWER_TIMEOUT_SECONDS
        try:
            with self._http.stream(
                "POST",
                self._base_urls.get(provider.id, provider.base_url) + path,
                content=json.dumps(body, separators=(",", ":")).encode(),
                headers={"Authorization": f"Bearer {api_key}"},
            ) as response:
                content = self._read(response, ends_by)
        except _NOTHING_SENT as exc:
            raise ProviderUnreachableError(f"{provider.id} could not be reached: {type(exc).__name__}") from exc
        except httpx.HTTPError as exc:
            raise ProviderUnavailableError(f"{provider.id} did not answer: {type(exc).__name__}") from exc
        return Reply(response.status_code, content.decode(errors="replace"), _seconds(response.headers))

    def _read(self, response: httpx.Response, ends_by: float) -> bytes:
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise ProviderUnavailableError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
            if self._clock() > ends_by:  # httpx's limits are for single reads
                raise ProviderUnavailableError("its answer does not come to an end")
        return bytes(content)


def _seconds(headers: httpx.Headers) -> int | None:
    value = headers.get("retry-after", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else None
