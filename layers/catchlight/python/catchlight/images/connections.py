"""Connections to image hosts: through the URL policy, within a deadline, used again where nothing can be left in them."""

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

# A resolver has no time limit of ours: threads wait for it, some of them longer than the fetches that asked.
MAX_RESOLVING_THREADS = 64
# CDNs keep a connection for a minute and more; the next message of a busy queue is there within seconds.
KEPT_SECONDS = 15.0

HEADERS: Mapping[str, str] = {
    # The CDN of kie.ai and NanoBanana answers 403 to Python's own User-Agent.
    "User-Agent": "Mozilla/5.0 (compatible; Catchlight/0.1; image archiver)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}


@dataclass(slots=True)
class _ConnectionState:
    """What the layers of one connection share about the answer that is on its way."""

    deadline: float = 0.0  # on the monotonic clock
    body_left: int | None = None  # bytes of the body that have not come yet; None: not known
    is_read_to_the_byte: bool = False  # the last read was of the body, and could not go beyond it

    def begin(self, deadline: float) -> None:
        """For the next answer."""
        self.deadline, self.body_left, self.is_read_to_the_byte = deadline, None, False

    def seconds_left(self, error: type[httpcore.TimeoutException]) -> float:
        """Seconds until the deadline; if there are none, raises this error."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise error
        return left


class DownloadResponse:
    """An image host's answer, whose body is on its way."""

    def __init__(self, response: httpcore.Response, state: _ConnectionState) -> None:
        self._response = response
        self._state = state
        self.status: int = response.status
        self.headers = _joined(response.headers)

    def pieces(self) -> Iterator[bytes]:
        """The body.

        Raises:
            httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError: it does not come whole.
        """
        state = self._state
        if "transfer-encoding" not in self.headers and "content-length" in self.headers:
            state.body_left = int(self.headers["content-length"])
        for piece in self._response.iter_stream():
            if state.body_left is not None:
                state.body_left -= len(piece)
            yield piece


class ImageConnections:
    """Asks image hosts. Thread-safe.

    A connection serves one host, whose address and certificate were checked when it was made. It is used again only if
    no byte can be left in it that its server sent after an image: the next fetch would take it for its own answer.
    """

    def __init__(self, url_policy: UrlPolicy) -> None:
        self._url_policy = url_policy
        # Made once: parsing the CA bundle costs 15 ms. certifi's bundle, whatever the environment names.
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._resolvers = ThreadPoolExecutor(MAX_RESOLVING_THREADS, thread_name_prefix="resolver")
        self._kept: defaultdict[str, list[_Connection]] = defaultdict(list)
        self._lock = Lock()
        # Whoever forgets the connections ends them.
        weakref.finalize(self, _close_all, self._kept)

    @contextmanager
    def get(self, url: httpcore.URL, *, seconds: float) -> Iterator[DownloadResponse]:
        """The answer to a GET, all of which comes within `seconds`, or does not.

        Raises:
            httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError: there is none.
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
                continue  # its server has closed it at this very moment, before it answered
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
        """Also those of hosts that nobody asks again: they would stay half closed."""
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
        # Not httpx: its client would parse the URL again, look at proxies and .netrc, and keep cookies.
        self._http = httpcore.HTTPConnection(
            origin, ssl_context=tls, network_backend=backend, keepalive_expiry=KEPT_SECONDS
        )

    def ask(self, url: httpcore.URL, deadline: float) -> DownloadResponse:
        """The answer, but for its body."""
        self._state.begin(deadline)
        host = url.host if url.port in (None, 443) else b"%b:%d" % (url.host, url.port)
        headers = [(b"Host", host), *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        self._response = self._http.handle_request(httpcore.Request("GET", url, headers=headers))
        return DownloadResponse(self._response, self._state)

    def end_answer(self) -> None:
        """One that is not read to its end ends the connection, too."""
        if self._response is not None:
            self._response.close()

    def is_empty(self) -> bool:
        """Whether the next byte that comes can only be of the next answer.

        The last answer was read to its told end, by a read that asked for no byte beyond it, so that none is in the
        buffers of HTTP; nor in those of TLS; nor has come since.
        """
        if self._response is None or not self._state.is_read_to_the_byte:
            return False
        if not self._http.is_idle() or self._http.has_expired():
            return False
        tls = self._response.extensions["network_stream"].get_extra_info("ssl_object")
        return tls is None or tls.pending() == 0

    def close(self) -> None:
        """Ends it."""
        self._http.close()


class _PinnedNetworkBackend(httpcore.NetworkBackend):
    """Connects to the addresses that the URL policy has checked, and to no others.

    The name is resolved once, here; TLS and the Host header keep the name, because httpcore takes them from the URL.
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
    """A stream whose reads and writes share one deadline: a server that sends a byte a second gains nothing by it.

    Of a body whose length is known no byte more is read than it has.
    """

    def __init__(self, stream: httpcore.NetworkStream, state: _ConnectionState) -> None:
        self._stream = stream
        self._state = state

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        state = self._state
        if state.body_left is None:
            return self._stream.read(max_bytes, state.seconds_left(httpcore.ReadTimeout))
        # HTTP asks for more only when it has handed over all that has come: this much is left.
        max_bytes = min(max_bytes, state.body_left)
        state.is_read_to_the_byte = True
        # TLS hands over 16 KB at a time. Four of them together go through the layers above at a quarter of the price.
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
    """Headers by their names in lower case; one that was sent twice is comma-joined, as RFC 9110 reads it."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined
