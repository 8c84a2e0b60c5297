"""Fetches one image over https: through the door, within one deadline, whole or not at all."""

import hashlib
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import urlsplit

import httpcore
import httpx

from image_tasks.errors import ImageGoneError, ImageRejectedError, ImageUnavailableError
from image_tasks.image_door import ImageDoor
from image_tasks.image_formats import ImageFacts, read_image_facts

# 4K PNGs have 10-25 MB; nothing the providers make is larger.
MAX_IMAGE_BYTES = 25 * 1024 * 1024
# From the name's resolution to the last byte, however slowly either end moves: 25 MiB at 3.5 MB/s. With what comes
# before and after, a fetch takes less than 8 s.
FETCH_DEADLINE_SECONDS = 7.5
# Above this an image waits on disk for its turn: memory stays flat however many come at once.
SPOOL_BYTES = 1024 * 1024
# TLS hands over 16 KB at a time: the disk gets sixteen of them at once.
FILE_BUFFER_BYTES = 256 * 1024
# A resolver has no time limit of ours: threads wait for it, some of them longer than the fetches that asked.
MAX_RESOLVING_THREADS = 64

HEADERS: Mapping[str | bytes, str | bytes] = {
    # The CDN of kie.ai and NanoBanana answers 403 to Python's own User-Agent.
    "User-Agent": "Mozilla/5.0 (compatible; Catchlight/0.1; image archiver)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}

# Also what a CDN says for a moment before an object has reached it, or to a client that it takes for a bot.
_GONE = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(slots=True)
class FetchedImage:
    """A whole image, verified, at the start of a temporary file that the receiver closes."""

    file: IO[bytes]
    size: int
    sha256: bytes
    facts: ImageFacts
    source_host: str


class ImageFetcher:
    """Fetches images. Thread-safe.

    Every fetch has a connection of its own, which goes through the door anew. One that is used again costs a handshake
    less, and hands bytes that a server sent after one image to the fetch of the next, for its answer. That its buffers
    are empty before it is used again does not rule it out: a second answer may come while the next request is on its
    way.
    """

    def __init__(self, door: ImageDoor | None = None) -> None:
        self._door = door or ImageDoor()
        # Made once: parsing the CA bundle costs 15 ms. certifi's bundle, whatever the environment names.
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._resolvers = ThreadPoolExecutor(MAX_RESOLVING_THREADS, thread_name_prefix="resolver")

    def fetch(self, url: str, allowed_hosts: Iterable[str]) -> FetchedImage:
        """The image at a URL.

        Args:
            url: not trusted.
            allowed_hosts: where the provider's images come from, see `ImageDoor.check_url`.

        Raises:
            ImageRejectedError: it will never be archived.
            ImageGoneError: the server answers 403, 404 or 410. Try again, or with a fresh URL.
            ImageUnavailableError: try again.
        """
        host = self._door.check_url(url, allowed_hosts)
        file = SpooledTemporaryFile(SPOOL_BYTES, buffering=FILE_BUFFER_BYTES)  # noqa: SIM115 - handed to the caller
        try:
            size, sha256 = self._download(_request_url(url, host), file)
            facts = read_image_facts(file, size)  # type: ignore[arg-type]
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return FetchedImage(file, size, sha256, facts, host)

    def _download(self, url: httpcore.URL, file: IO[bytes]) -> tuple[int, bytes]:
        backend = _DoorBackend(self._door, self._resolvers, _Deadline(FETCH_DEADLINE_SECONDS))
        digest = hashlib.sha256()
        size = 0
        with (
            _connection_errors(),
            # Not httpx: its client would parse the URL again, look at proxies and .netrc, and keep cookies.
            httpcore.HTTPConnection(url.origin, ssl_context=self._tls, network_backend=backend) as connection,
            connection.stream("GET", url, headers=HEADERS) as response,
        ):
            _check_head(response)
            for chunk in response.iter_stream():
                size += len(chunk)
                if size > MAX_IMAGE_BYTES:
                    raise ImageRejectedError(f"it is larger than {MAX_IMAGE_BYTES} bytes")
                digest.update(chunk)
                file.write(chunk)
        return size, digest.digest()


def _request_url(url: str, host: str) -> httpcore.URL:
    """The parts of a URL that the door let through, cut up by the parser that the door used, sent as they came."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(scheme=parts.scheme, host=host, port=parts.port, target=target)


def _check_head(response: httpcore.Response) -> None:
    status = response.status
    if status in _GONE:
        raise ImageGoneError(f"the server answers {status}: the URL has expired or was withdrawn")
    if status in _REDIRECTS:
        raise ImageRejectedError("the server redirects to another URL, which is not followed")
    if status != HTTPStatus.OK:
        raise ImageUnavailableError(f"the server answers {status}")
    headers = _joined(response.headers)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ImageRejectedError("the server sends a compressed body, which was not asked for")
    if {"transfer-encoding", "content-length"} <= headers.keys():
        raise ImageUnavailableError("the server tells in two ways where the body ends")
    if int(headers.get("content-length", 0)) > MAX_IMAGE_BYTES:
        raise ImageRejectedError(f"it is larger than {MAX_IMAGE_BYTES} bytes")


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their names in lower case; one that was sent twice is comma-joined, as RFC 9110 reads it."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


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


class _Deadline:
    """One moment by which a whole fetch has ended."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, error: type[httpcore.TimeoutException]) -> float:
        """Seconds that are left; if there are none, raises this error."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise error
        return left


class _DoorBackend(httpcore.NetworkBackend):
    """Connects to the addresses that the door has checked, and to no others.

    The name is resolved once, here; TLS and the Host header keep the name, because httpcore takes them from the URL.
    """

    def __init__(self, door: ImageDoor, resolvers: Executor, deadline: _Deadline) -> None:
        self._door = door
        self._resolvers = resolvers
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - there is one deadline for everything
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in self._resolve(host, port):
            left = self._deadline.left(httpcore.ConnectTimeout)
            try:
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure or httpcore.ConnectError("no address")

    def _resolve(self, host: str, port: int) -> list[str]:
        addresses = self._resolvers.submit(self._door.resolve, host, port)
        try:
            return addresses.result(self._deadline.left(httpcore.ConnectTimeout))
        except TimeoutError as exc:
            addresses.cancel()
            raise httpcore.ConnectTimeout from exc


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose reads and writes share one deadline: a server that sends a byte a second gains nothing by it."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._deadline.left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._deadline.left(httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(httpcore.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
