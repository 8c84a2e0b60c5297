"""Provides HTTP servers that only this machine can reach."""

import errno
import socket
import threading
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar, Self

from catchlight_cli.http_server import (
    HOST,
    OWN_NAMES,
    ConnectionsEndWithServer,
    IdleConnectionsAreBounded,
    foreign_page,
)
from local import LocalStackError

# Connections without a request are closed after this time, so that they cannot use up threads and file descriptors.
IDLE_SECONDS = 300


def listening_socket(port: int, option: str) -> socket.socket:
    """Returns a socket that listens on the loopback address; port 0 selects a free port.

    Raises LocalStackError, naming the option that selects another port, if the port is in use or does not exist.
    """
    if not 0 <= port <= 65535:
        raise LocalStackError(f"There is no port {port}. Choose one from 0 to 65535 with {option}.")
    try:
        return socket.create_server((HOST, port), backlog=128)
    except OSError as exc:
        if exc.errno in (errno.EADDRINUSE, errno.EACCES):
            reason = "is in use" if exc.errno == errno.EADDRINUSE else "may not be opened by this user"
            raise LocalStackError(f"Port {port} {reason}. Choose another with {option}; 0 selects a free one.") from exc
        raise


class LoopbackServer(ConnectionsEndWithServer, HTTPServer):
    """A threaded HTTP server on the loopback address, listening from its construction on.

    As a context manager it serves until the end of the block.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0, option: str = "--port") -> None:
        super().__init__((HOST, port), handler, bind_and_activate=False)
        # Not server_bind(): HTTPServer resolves the host's full name by DNS, which takes seconds on some machines.
        self.socket.close()
        self.socket = listening_socket(port, option)
        self.server_address = self.socket.getsockname()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.end_connections()
        self.server_close()


class LoopbackHandler(IdleConnectionsAreBounded):
    """A request handler that keeps connections open and sends each response in one packet.

    Headers and body in two small packets trigger Nagle's algorithm and delayed acknowledgements: 40 ms per response.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout: ClassVar[float | None] = IDLE_SECONDS
    # Accepted host names in the Host header. None: any name, for a server that replaces other hosts and stores no data.
    names: ClassVar[Collection[str] | None] = OWN_NAMES

    def parse_request(self) -> bool:
        """Parses a request's headers, and refuses requests that web pages of other sites have sent."""
        if not super().parse_request():
            return False
        reason = None if self.names is None else foreign_page(self.headers.get, self.names)
        if reason is not None:
            self.close_connection = True
            self.answer(403, f"{reason}\n".encode(), [("content-type", "text/plain"), ("connection", "close")])
        return reason is None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Logs nothing: the code that handles a request writes its own log."""

    def handle_expect_100(self) -> bool:
        proceed = super().handle_expect_100()
        self.wfile.flush()  # the client waits for this before it sends the body
        return proceed

    def read_body(self, max_bytes: int) -> bytes | None:
        """Returns the whole body, or None if it is malformed or has more than `max_bytes`.

        Raises:
            ConnectionResetError: the client closed the connection within the body.
        """
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks(max_bytes)
        try:
            length = int(self.headers.get("content-length", 0))
        except ValueError:
            return None
        if 0 <= length <= max_bytes:
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionResetError("the client closed the connection within the body")
            return body
        # The body is read before it is rejected: a client that is still sending would see a broken connection instead
        # of the response.
        remaining = min(length, 10 * max_bytes)
        while remaining > 0 and (chunk := self.rfile.read(min(remaining, 65536))):
            remaining -= len(chunk)
        return None

    def _read_chunks(self, max_bytes: int) -> bytes | None:
        body = bytearray()
        try:
            while size := int(self.rfile.readline(100).partition(b";")[0], 16):
                if size < 0 or len(body) + size > max_bytes:
                    return None
                body += self.rfile.read(size)
                self.rfile.readline(10)
        except ValueError:
            return None
        while self.rfile.readline(1000).strip():
            pass  # trailers
        return bytes(body)

    def answer(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
