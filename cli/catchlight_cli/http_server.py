"""Common parts of the HTTP servers on this machine: the gallery and the servers of the local stack."""

import contextlib
import socket
import socketserver
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from catchlight_cli.console import SafeConsole

HOST = "127.0.0.1"
OWN_NAMES = frozenset({HOST, "localhost"})


def foreign_page(header: Callable[[str], str | None], names: Collection[str] = OWN_NAMES) -> str | None:
    """Returns the reason for refusing a request that a web page of another site has sent; None if it may be served.

    Every page that a browser on this machine shows can send requests to 127.0.0.1: with DNS rebinding, under the host
    name of its own site (header `Host`); otherwise from another origin (`Origin`, `Sec-Fetch-Site`). Pages cannot
    change these headers; programs such as boto3 and httpx send only `Host`.

    Args:
        header: returns the value of a request header.
        names: the host names of this server.
    """
    host = header("Host")
    if host is not None and host.partition(":")[0].lower() not in names:
        return "The Host header is not that of this server."
    if (origin := header("Origin")) is not None and origin != f"http://{host}":
        return "Requests of other origins are refused."
    # The value same-site means a page from another port of this machine.
    if (header("Sec-Fetch-Site") or "none") not in ("none", "same-origin"):
        return "Requests of other sites are refused."
    return None


class ConnectionsEndWithServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A threaded server that closes kept-alive connections at its end: their threads would serve further requests."""

    daemon_threads = True
    # Each connection has a thread and a file descriptor. macOS allows a process 256 file descriptors by default.
    max_idle_connections: ClassVar[int] = 64

    def __init__(self, *args: Any, **options: Any) -> None:
        self._has_ended = False
        self._open: set[Any] = set()
        self._idle: dict[Any, None] = {}  # in the order in which they became idle
        self._idle_lock = threading.Lock()
        super().__init__(*args, **options)

    def begin_idling(self, connection: Any) -> None:
        """Records that a connection is idle; closes the longest idle ones beyond `max_idle_connections`."""
        with self._idle_lock:
            self._idle[connection] = None
            surplus = list(self._idle)[: -self.max_idle_connections]
            for other in surplus:
                del self._idle[other]
        for other in surplus:
            _shut_down(other)

    def end_idling(self, connection: Any) -> None:
        """Records that a connection has sent the headers of a request, or was closed."""
        with self._idle_lock:
            self._idle.pop(connection, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        self.end_idling(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Closes all connections. Requests that are still processed fail without a message."""
        self._has_ended = True
        for connection in list(self._open):
            _shut_down(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Prints the type and the source line of an error, but no text of the request, which is untrusted.

        Errors of closed connections and timeouts are not printed, nor any error after `end_connections`.
        """
        error = sys.exception()
        if error is not None and not self._has_ended and not isinstance(error, (ConnectionError, TimeoutError)):
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"
            SafeConsole(stderr=True).print(f"a request failed: {type(error).__name__} in {where}", soft_wrap=True)


class IdleConnectionsAreBounded(BaseHTTPRequestHandler):
    """A request handler that reports to its server whether its connection is idle.

    A connection is idle until the headers of its next request are complete.
    """

    server: ConnectionsEndWithServer

    def handle_one_request(self) -> None:
        """Handles one request of the connection."""
        self.server.begin_idling(self.connection)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Parses a request's headers."""
        is_request = super().parse_request()
        self.server.end_idling(self.connection)
        return is_request


def _shut_down(connection: Any) -> None:
    with contextlib.suppress(OSError):  # the client may have closed the connection first
        connection.shutdown(socket.SHUT_RDWR)
