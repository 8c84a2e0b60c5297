"""Passes generated requests to a handler in this process."""

import io
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from local.http.events import HttpRequest, HttpResponse


class InProcess(HTTPAdapter):
    """Passes requests of the `requests` library, which schemathesis uses, to a function."""

    def __init__(self, respond: Callable[[HttpRequest], HttpResponse]) -> None:
        super().__init__()
        self._respond = respond

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Returns the function's response as a response of the library."""
        body = request.body or b""
        assert isinstance(body, str | bytes)
        response = self._respond(
            HttpRequest(
                request.method or "",
                request.path_url,
                [(str(name), _text(value)) for name, value in request.headers.items()],
                body if isinstance(body, bytes) else body.encode(errors="surrogatepass"),
            )
        )
        raw = HTTPResponse(io.BytesIO(response.body), dict(response.headers), response.status, preload_content=False)
        return self.build_response(request, raw)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
