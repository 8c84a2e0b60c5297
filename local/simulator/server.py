"""The HTTP side of the simulator: sockets here, what is answered in `api`."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from local.simulator import api

if TYPE_CHECKING:
    from local.simulator.simulator import Simulator

_MAX_BODY_BYTES = 1024 * 1024


class SimulatorServer:
    """A threaded server on 127.0.0.1 that leaves nothing open when it stops."""

    def __init__(self, simulator: "Simulator", port: int) -> None:
        """Binds at once; port 0 takes a free one."""
        self._http = _Server(simulator, port)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="simulator", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._http.server_address[1])

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close every connection. A second call does nothing."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.close_connections()
            self._http.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # five, the default, refuses a burst
    daemon_threads = False  # stop() closes their connections and waits for them

    def __init__(self, simulator: "Simulator", port: int) -> None:
        self.simulator = simulator
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def track(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def close_connections(self) -> None:
        """Wakes the threads that wait for another request on a connection that is kept alive."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # closed by the other side already
                    continue

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for head and body
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.server.track(self.connection)

    def finish(self) -> None:
        self.server.forget(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= _MAX_BODY_BYTES:
            self.close_connection = True
            answer = api.Answer(413, b"too long\n", "text/plain")
        else:
            request = api.Request(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
            answer = api.answer(self.server.simulator, request)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()

    def version_string(self) -> str:
        return "provider-simulator"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Nothing: what was asked is recorded by the simulator."""
