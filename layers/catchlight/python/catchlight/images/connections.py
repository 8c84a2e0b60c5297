"""Connects to image hosts at addresses that the URL policy has checked, within one deadline per request.

Connections are reused only if no unread bytes are left in them.
"""

import ssl
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import httpcore
import httpx

from catchlight.images.url_policy import UrlPolicy

# `getaddrinfo` has no timeout parameter: a thread may wait for it longer than the fetch that started it.
MAX_RESOLVING_THREADS = 64
# CDNs keep idle connections for a minute or more; on a busy queue the next message arrives within seconds.
KEPT_SECONDS = 15.0

HEADERS: Mapping[str, str] = {
    # The CDN of kie.ai and NanoBanana answers 403 to Python's default User-Agent.
    "User-Agent": "Mozilla/5.0 (compatible; Catchlight/0.1; image archiver)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}


@dataclass(slots=True)
class _ConnectionState:
    """The state of the current response, shared by the layers of one connection."""

    deadline: float = 0.0  # on the monotonic clock
    body_left: int | None = None  # bytes of the body not received yet; None: unknown
    is_read_to_the_byte: bool = False  # the last read was limited to the bytes left of the body

    def begin(self, deadline: float) -> None:
        """Resets the state for the next response."""
        self.deadline, self.body_left, self.is_read_to_the_byte = deadline, None, False

    def seconds_left(self, error: type[httpcore.TimeoutException]) -> float:
        """Returns the seconds until the deadline; raises `error` if the deadline has passed."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise error
        return left


class DownloadResponse:
    """The status and headers of an image host's response; the body is streamed by `pieces`."""

    def __init__(self, response: httpcore.Response, state: _ConnectionState) -> None:
        self._response = response
        self._state = state
        self.status: int = response.status
        self.headers = _joined(response.headers)

    def pieces(self) -> Iterator[bytes]:
        """Yields the body as it arrives.

        Raises:
            httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError: the body is incomplete.
        """
        state = self._state
        if "transfer-encoding" not in self.headers and "content-length" in self.headers:
            state.body_left = int(self.headers["content-length"])
        for piece in self._response.iter_stream():
            if state.body_left is not None:
                state.body_left -= len(piece)
            yield piece


class ImageConnections:
    """Sends GET requests to image hosts and pools the connections. Thread-safe.

    A connection serves one host, whose address and certificate were checked when it was opened. It is reused only if it
    holds no bytes that the server sent after an image: the next fetch would read them as its own response.
    """

    def __init__(self, url_policy: UrlPolicy) -> None:
        self._url_policy = url_policy
        # Made once: parsing the CA bundle costs 15 ms. Always certifi's bundle; SSL_CERT_FILE and the like are ignored.
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._resolvers = ThreadPoolExecutor(MAX_RESOLVING_THREADS, thread_name_prefix="resolver")
        self._kept: defaultdict[str, list[_Connection]] = defaultdict(list)
        self._lock = Lock()
        # Closes the connections when this object is garbage-collected.
        weakref.finalize(self, _close_all, self._kept)

    @contextmanager
    def get(self, url: httpcore.URL, *, seconds: float) -> Iterator[DownloadResponse]:
        """Sends a GET request and yields the response. The limit of `seconds` includes connecting and the whole body.

        Raises:
            httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError: there is no response.
        """
        connection, answer = self._ask(url, time.monotonic() + seconds)
        try:
            yield answer
        finally:
            self._put_back(url.origin, connection)

    def _ask(self, url: httpcore.URL, deadline: float) -> tuple["_Connection", DownloadResponse]:
        while kept := self._take(url.origin):
            try:
                return kept, kept.ask(url, deadline)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                continue  # the server has closed the connection before it answered
        self._end_old_ones()
        connection = _Connection(url.origin, self._tls, _PinnedNetworkBackend(self._url_policy, self._resolvers))
        return connection, connection.ask(url, deadline)

    def _take(self, origin: httpcore.Origin) -> "_Connection | None":
        with self._lock:
            while connections := self._kept[str(origin)]:
                connection = connections.pop()
                if connection.is_empty():
                    return connection
                connection.close()
        return None

    def _put_back(self, origin: httpcore.Origin, connection: "_Connection") -> None:
        connection.end_answer()
        if connection.is_empty():
            with self._lock:
                self._kept[str(origin)].append(connection)
        else:
            connection.close()

    def _end_old_ones(self) -> None:
        """Closes the kept connections that cannot be reused: expired, closed by the server, or holding unread bytes.

        Covers all hosts: connections to hosts without further requests would stay half closed otherwise.
        """
        with self._lock:
            for connections in self._kept.values():
                for connection in connections[:]:
                    if not connection.is_empty():
                        connections.remove(connection)
                        connection.close()


def _close_all(kept: "Mapping[str, list[_Connection]]") -> None:
    for connections in kept.values():
        for connection in connections:
            connection.close()


class _Connection:
    """A connection to one host."""

    def __init__(self, origin: httpcore.Origin, tls: ssl.SSLContext, backend: "_PinnedNetworkBackend") -> None:
        self._state = backend.state
        self._response: httpcore.Response | None = None
        # Not httpx: its client would parse the URL again, read proxy settings and .netrc, and keep cookies.
        self._http = httpcore.HTTPConnection(
            origin, ssl_context=tls, network_backend=backend, keepalive_expiry=KEPT_SECONDS
        )

    def ask(self, url: httpcore.URL, deadline: float) -> DownloadResponse:
        """Sends a GET request and returns the response without its body."""
        self._state.begin(deadline)
        host = url.host if url.port in (None, 443) else b"%b:%d" % (url.host, url.port)
        headers = [(b"Host", host), *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        self._response = self._http.handle_request(httpcore.Request("GET", url, headers=headers))
        return DownloadResponse(self._response, self._state)

    def end_answer(self) -> None:
        """Closes the response. If its body was not read completely, httpcore closes the connection too."""
        if self._response is not None:
            self._response.close()

    def is_empty(self) -> bool:
        """Returns whether the connection holds no unread bytes, so that the next byte belongs to the next response.

        The last body was read up to its content-length by reads limited to it, so httpcore's buffer is empty. The TLS
        buffer is empty too, and no bytes have arrived since.
        """
        if self._response is None or not self._state.is_read_to_the_byte:
            return False
        if not self._http.is_idle() or self._http.has_expired():
            return False
        tls = self._response.extensions["network_stream"].get_extra_info("ssl_object")
        return tls is None or tls.pending() == 0

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()


class _PinnedNetworkBackend(httpcore.NetworkBackend):
    """Connects only to addresses that the URL policy has checked.

    The host name is resolved once, here. TLS (SNI, certificate check) and the Host header still use the name, because
    httpcore takes it from the URL.
    """

    def __init__(self, url_policy: UrlPolicy, resolvers: Executor) -> None:
        self._url_policy = url_policy
        self._resolvers = resolvers
        self._sockets = httpcore.SyncBackend()
        self.state = _ConnectionState()

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
            left = self.state.seconds_left(httpcore.ConnectTimeout)
            try:
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
            else:
                return _TrackedStream(stream, self.state)
        raise failure or httpcore.ConnectError("no address")

    def _resolve(self, host: str, port: int) -> list[str]:
        addresses = self._resolvers.submit(self._url_policy.resolve, host, port)
        try:
            return addresses.result(self.state.seconds_left(httpcore.ConnectTimeout))
        except TimeoutError as exc:
            addresses.cancel()
            raise httpcore.ConnectTimeout from exc


class _TrackedStream(httpcore.NetworkStream):
    """Applies one deadline to all reads and writes of a stream, so a slow server cannot extend it byte by byte.

    If the body's length is known, at most that many bytes are read.
    """

    def __init__(self, stream: httpcore.NetworkStream, state: _ConnectionState) -> None:
        self._stream = stream
        self._state = state

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        state = self._state
        if state.body_left is None:
            return self._stream.read(max_bytes, state.seconds_left(httpcore.ReadTimeout))
        # httpcore reads again only after it has delivered all bytes received: `body_left` is exact at this point.
        max_bytes = min(max_bytes, state.body_left)
        state.is_read_to_the_byte = True
        # TLS returns 16 KB at a time. Joining four of them costs the layers above a quarter of the CPU time.
        pieces, size = [], 0
        while size < max_bytes:
            piece = self._stream.read(max_bytes - size, state.seconds_left(httpcore.ReadTimeout))
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._state.seconds_left(httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        left = self._state.seconds_left(httpcore.ConnectTimeout)
        return _TrackedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._state)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Returns headers by lower-case name; the values of a repeated header are joined with commas (RFC 9110, 5.3)."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined
