"""Downloads one image over https. The URL policy checks its URL, and one deadline covers the whole download."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urljoin

import httpcore

from catchlight import __version__
from catchlight.errors import ImageGoneError, ImageRejectedError, ImageTruncatedError, ImageUnavailableError
from catchlight.http_connections import HTTP_ERRORS, Deadline, Exchange, HttpResponse, failure_text
from catchlight.images.stream import ImageStream
from catchlight.images.url_policy import ANY_HOST, UrlPolicy
from catchlight.models import encode_url
from catchlight.outbound_http import HttpClient, request_url

# From resolving the name to the last byte, including the time that S3 takes to accept the bytes: 25 MiB at 3.5 MB/s.
# With the work before and after, a fetch takes less than 8 s.
FETCH_DEADLINE_SECONDS = 7.5
# Enough to redirect from a provider's own host to its storage, from there to a CDN, and to a region of the CDN. All
# these requests share the one deadline.
MAX_REDIRECTS = 3

HEADERS: Mapping[str, str] = {
    # The CDN of kie.ai and NanoBanana answers 403 to Python's default User-Agent.
    "User-Agent": f"Mozilla/5.0 (compatible; Catchlight/{__version__}; image archiver)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}

# CDNs also send these statuses while a new object is not distributed yet, and to clients that they classify as bots.
_GONE = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_REDIRECTS = {301, 302, 303, 307, 308}
# The text after three slashes is a host according to browsers, and a path according to RFC 3986.
_AMBIGUOUS = re.compile(r"([a-z]+:)?///", re.IGNORECASE)
# Values of Content-Encoding that servers send with unencoded bytes: the format of an upload, or a character set.
_WITHOUT_EFFECT = {"", "identity", "aws-chunked", "binary", "utf-8", "none"}
# Registered encodings (IANA HTTP content coding registry). They are not decoded: a small body may decompress to a huge
# one.
_COMPRESSIONS = {
    "gzip",
    "x-gzip",
    "deflate",
    "compress",
    "x-compress",
    "br",
    "zstd",
    "dcb",
    "dcz",
    "exi",
    "pack200-gzip",
}


class ImageFetcher:
    """Downloads images. Thread-safe."""

    def __init__(self, url_policy: UrlPolicy | None = None) -> None:
        self._url_policy = url_policy or UrlPolicy()
        # All connections, new and reused ones, are to addresses that the policy has checked. The name is resolved once
        # per request: a second resolution may return other addresses (DNS rebinding).
        self._http = HttpClient(self._url_policy.resolve, keeps_connections=True, trusts_hosts=False)

    @contextmanager
    def fetch(self, url: str, allowed_hosts: Iterable[str]) -> Iterator[ImageStream]:
        """Downloads the image at a URL and yields it as a stream that can be read during the download.

        Redirects are followed. An allowed host may redirect to any public host, because it could also send the bytes of
        that host itself.

        Args:
            url: untrusted input.
            allowed_hosts: hosts of the provider's images, see `UrlPolicy.check_url`.

        Raises:
            ImageRejectedError: the URL or a redirect is not allowed, or the image is too large. A retry does not help.
            ImageGoneError: the server responds with 403, 404 or 410. Retry, or request a fresh URL.
            ImageUnavailableError: the download failed. Retry.

        The stream validates that the body is an image: see `ImageStream.complete`.
        """
        with _connection_errors(), self._response(url, allowed_hosts) as (host, response):
            size = _check_head(response)
            is_delimited = not response.headers.keys().isdisjoint({"content-length", "transfer-encoding"})
            with ImageStream(_pieces(response), size, host, is_delimited=is_delimited) as image:
                _check_encoding(response, image)
                yield image

    @contextmanager
    def _response(self, url: str, allowed_hosts: Iterable[str]) -> Iterator[tuple[str, HttpResponse]]:
        """Requests a URL, follows redirects within one deadline, and yields the last host with its response."""
        deadline = Deadline(FETCH_DEADLINE_SECONDS)
        host = self._url_policy.check_url(url, allowed_hosts)
        requested = [_without_fragment(url)]
        while True:
            sent_url = request_url(requested[-1], host)
            with self._http.send("GET", sent_url, HEADERS, exchange=Exchange(deadline)) as response:
                if response.status not in _REDIRECTS:
                    yield host, response
                    return
            target = _redirect_target(response, requested)
            try:
                host = self._url_policy.check_url(target, [ANY_HOST])
            except ImageRejectedError as exc:
                raise ImageRejectedError(f"the server redirects to a URL that is not allowed: {exc}") from exc
            requested.append(target)


def _pieces(response: HttpResponse) -> Iterator[bytes]:
    # The copying code reads these pieces and handles image errors only, so connection errors are converted here.
    with _connection_errors():
        try:
            yield from response.pieces()
        except httpcore.RemoteProtocolError as exc:
            raise ImageTruncatedError("the response is cut off, or is not HTTP") from exc


def _redirect_target(response: HttpResponse, requested: Sequence[str]) -> str:
    """Returns the target URL of a redirect. `requested` has the URLs requested so far; the last one redirects.

    Raises:
        ImageRejectedError: the redirect has no valid URL or one that was requested before, or exceeds MAX_REDIRECTS.
    """
    # Header values are bytes. The URL policy refuses backslashes.
    location = encode_url(response.headers.get("location", "").encode("latin-1"))
    if "location" not in response.headers:
        raise ImageRejectedError("the server redirects without a URL")
    if _AMBIGUOUS.match(location):
        raise ImageRejectedError("the server redirects to a URL that programs interpret differently")
    try:
        target = _without_fragment(urljoin(requested[-1], location))
    except ValueError:
        raise ImageRejectedError("the server redirects to a malformed URL") from None
    if target in requested:
        raise ImageRejectedError("the server redirects in a circle")
    if len(requested) > MAX_REDIRECTS:
        raise ImageRejectedError(f"the server redirects more than {MAX_REDIRECTS} times")
    return target


def _without_fragment(url: str) -> str:
    return url.partition("#")[0]


def _check_head(response: HttpResponse) -> int | None:
    """Checks status and headers and returns the image's size in bytes, None without a content-length.

    Raises:
        ImageGoneError, ImageRejectedError, ImageUnavailableError: the response is not an image that can be read.
    """
    status, headers = response.status, response.headers
    if status in _GONE:
        raise ImageGoneError(f"the server answers {status}: the URL has expired or was withdrawn")
    if status != HTTPStatus.OK:
        raise ImageUnavailableError(f"the server answers {status}")
    if _COMPRESSIONS & _encodings(response):
        raise ImageUnavailableError("the server sends a compressed body, which was not requested")
    if {"transfer-encoding", "content-length"} <= headers.keys():
        raise ImageUnavailableError("the server sends both Transfer-Encoding and Content-Length")
    return int(headers["content-length"]) if "content-length" in headers else None


def _encodings(response: HttpResponse) -> set[str]:
    """Returns the values of Content-Encoding that may encode something, in lower case."""
    values = response.headers.get("content-encoding", "").lower().split(",")
    return {value.strip() for value in values} - _WITHOUT_EFFECT


def _check_encoding(response: HttpResponse, image: ImageStream) -> None:
    """Checks that a body with an unknown content encoding is an image without being decoded.

    Raises:
        ImageUnavailableError: it is not. The decoded body may be an image, so the image is not rejected.
    """
    if not _encodings(response):
        return
    try:
        _ = image.format
    except ImageRejectedError as exc:
        raise ImageUnavailableError("the server sends a body of an unknown content encoding") from exc


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Maps connection errors to ImageUnavailableError, which is retried. The messages contain no URL."""
    try:
        yield
    except httpcore.TimeoutException as exc:
        raise ImageUnavailableError(f"the image did not arrive within {FETCH_DEADLINE_SECONDS:g} s") from exc
    except HTTP_ERRORS as exc:
        raise ImageUnavailableError(f"the connection failed: {failure_text(exc)}") from exc
