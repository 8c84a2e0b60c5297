"""Sends HTTP requests to providers and image hosts, each with one deadline for the request and its whole response.

The deadline covers resolving the name, connecting, the TLS handshake, sending, and every byte of the response's head
and body. The timeouts of HTTP libraries apply to single reads: they do not end a response that arrives byte by byte.

    Exchange                 one request: its deadline, and whether any byte of it was sent
    HttpClient.send          resolve → connect (each address has a share of the deadline) → TLS → request → HttpResponse

HTTP/1.1 itself is httpcore's. httpx would parse the URL again, use proxies and .netrc of the environment, keep cookies
and log whole URLs.
"""

import select
import socket
import ssl
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Thread
from typing import Any

import certifi
import httpcore

# Two SYN packets: the second is sent after one second. A host that accepts no connection by then is tried again later.
MAX_CONNECT_SECONDS = 2.0
# The least share of an address. A distant host answers in well under a second; without the minimum, a name with many
# addresses would have too little time at each of them.
MIN_SHARE_SECONDS = 1.0
# A connection that has been idle for longer may have been closed by the server or by a router on the way.
KEEPALIVE_SECONDS = 5.0

# Errors of the network and of HTTP. All others are errors of the request itself or of the resolver.
HTTP_ERRORS = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)

_DEFAULT_PORTS = {b"http": 80, b"https": 443}
_GZIP = zlib.MAX_WBITS | 16

# Returns the addresses to connect to for a host name and a port.
Resolve = Callable[[str, int], Sequence[str]]


class ResponseTooLargeError(Exception):
    """A response's body is larger than its reader accepts."""


class Deadline:
    """A point in time, given as a number of seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def seconds_left(self) -> float:
        """Returns the seconds until the deadline, more than 0.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(slots=True)
class Exchange:
    """A request and its response."""

    deadline: Deadline
    # False: the server has certainly received nothing of the request, whatever error follows.
    was_sent: bool = False


@cache
def tls_context() -> ssl.SSLContext:
    """Returns the TLS context of all connections. Parsing the CA bundle takes 15 ms.

    The bundle is always certifi's: SSL_CERT_FILE and the like are ignored.
    """
    context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def resolve_host(host: str, port: int) -> list[str]:
    """Returns all addresses of a host, in the order in which the system prefers them.

    Raises:
        OSError: the name cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpResponse:
    """The status and headers of a response; the body is read by `pieces` or `read`."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self.status: int = response.status
        # By lower-case name; the values of a repeated header are joined with commas (RFC 9110, 5.3).
        self.headers = _joined(response.headers)

    def pieces(self) -> Iterator[bytes]:
        """Yields the body as it arrives, as the server encoded it.

        Raises:
            HTTP_ERRORS: the body is incomplete.
        """
        yield from self._response.iter_stream()

    def read(self, max_bytes: int) -> bytes:
        """Returns the whole body, decompressed if the server has compressed it.

        Raises:
            HTTP_ERRORS: the body is incomplete.
            ResponseTooLargeError: it is larger than `max_bytes`.
        """
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > max_bytes:
                raise ResponseTooLargeError
        if self.headers.get("content-encoding", "").lower() == "gzip":
            return _decompressed(bytes(body), max_bytes)
        return bytes(body)


class HttpClient:
    """Sends HTTP requests. Thread-safe."""

    def __init__(self, resolve: Resolve = resolve_host, *, keeps_connections: bool = False) -> None:
        """Creates a client.

        Args:
            resolve: returns the addresses of a host. Connections are made to these addresses only.
            keeps_connections: whether a connection is used for further requests to the same origin.
        """
        self._resolve = resolve
        self._keeps_connections = keeps_connections
        self._tls = tls_context()
        # Last in, first out: the connection used last is the least likely to have been closed.
        self._idle: defaultdict[str, list[_Connection]] = defaultdict(list)

    @contextmanager
    def send(
        self, method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes = b"", *, exchange: Exchange
    ) -> Iterator[HttpResponse]:
        """Sends a request and yields the response, before its body has arrived.

        Redirects are not followed, and nothing is sent twice.

        Raises:
            HTTP_ERRORS: no response has arrived by the exchange's deadline.
            Exception: the request cannot be sent (such as a header that HTTP does not allow), or an error of `resolve`.
        """
        if not self._keeps_connections:
            headers = {**headers, "Connection": "close"}
        request = _request(method, url, headers, content)
        connection = self._take_idle(url.origin) or self._connect(url.origin, exchange.deadline)
        try:
            with connection.send(request, exchange) as response:
                yield response
        finally:
            if self._keeps_connections and connection.http.is_idle():
                self._idle[str(url.origin)].append(connection)
            else:
                connection.http.close()

    def close(self) -> None:
        """Closes the idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().http.close()

    def _take_idle(self, origin: httpcore.Origin) -> "_Connection | None":
        idle = self._idle[str(origin)]
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread has taken the last one
                break
            if not connection.http.has_expired():
                return connection
            connection.http.close()
        return None

    def _connect(self, origin: httpcore.Origin, deadline: Deadline) -> "_Connection":
        host = origin.host.decode("ascii")
        with _httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            addresses = _resolved(self._resolve, host, origin.port, deadline)
            failure = OSError("the name has no address")
            for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
                # One address that does not answer must not use up the time of the others.
                seconds = deadline.seconds_left()
                share = Deadline(min(seconds, max(seconds / left, MIN_SHARE_SECONDS)))
                try:
                    stream = _Stream(_opened(address, origin, self._tls, share))
                except OSError as exc:
                    failure = exc
                else:
                    return _Connection(origin, stream)
            raise failure


class _Connection:
    """A connection to one origin, which serves one request at a time."""

    def __init__(self, origin: httpcore.Origin, stream: "_Stream") -> None:
        self._stream = stream
        self.http = httpcore.HTTP11Connection(origin, stream, keepalive_expiry=KEEPALIVE_SECONDS)

    @contextmanager
    def send(self, request: httpcore.Request, exchange: Exchange) -> Iterator[HttpResponse]:
        """Sends a request and yields the response. If its body is not read completely, the connection is closed."""
        self._stream.exchange = exchange
        response = self.http.handle_request(request)
        try:
            yield HttpResponse(response)
        finally:
            response.close()


class _Stream(httpcore.NetworkStream):
    """A connected socket whose reads and writes end at the deadline of the current exchange."""

    exchange: Exchange

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        with _httpcore_errors(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(self.exchange.deadline.seconds_left())
            return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        unsent = memoryview(buffer)
        with _httpcore_errors(httpcore.WriteTimeout, httpcore.WriteError):
            while unsent:
                self._socket.settimeout(self.exchange.deadline.seconds_left())
                self.exchange.was_sent = True
                unsent = unsent[self._socket.send(unsent) :]

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        # httpcore asks this of an idle connection: then it is readable only if the server has closed it.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


def _resolved(resolve: Resolve, host: str, port: int, deadline: Deadline) -> Sequence[str]:
    """Returns the addresses of a host by the deadline, although `getaddrinfo` has no timeout parameter.

    Each resolution has a thread of its own: names whose servers do not answer must not keep other names waiting. Such a
    thread ends when the system's resolver gives up, after some 30 s.
    """
    addresses: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            addresses.set_result(resolve(host, port))
        except BaseException as exc:  # noqa: BLE001 - raised in the thread that waits
            addresses.set_exception(exc)

    Thread(target=run, name=f"resolver of {host}", daemon=True).start()
    return addresses.result(deadline.seconds_left())


def _opened(address: str, origin: httpcore.Origin, tls: ssl.SSLContext, deadline: Deadline) -> socket.socket:
    """Connects to an address. TLS verifies that the server has a certificate of the origin's host name.

    Raises:
        OSError: the address does not answer by the deadline, or the certificate is not valid.
    """
    opened = socket.create_connection((address, origin.port), min(deadline.seconds_left(), MAX_CONNECT_SECONDS))
    try:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if origin.scheme == b"https":
            opened.settimeout(deadline.seconds_left())
            return tls.wrap_socket(opened, server_hostname=origin.host.decode("ascii"))
    except BaseException:
        opened.close()
        raise
    return opened


def _request(method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes) -> httpcore.Request:
    host = b"[%b]" % url.host if b":" in url.host else url.host
    if url.port not in (None, _DEFAULT_PORTS[url.scheme]):
        host += b":%d" % url.port
    sent = [(b"Host", host), *((name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items())]
    if method != "GET":
        sent.append((b"Content-Length", b"%d" % len(content)))
    return httpcore.Request(method, url, headers=sent, content=content)


def failure_text(exc: Exception) -> str:
    """Returns why one of HTTP_ERRORS occurred, in words that contain no URL."""
    if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
        return "the server's certificate is not valid"
    if isinstance(exc, httpcore.ConnectError):
        return "no server answers there"
    if isinstance(exc, httpcore.ProtocolError):
        return "the answer is cut off, or is not HTTP"
    return "the server broke it off"


@contextmanager
def _httpcore_errors(timeout: type[httpcore.TimeoutException], failure: type[httpcore.NetworkError]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise timeout from exc
    except OSError as exc:
        raise failure from exc


def _decompressed(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(_GZIP)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise httpcore.RemoteProtocolError("the body is not compressed as its header says") from exc
    if len(plain) > max_bytes:
        raise ResponseTooLargeError
    if not decompressor.eof:
        raise httpcore.RemoteProtocolError("the compressed body is cut off")
    return plain


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined
