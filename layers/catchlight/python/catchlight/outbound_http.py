"""Sends HTTP requests to providers and image hosts, each with one deadline for the request and its whole response.

The deadline covers resolving the name, connecting, the TLS handshake, sending, and every byte of the response's head
and body. The timeouts of HTTP libraries apply to single reads: they do not end a response that arrives byte by byte.

    Exchange                 one request: its deadline, and whether any byte of it was sent
    HttpClient.send          resolve → connect (each address has a share of the deadline) → TLS → request → HttpResponse
    _IdleConnections         connections that may serve another request: no unread bytes are left in them

HTTP/1.1 itself is h11's, URLs and errors are httpcore's. httpx would parse the URL again, use proxies and .netrc of the
environment, keep cookies and log whole URLs.
"""

import select
import socket
import ssl
import time
import weakref
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock, Thread

import certifi
import h11
import httpcore

# Two SYN packets: the second is sent after one second. A host that accepts no connection by then is tried again later.
MAX_CONNECT_SECONDS = 2.0
# The least share of an address. A distant host answers in well under a second; without the minimum, a name with many
# addresses would have too little time at each of them.
MIN_SHARE_SECONDS = 1.0
# A connection that has been idle for longer may have been closed by the server or by a router on the way.
KEEPALIVE_SECONDS = 5.0
# As many as the concurrent requests of one client, of which polling has the most (`max_concurrent_polls`).
MAX_IDLE_CONNECTIONS = 100
# A router may have dropped an idle connection silently. A host answers in well under a second, also a distant one; the
# deadline of an image has 6.5 s left for a new connection.
KEPT_ANSWER_SECONDS = 1.0
# The limit of httpcore. The longest heads that image hosts send have some 10 KB.
MAX_HEAD_BYTES = 100 * 1024
# TLS returns at most 16 KB at a time. Joining four of them saves the layers above three quarters of the calls.
READ_BYTES = 64 * 1024

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


@dataclass(frozen=True, slots=True)
class _Request:
    origin: httpcore.Origin
    head: h11.Request
    content: bytes

    def encode(self, http: h11.Connection) -> bytes:
        """Returns the bytes to send."""
        events = (self.head, h11.Data(data=self.content), h11.EndOfMessage())
        return b"".join(http.send(event) or b"" for event in events)


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

    def __init__(self, status: int, headers: Mapping[str, str], body: Iterator[bytes]) -> None:
        self.status = status
        # By lower-case name; the values of a repeated header are joined with commas (RFC 9110, 5.3).
        self.headers = headers
        self._body = body

    def pieces(self) -> Iterator[bytes]:
        """Yields the body as it arrives, as the server encoded it.

        Raises:
            HTTP_ERRORS: the body is incomplete.
        """
        yield from self._body

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

    def __init__(
        self, resolve: Resolve = resolve_host, *, keeps_connections: bool = False, trusts_hosts: bool = True
    ) -> None:
        """Creates a client.

        Args:
            resolve: returns the addresses of a host. Connections are made to these addresses only.
            keeps_connections: whether a connection is used for further requests to the same origin.
            trusts_hosts: False if untrusted input names the hosts. The name is then resolved for every request, and a
                kept connection is used only if its address is among the addresses. A GET that it does not begin to
                answer within KEPT_ANSWER_SECONDS is sent again over a new connection.
        """
        self._resolve = resolve
        self._keeps_connections = keeps_connections
        self._trusts_hosts = trusts_hosts
        self._tls = tls_context()
        self._idle = _IdleConnections()
        # Closes the connections when this client is garbage-collected.
        weakref.finalize(self, self._idle.close)

    @contextmanager
    def send(
        self, method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes = b"", *, exchange: Exchange
    ) -> Iterator[HttpResponse]:
        """Sends a request and yields the response, before its body has arrived.

        Redirects are not followed, and nothing is sent twice, except for a GET as described at `trusts_hosts`.

        Raises:
            HTTP_ERRORS: no response has arrived by the exchange's deadline.
            Exception: the request cannot be sent (such as a header that HTTP does not allow), or an error of `resolve`.
        """
        if not self._keeps_connections:
            headers = {**headers, "Connection": "close"}
        connection, response = self._begin(_request(method, url, headers, content), exchange)
        try:
            yield response
        finally:
            if self._keeps_connections and connection.is_reusable():
                self._idle.put(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Closes the idle connections."""
        self._idle.close()

    def _begin(self, request: "_Request", exchange: Exchange) -> "tuple[_Connection, HttpResponse]":
        addresses = None if self._trusts_hosts else self._addresses(request.origin, exchange.deadline)
        if kept := self._idle.take(request.origin, addresses):
            is_repeatable = not self._trusts_hosts and request.head.method == b"GET"
            try:
                return kept, kept.send(request, exchange, Deadline(KEPT_ANSWER_SECONDS) if is_repeatable else None)
            except HTTP_ERRORS:
                if not kept.is_unanswered:
                    raise
                # The others have probably failed with it, and each would cost another request as much time.
                self._idle.close(request.origin)
        addresses = addresses or self._addresses(request.origin, exchange.deadline)
        connection = self._connect(request.origin, addresses, exchange.deadline)
        return connection, connection.send(request, exchange)

    def _addresses(self, origin: httpcore.Origin, deadline: Deadline) -> Sequence[str]:
        try:
            with _httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
                return _resolved(self._resolve, origin.host.decode("ascii"), origin.port, deadline)
        except BaseException:
            # No connection is kept to a host whose addresses are refused.
            self._idle.close(origin)
            raise

    def _connect(self, origin: httpcore.Origin, addresses: Sequence[str], deadline: Deadline) -> "_Connection":
        with _httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            failure = OSError("the name has no address")
            for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
                # One address that does not answer must not use up the time of the others.
                seconds = deadline.seconds_left()
                share = Deadline(min(seconds, max(seconds / left, MIN_SHARE_SECONDS)))
                try:
                    return _Connection(origin, address, _opened(address, origin, self._tls, share))
                except OSError as exc:
                    failure = exc
            raise failure


class _IdleConnections:
    """Connections without a request, the one used last at the end. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connections: list[_Connection] = []

    def put(self, connection: "_Connection") -> None:
        """Keeps a connection for KEEPALIVE_SECONDS."""
        connection.expires_at = time.monotonic() + KEEPALIVE_SECONDS
        with self._lock:
            self._connections.append(connection)
            self._close_old()

    def take(self, origin: httpcore.Origin, addresses: Collection[str] | None) -> "_Connection | None":
        """Removes and returns a connection to an origin, to one of the addresses unless they are None.

        The connection used last is the least likely to have been closed by the server.
        """
        while connection := self._pop(origin, addresses):
            if connection.is_reusable():
                return connection
            connection.close()
        return None

    def close(self, origin: httpcore.Origin | None = None) -> None:
        """Closes the connections to an origin, or to all of them."""
        with self._lock:
            for connection in self._connections[:]:
                if origin in (None, connection.origin):
                    self._connections.remove(connection)
                    connection.close()

    def _pop(self, origin: httpcore.Origin, addresses: Collection[str] | None) -> "_Connection | None":
        with self._lock:
            self._close_old()
            for connection in reversed(self._connections):
                if connection.origin == origin and (addresses is None or connection.address in addresses):
                    self._connections.remove(connection)
                    return connection
        return None

    def _close_old(self) -> None:
        """Closes connections that have expired, of all origins: no other request may come to some of them."""
        now = time.monotonic()
        while self._connections and (
            self._connections[0].expires_at < now or len(self._connections) > MAX_IDLE_CONNECTIONS
        ):
            self._connections.pop(0).close()


class _Connection:
    """A connection to one address of one origin, which serves one request at a time.

    All reads and writes end at the deadline of the current exchange.
    """

    expires_at: float  # on the monotonic clock, while the connection is idle

    def __init__(self, origin: httpcore.Origin, address: str, connected: socket.socket) -> None:
        self.origin = origin
        self.address = address
        self._socket = connected

    def send(self, request: "_Request", exchange: Exchange, answer_by: Deadline | None = None) -> HttpResponse:
        """Sends a request and returns the response. Its first byte must arrive by `answer_by`, if that is set."""
        self._exchange = exchange
        self._answer_by = answer_by  # None as soon as the first byte has arrived
        self._is_at_end = False  # the response was read completely, and nothing follows it
        self._http = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)
        try:
            message = request.encode(self._http)
            # A server may respond before it has received the whole request, and close the connection.
            with suppress(httpcore.WriteError):
                self._write(message)
            while not isinstance(head := self._next_event(), h11.Response):
                pass  # an informational response
        except BaseException:
            self.close()
            raise
        headers = _joined(head.headers)
        return HttpResponse(head.status_code, headers, self._body(head, headers))

    @property
    def is_unanswered(self) -> bool:
        """Whether `answer_by` was set, and no byte of the response has arrived."""
        return self._answer_by is not None

    def is_reusable(self) -> bool:
        """Returns whether the next byte that arrives is the first one of the next response.

        The last response was read completely, and the server has neither closed the connection nor sent anything more,
        which would be read as the response to the next request.
        """
        return self._is_at_end and not self._is_readable()

    def close(self) -> None:
        self._socket.close()

    def _body(self, head: h11.Response, headers: Mapping[str, str]) -> Iterator[bytes]:
        is_sized = "content-length" in headers and "transfer-encoding" not in headers
        left = int(headers["content-length"]) if is_sized else 0
        while isinstance(event := self._next_event(), h11.Data):
            yield bytes(event.data)
            left -= len(event.data)
            if left > 0:
                yield from self._rest_of_body(left)
                self._is_at_end = head.http_version == b"1.1" and not _has_token(headers.get("connection", ""), "close")
                return
        self._is_at_end = self._http.their_state is h11.DONE and not self._http.trailing_data[0]

    def _rest_of_body(self, left: int) -> Iterator[bytes]:
        """Yields the rest of a body of known length, after h11 has yielded all that it had received of it.

        h11 would copy each byte three times. Nothing that follows the body is read.
        """
        pieces: list[bytes] = []
        room = READ_BYTES
        try:
            with _httpcore_errors(httpcore.ReadTimeout, httpcore.ReadError):
                while left:
                    piece = self._receive(min(left, room))
                    if not piece:
                        raise httpcore.RemoteProtocolError("the server closed the connection inside the body")
                    pieces.append(piece)
                    left -= len(piece)
                    room -= len(piece)
                    if not (left and room):
                        yield b"".join(pieces)
                        pieces.clear()
                        room = READ_BYTES
        except HTTP_ERRORS:
            if pieces:
                yield b"".join(pieces)
            raise

    def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            with _h11_errors():
                event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            with _httpcore_errors(httpcore.ReadTimeout, httpcore.ReadError):
                received = self._receive(READ_BYTES)
            if not received and self._http.their_state is h11.SEND_RESPONSE:
                raise httpcore.RemoteProtocolError("the server closed the connection without a response")
            self._http.receive_data(received)

    def _receive(self, max_bytes: int) -> bytes:
        """Returns the next bytes, none if the server has closed the connection."""
        seconds = self._exchange.deadline.seconds_left()
        if self._answer_by:
            seconds = min(seconds, self._answer_by.seconds_left())
        self._socket.settimeout(seconds)
        received = self._socket.recv(max_bytes)
        if received:
            self._answer_by = None
        return received

    def _write(self, message: bytes) -> None:
        unsent = memoryview(message)
        with _httpcore_errors(httpcore.WriteTimeout, httpcore.WriteError):
            while unsent:
                self._socket.settimeout(self._exchange.deadline.seconds_left())
                self._exchange.was_sent = True
                unsent = unsent[self._socket.send(unsent) :]

    def _is_readable(self) -> bool:
        """Returns whether unread bytes, or the end of the connection, have arrived."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
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


def _request(method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes) -> _Request:
    host = b"[%b]" % url.host if b":" in url.host else url.host
    if url.port not in (None, _DEFAULT_PORTS[url.scheme]):
        host += b":%d" % url.port
    sent = [(b"Host", host), *((name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items())]
    if method != "GET":
        sent.append((b"Content-Length", b"%d" % len(content)))
    with _h11_errors():
        return _Request(url.origin, h11.Request(method=method, target=url.target, headers=sent), content)


@contextmanager
def _h11_errors() -> Iterator[None]:
    try:
        yield
    except h11.LocalProtocolError as exc:
        raise httpcore.LocalProtocolError(str(exc)) from exc
    except h11.RemoteProtocolError as exc:
        raise httpcore.RemoteProtocolError(str(exc)) from exc


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


def _has_token(value: str, token: str) -> bool:
    return token in (part.strip().lower() for part in value.split(","))
