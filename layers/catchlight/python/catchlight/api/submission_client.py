"""Sends image requests to providers, each of them once, and distinguishes failures before and after the first byte."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpcore

from catchlight.errors import ProviderUnavailableError, ProviderUnreachableError
from catchlight.http_connections import Deadline, Exchange, ResponseTooLargeError
from catchlight.outbound_http import HttpClient
from catchlight.polling.provider_client import HEADERS
from catchlight.providers import Provider

# Responses contain a task id or an error.
MAX_ANSWER_BYTES = 64 * 1024
# The function times out after 29 s: the remaining time is for a cold start, reading secrets and writing to DynamoDB.
ANSWER_TIMEOUT_SECONDS = 18.0


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
            # `parse_constant`: NaN and Infinity, which are not JSON, become texts. A byte order mark may come first.
            return json.loads(self.text.removeprefix("\ufeff"), parse_constant=str)
        except (ValueError, RecursionError):
            return None


class SubmissionClient:
    """Sends image requests to providers over HTTP. Never retries: a second request could generate images twice."""

    def __init__(self, base_urls: Mapping[str, str], *, http: HttpClient | None = None) -> None:
        self._base_urls = base_urls
        # Each request has a new connection. An idle connection may have been closed while the function was frozen: a
        # request that is sent over it would have an unknown outcome.
        self._http = http or HttpClient()

    def send(self, provider: Provider, path: str, body: Mapping[str, Any], *, api_key: str) -> Reply:
        """Sends one image request and returns the provider's response, of any HTTP status.

        Raises:
            ProviderUnreachableError: no byte of the request was sent.
            ProviderUnavailableError: the provider may have received the request, but no readable response arrived.
        """
        exchange = Exchange(Deadline(ANSWER_TIMEOUT_SECONDS))
        try:
            url = httpcore.URL(self._base_urls.get(provider.id, provider.base_url) + path)
            headers = {**HEADERS, "Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
            content = json.dumps(body, separators=(",", ":")).encode()
            with self._http.send("POST", url, headers, content, exchange=exchange) as response:
                answer = response.read(MAX_ANSWER_BYTES)
        except ResponseTooLargeError as exc:
            raise ProviderUnavailableError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes") from exc
        except Exception as exc:
            # The class of the error does not matter: only whether the first byte of the request was sent.
            if exchange.was_sent:
                raise ProviderUnavailableError(f"{provider.id} did not answer: {type(exc).__name__}") from exc
            raise ProviderUnreachableError(f"{provider.id} could not be reached: {type(exc).__name__}") from exc
        return Reply(
            response.status, answer.decode(errors="replace"), _seconds(response.headers.get("retry-after", ""))
        )


def _seconds(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else None
