"""Replaces `HttpClient` by a plain function from httpx's requests to httpx's responses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpcore
import httpx

from catchlight.http_connections import Exchange, HttpResponse
from catchlight.outbound_http import HttpClient

Respond = Callable[[httpx.Request], httpx.Response]

_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout)


class FakeHttp(HttpClient):
    """Passes each request to a function, which returns the response or raises an error of httpx."""

    def __init__(self, respond: Respond) -> None:
        super().__init__()
        self._respond = respond

    @contextmanager
    def send(
        self, method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes = b"", *, exchange: Exchange
    ) -> Iterator[HttpResponse]:
        """Yields the function's response; its errors become the errors of httpcore with the same names."""
        request = httpx.Request(method, bytes(url).decode(), headers=dict(headers), content=content)
        exchange.was_sent = True
        try:
            response = self._respond(request)
        except httpx.TransportError as exc:
            exchange.was_sent = not isinstance(exc, _NOTHING_SENT)
            raise getattr(httpcore, type(exc).__name__)(str(exc)) from exc
        yield HttpResponse(response.status_code, dict(response.headers), response.iter_bytes())
