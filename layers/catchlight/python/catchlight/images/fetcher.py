"""Fetches one image over https: through the URL policy, within one deadline, whole or not at all."""

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import httpcore

from catchlight.errors import ImageGoneError, ImageRejectedError, ImageUnavailableError
from catchlight.images.connections import DownloadResponse, ImageConnections
from catchlight.images.stream import ImageStream
from catchlight.images.url_policy import UrlPolicy

# From the name's resolution to the last byte, however slowly the host sends or S3 takes: 25 MiB at 3.5 MB/s. With what
# comes before and after, a fetch takes less than 8 s.
FETCH_DEADLINE_SECONDS = 7.5

# Also what a CDN says for a moment before an object has reached it, or to a client that it takes for a bot.
_GONE = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_REDIRECTS = {301, 302, 303, 307, 308}


class ImageFetcher:
    """Fetches images. Thread-safe."""

    def __init__(self, url_policy: UrlPolicy | None = None) -> None:
        self._url_policy = url_policy or UrlPolicy()
        self._connections = ImageConnections(self._url_policy)

    @contextmanager
    def fetch(self, url: str, allowed_hosts: Iterable[str]) -> Iterator[ImageStream]:
        """The image at a URL, as it comes.

        Args:
            url: not trusted.
            allowed_hosts: where the provider's images come from, see `UrlPolicy.check_url`.

        Raises:
            ImageRejectedError: it will never be archived.
            ImageGoneError: the server answers 403, 404 or 410. Try again, or with a fresh URL.
            ImageUnavailableError: try again.
        """
        host = self._url_policy.check_url(url, allowed_hosts)
        with (
            _connection_errors(),
            self._connections.get(_request_url(url, host), seconds=FETCH_DEADLINE_SECONDS) as answer,
        ):
            size = _check_head(answer)
            with ImageStream(_pieces(answer), size, host) as image:
                yield image


def _pieces(answer: DownloadResponse) -> Iterator[bytes]:
    # Read by whoever copies the image: its errors are to be those of the image there.
    with _connection_errors():
        yield from answer.pieces()


def _request_url(url: str, host: str) -> httpcore.URL:
    """The parts of a URL that the URL policy let through, cut up by the parser that the URL policy used, sent as they came."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(scheme=parts.scheme, host=host, port=parts.port, target=target)


def _check_head(answer: DownloadResponse) -> int | None:
    """The size of the image, None if it is not told."""
    status, headers = answer.status, answer.headers
    if status in _GONE:
        raise ImageGoneError(f"the server answers {status}: the URL has expired or was withdrawn")
    if status in _REDIRECTS:
        raise ImageRejectedError("the server redirects to another URL, which is not followed")
    if status != HTTPStatus.OK:
        raise ImageUnavailableError(f"the server answers {status}")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ImageRejectedError("the server sends a compressed body, which was not asked for")
    if {"transfer-encoding", "content-length"} <= headers.keys():
        raise ImageUnavailableError("the server tells in two ways where the body ends")
    return int(headers["content-length"]) if "content-length" in headers else None


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Everything that goes wrong on the way is worth another try. Messages hold no URL."""
    try:
        yield
    except httpcore.TimeoutException as exc:
        raise ImageUnavailableError(f"it did not arrive within {FETCH_DEADLINE_SECONDS:g} s") from exc
    except (httpcore.NetworkError, httpcore.ProtocolError) as exc:
        raise ImageUnavailableError(f"the connection failed: {_cause(exc)}") from exc


def _cause(exc: Exception) -> str:
    if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
        return "the server's certificate is not valid"
    if isinstance(exc, httpcore.ConnectError):
        return "nobody answers there"
    if isinstance(exc, httpcore.ProtocolError):
        return "the answer is cut off, or is not HTTP"
    return "the server broke it off"
