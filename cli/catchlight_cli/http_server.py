"""The common part of the HTTP servers on this machine."""

import contextlib
import socket
import socketserver
import sys
import traceback
from typing import Any

from catchlight_cli.console import SafeConsole


class ConnectionsEndWithServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Closes kept-alive connections when the server stops: clients would otherwise keep using a stopped server."""

    daemon_threads = True

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open_connections().add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open_connections().discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Closes the connections that clients keep open."""
        for connection in list(self._open_connections()):
            with contextlib.suppress(OSError):  # the client may have closed the connection first
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Prints the kind and place of an error, and nothing of the request, whose text may control a terminal.

        A client that closes its connection is not an error.
        """
        error = sys.exception()
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"
            SafeConsole(stderr=True).print(f"a request failed: {type(error).__name__} in {where}", soft_wrap=True)

    def _open_connections(self) -> set[Any]:
        connections: set[Any] = self.__dict__.setdefault("_connections", set())
        return connections
