"""Fetches one image over https: through the door, within one deadline, whole or not at all."""

import hashlib
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import httpcore
import httpx

from image_tasks.errors import ImageExpiredError, ImageRejectedError, ImageUnavailableError
from image_tasks.image_door import ImageDoor
from image_tasks.image_formats import ImageFacts, read_image_facts

# 4K PNGs have 10-25 MB; nothing the providers make is larger.
MAX_IMAGE_BYTES = 25 * 1024 * 1024
# From the name's resolution to the last byte, however slowly either end moves: 25 MiB at 3.3 MB/s.
FETCH_DEADLINE_SECONDS = 8.0
# Above this an image waits on disk for its turn: memory stays flat however many come at once.
SPOOL_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024

# The CDN of kie.ai and NanoBanana answers 403 to Python's own User-Agent.
USER_AGENT = "Mozilla/5.0 (compatible; Catchlight/0.1; image archiver)"

# Also what a CDN says for a moment before an object has reached it, or to a client that it takes for a bot.
_GONE = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}

_deadline: ContextVar[float] = ContextVar("_deadline")


@dataclass(slots=True)
class FetchedImage:
    """A whole image, verified, at the start of a temporary file that the receiver closes."""

    file: IO[bytes]
    size: int
    sha256: bytes
    facts: ImageFacts
    source_host: str


class ImageFetcher:
    """Fetches images. Thread-safe; connections and the TLS context are shared by all fetches."""

    def __init__(self, door: ImageDoor | None = None) -> None:
        self._door = door or ImageDoor()
        # Made once: parsing the CA bundle costs 15 ms. certifi's bundle, whatever the environment names.
        tls = httpx.create_ssl_context(trust_env=False)
        transport = httpx.HTTPTransport(verify=tls)
        # httpx has no argument for the network backend; its pool does.
        transport._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=15,
            network_backend=_DoorBackend(self._door),
        )
        self._http = httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(FETCH_DEADLINE_SECONDS),
            follow_redirects=False,  # the next hop would have to come through the door, and no provider needs one
            trust_env=False,  # no proxies, no .netrc
            headers={"User-Agent": USER_AGENT, "Accept": "image/*", "Accept-Encoding": "identity"},
        )

    def fetch(self, url: str, allowed_hosts: Iterable[str], *, is_last_try: bool = False) -> FetchedImage:
        """The image at a URL.

        Args:
            url: not trusted.
            allowed_hosts: where the provider's images come from, see `ImageDoor.check_url`.
            is_last_try: 403, 404 and 410 mean "not yet" until then.

        Raises:
            ImageRejectedError: it will never be archived.
            ImageExpiredError: the server has said too often that it is gone.
            ImageUnavailableError: try again.
        """
        host = self._door.check_url(url, allowed_hosts)
        file = SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - handed to the caller
        try:
            size, sha256 = self._download(url, file, is_last_try)
            facts = read_image_facts(file, size)  # type: ignore[arg-type]
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return FetchedImage(file, size, sha256, facts, host)

    def _download(self, url: str, file: IO[bytes], is_last_try: bool) -> tuple[int, bytes]:
        digest = hashlib.sha256()
        size = 0
        with _within(FETCH_DEADLINE_SECONDS), _http_errors(), self._http.stream("GET", url) as response:
            _check_head(response, is_last_try)
            for chunk in response.iter_raw(CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_IMAGE_BYTES:
                    raise ImageRejectedError(f"it is larger than {MAX_IMAGE_BYTES} bytes")
                digest.update(chunk)
                file.write(chunk)
        return size, digest.digest()


def _check_head(response: httpx.Response, is_last_try: bool) -> None:
    status = response.status_code
    if status in _GONE:
        if is_last_try:
            raise ImageExpiredError(f"the server answers {status}: the URL has expired or was withdrawn")
        raise ImageUnavailableError(f"the server answers {status}")
    if response.is_redirect:
        raise ImageRejectedError("the server redirects to another URL, which is not followed")
    if status != HTTPStatus.OK:
        raise ImageUnavailableError(f"the server answers {status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ImageRejectedError("the server sends a compressed body, which was not asked for")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_IMAGE_BYTES:
        raise ImageRejectedError(f"it is larger than {MAX_IMAGE_BYTES} bytes")


@contextmanager
def _http_errors() -> Iterator[None]:
    """Everything that goes wrong on the way is worth another try. Messages hold no URL."""
    try:
        yield
    except httpx.TimeoutException as exc:
        raise ImageUnavailableError(f"it did not arrive within {FETCH_DEADLINE_SECONDS:g} s") from exc
    except httpx.HTTPError as exc:
        raise ImageUnavailableError(f"the connection failed: {type(exc).__name__}") from exc


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _time_left(error: type[Exception]) -> float:
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise error
    return left


class _DoorBackend(httpcore.NetworkBackend):
    """Connects to the addresses that the door has checked, and to no others.

    The name is resolved once, here; TLS and the Host header keep the name, because httpcore takes them from the URL.
    """

    def __init__(self, door: ImageDoor) -> None:
        self._door = door
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
        for address in self._door.resolve(host, port):
            left = _time_left(httpcore.ConnectTimeout)
            try:
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
            else:
                return _DeadlineStream(stream)
        raise failure or httpcore.ConnectError("no address")


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose reads and writes share one deadline: a server that sends a byte a second gains nothing by it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _time_left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _time_left(httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        left = _time_left(httpcore.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
