"""HTTP connections that send one request after the other, each within its own deadline.

    Exchange                 the deadline of one request, and whether any byte of it was sent
    HttpConnection.send      request → head of the response → HttpResponse, whose body is read from the connection
    IdleConnections          connections that can send another request, because they have no unread bytes

h11 implements HTTP/1.1. The classes of URLs and errors are those of httpcore.
"""

import select
import socket
import ssl
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock

import h11
import httpcore

# A connection that has been idle for longer may have been closed by the server or by a router on the way.
KEEPALIVE_SECONDS = 5.0
# The maximum number of concurrent requests of one client: polling has the most (`max_concurrent_polls`).
MAX_IDLE_CONNECTIONS = 100
# The limit of httpcore. The longest heads that image hosts send have some 10 KB.
MAX_HEAD_BYTES = 100 * 1024
# TLS returns at most 16 KB at a time. Joining four of them saves the layers above three quarters of the calls.
READ_BYTES = 64 * 1024

# Errors of the network and of HTTP. Other exceptions are errors of the request itself or of the name's resolution.
HTTP_ERRORS = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)

_DEFAULT_PORTS = {b"http": 80, b"https": 443}
_GZIP = zlib.MAX_WBITS | 16


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
    # False: the server has certainly not received any part of the request, even if an error was raised.
    was_sent: bool = False


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request that was validated by h11, and the origin that it is sent to."""

    origin: httpcore.Origin
    head: h11.Request
    content: bytes

    def encode(self, http: h11.Connection) -> bytes:
        """Returns the bytes to send."""
        events = (self.head, h11.Data(data=self.content), h11.EndOfMessage())
        return b"".join(http.send(event) or b"" for event in events)


def http_request(method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes) -> HttpRequest:
    """Creates a request with the headers Host and, unless it is a GET, Content-Length.

    Raises:
        httpcore.LocalProtocolError, UnicodeEncodeError: HTTP does not allow a header.
    """
    host = b"[%b]" % url.host if b":" in url.host else url.host
    if url.port not in (None, _DEFAULT_PORTS[url.scheme]):
        host += b":%d" % url.port
    sent = [(b"Host", host), *((name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items())]
    if method != "GET":
        sent.append((b"Content-Length", b"%d" % len(content)))
    with _h11_errors():
        return HttpRequest(url.origin, h11.Request(method=method, target=url.target, headers=sent), content)


class HttpResponse:
    """The status and headers of a response, whose body is read by `pieces` or `read`."""

    def __init__(self, status: int, headers: Mapping[str, str], body: Iterator[bytes]) -> None:
        self.status = status
        # By lower-case name; the values of a repeated header are joined with commas (RFC 9110, 5.3).
        self.headers = headers
        self._body = body

    def pieces(self) -> Iterator[bytes]:
        """Returns the parts of the body as they arrive, without decompressing them.

        Raises:
            HTTP_ERRORS: the body is incomplete.
        """
        return self._body

    def read(self, max_bytes: int) -> bytes:
        """Returns the whole body, decompressed if the server has compressed it.

        Raises:
            HTTP_ERRORS: the body is incomplete.
            ResponseTooLargeError: the body is larger than `max_bytes`.
        """
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > max_bytes:
                raise ResponseTooLargeError
        if self.headers.get("content-encoding", "").lower() == "gzip":
            return _decompressed(bytes(body), max_bytes)
        return bytes(body)


class HttpConnection:
    """A connection to one address of an origin, for one request at a time.

    All reads and writes end at the deadline of the current exchange.
    """

    expires_at: float  # on the monotonic clock, while the connection is idle

    def __init__(self, origin: httpcore.Origin, address: str, connected: socket.socket) -> None:
        self.origin = origin
        self.address = address
        self._socket = connected

    def send(self, request: HttpRequest, exchange: Exchange, first_byte_by: Deadline | None = None) -> HttpResponse:
        """Sends a request and returns the response, whose first byte must arrive by `first_byte_by`, if that is set.

        Raises:
            HTTP_ERRORS: the request failed, or the response did not arrive in time. The connection is closed.
        """
        self._exchange = exchange
        self._first_byte_by = first_byte_by  # None as soon as the first byte has arrived
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
    def awaits_first_byte(self) -> bool:
        """Whether `first_byte_by` was set, and no byte of the response has arrived."""
        return self._first_byte_by is not None

    def is_reusable(self) -> bool:
        """Returns whether the next byte that arrives is the first one of the next response.

        That is the case if the last response was read completely, and the server has neither closed the connection nor
        sent further bytes, which would be read as the response to the next request.
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
        """Yields the rest of a body of known length without h11, which would copy each byte three times.

        Called after h11 has yielded the bytes that it had received. Bytes that follow the body are not read.
        """
        pieces: list[bytes] = []
        room = READ_BYTES
        try:
            with httpcore_errors(httpcore.ReadTimeout, httpcore.ReadError):
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
            with httpcore_errors(httpcore.ReadTimeout, httpcore.ReadError):
                received = self._receive(READ_BYTES)
            if not received and self._http.their_state is h11.SEND_RESPONSE:
                raise httpcore.RemoteProtocolError("the server closed the connection without a response")
            self._http.receive_data(received)

    def _receive(self, max_bytes: int) -> bytes:
        """Waits for the next bytes and returns them; empty if the server has closed the connection."""
        seconds = self._exchange.deadline.seconds_left()
        if self._first_byte_by:
            seconds = min(seconds, self._first_byte_by.seconds_left())
        self._socket.settimeout(seconds)
        received = self._socket.recv(max_bytes)
        if received:
            self._first_byte_by = None
        return received

    def _write(self, message: bytes) -> None:
        unsent = memoryview(message)
        with httpcore_errors(httpcore.WriteTimeout, httpcore.WriteError):
            while unsent:
                self._socket.settimeout(self._exchange.deadline.seconds_left())
                self._exchange.was_sent = True
                unsent = unsent[self._socket.send(unsent) :]

    def _is_readable(self) -> bool:
        """Returns whether unread bytes have arrived, or the server has closed the connection."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


class IdleConnections:
    """Connections that wait for their next request, in the order of their last use. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connections: list[HttpConnection] = []

    def put(self, connection: HttpConnection) -> None:
        """Keeps a connection for KEEPALIVE_SECONDS."""
        connection.expires_at = time.monotonic() + KEEPALIVE_SECONDS
        with self._lock:
            self._connections.append(connection)
            self._close_old()

    def take(self, origin: httpcore.Origin, addresses: Collection[str] | None) -> HttpConnection | None:
        """Removes and returns a connection to an origin, and to one of `addresses` unless they are None.

        Returns the connection that was used last, which the server is least likely to have closed; None without one.
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

    def _pop(self, origin: httpcore.Origin, addresses: Collection[str] | None) -> HttpConnection | None:
        with self._lock:
            self._close_old()
            for connection in reversed(self._connections):
                if connection.origin == origin and (addresses is None or connection.address in addresses):
                    self._connections.remove(connection)
                    return connection
        return None

    def _close_old(self) -> None:
        """Closes expired connections to all origins: some origins may never get another request."""
        now = time.monotonic()
        while self._connections and (
            self._connections[0].expires_at < now or len(self._connections) > MAX_IDLE_CONNECTIONS
        ):
            self._connections.pop(0).close()


def failure_text(exc: Exception) -> str:
    """Returns a text without a URL that explains one of HTTP_ERRORS."""
    if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
        return "the server's certificate is not valid"
    if isinstance(exc, httpcore.ConnectError):
        return "the server cannot be reached"
    if isinstance(exc, httpcore.ProtocolError):
        return "the response is cut off, or is not HTTP"
    return "it was interrupted"


@contextmanager
def httpcore_errors(timeout: type[httpcore.TimeoutException], failure: type[httpcore.NetworkError]) -> Iterator[None]:
    """Converts errors of sockets into errors of httpcore."""
    try:
        yield
    except TimeoutError as exc:
        raise timeout from exc
    except OSError as exc:
        raise failure from exc


@contextmanager
def _h11_errors() -> Iterator[None]:
    try:
        yield
    except h11.LocalProtocolError as exc:
        raise httpcore.LocalProtocolError(str(exc)) from exc
    except h11.RemoteProtocolError as exc:
        raise httpcore.RemoteProtocolError(str(exc)) from exc


def _decompressed(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(_GZIP)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise httpcore.RemoteProtocolError("the body is not gzip, although its header says so") from exc
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
