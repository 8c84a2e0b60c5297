"""Serves the gallery over HTTP to the user's browser on this machine only.

The server reads tasks and images, and carries out actions on tasks, with the AWS credentials of the user who started
it. Therefore it listens on 127.0.0.1 only, and its URL contains a secret that other users of the machine do not know.
It refuses requests with the Host header of another server (with DNS rebinding, the host name of another site resolves
to 127.0.0.1) and requests from other pages. The Origin header of a POST must be that of this server.
"""

import hmac
import secrets
import sys
import threading
from http import HTTPStatus
from http.server import HTTPServer
from socketserver import TCPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx

from catchlight.client import TasksApiError, TasksClient
from catchlight.client.errors import CatchlightError
from catchlight_cli.gallery.actions import TaskActions
from catchlight_cli.gallery.site import GallerySite, Response
from catchlight_cli.gallery.stack_reader import StackReader
from catchlight_cli.gallery.thumbnails import Thumbnails
from catchlight_cli.http_server import (
    HOST,
    OWN_NAMES,
    ConnectionsEndWithServer,
    IdleConnectionsAreBounded,
    foreign_page,
)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class GalleryServer:
    """Serves the gallery of a tasks API at `url`.

    Args:
        api: the client of the tasks API.
        port: the port on 127.0.0.1; 0 selects a free port.
        actions: the actions on tasks; None: the gallery is read-only.
        thumbnails: the thumbnails; None: the page loads whole images.
        reader: reads counts and deliveries; None: the page shows none.

    Raises:
        CatchlightError: the port is in use or not allowed.
    """

    def __init__(
        self,
        api: TasksClient,
        *,
        port: int = 0,
        actions: TaskActions | None = None,
        thumbnails: Thumbnails | None = None,
        reader: StackReader | None = None,
    ) -> None:
        self._server = _Server(GallerySite(api, actions, thumbnails, reader), port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="gallery", daemon=True)

    @property
    def url(self) -> str:
        """URL of the gallery, which contains the secret."""
        return f"http://{HOST}:{self._server.server_port}/{self._server.secret}/"

    def start(self) -> None:
        """Starts the server in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the server and closes all connections; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.end_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ConnectionsEndWithServer, HTTPServer):
    request_queue_size = 64
    # Connections of an earlier server in TIME_WAIT must not block the port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, site: GallerySite, port: int) -> None:
        self.site = site
        self.secret = secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as exc:
            raise CatchlightError(f"Port {port} is not available ({exc}). Choose another one with --port.") from exc

    def server_bind(self) -> None:
        """Binds the port without the DNS lookup of this machine's name that HTTPServer makes."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])


class _Handler(IdleConnectionsAreBounded):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered, to send headers and a short body in one packet
    timeout = 60  # seconds, of an idle connection that a browser keeps open

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        url = urlsplit(self.path)
        secret, _, path = url.path.lstrip("/").partition("/")
        if self._is_permitted(secret) and self._is_from_the_gallery(path):
            self._send(self.server.site.respond(path, dict(parse_qsl(url.query))))

    def do_POST(self) -> None:  # noqa: N802
        self.close_connection = True  # a body of the request would not be read: actions have none
        secret, _, path = urlsplit(self.path).path.lstrip("/").partition("/")
        if not self._is_permitted(secret):
            return
        # Browsers send the header Origin with every POST, and pages cannot change it.
        reason = foreign_page(self.headers.get) or (
            None if self.headers.get("Origin") else "A POST needs the header Origin."
        )
        if reason:
            self._refuse(HTTPStatus.FORBIDDEN, reason)
        else:
            self._send(self.server.site.act(path))

    def _is_permitted(self, secret: str) -> bool:
        """Refuses a request with a wrong Host header or without the secret. Returns whether it is permitted."""
        if self.headers.get("Host") not in {f"{name}:{self.server.server_port}" for name in OWN_NAMES}:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "The Host header is not that of this gallery.")
        elif not hmac.compare_digest(secret.encode(), self.server.secret.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "Open the complete URL that `catchlight gallery` prints.")
        else:
            return True
        return False

    def _refuse_method(self) -> None:
        self.close_connection = True  # the request's body is not read
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "The gallery supports only GET and POST.")

    # Method names that http.server requires.
    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Logs nothing: a request log would contain the secret URL and task ids."""

    def _is_from_the_gallery(self, path: str) -> bool:
        # Browsers send Sec-Fetch-Site with the relation of the requesting page to this server; other clients omit it.
        site = self.headers.get("Sec-Fetch-Site", "none")
        is_navigation = path == "" and self.headers.get("Sec-Fetch-Dest") == "document"
        if site in ("same-origin", "none") or is_navigation:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "Requests from other pages are refused.")
        return False

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        content = f"{reason}\n".encode()
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": "default-src 'none'"}
        self._send(Response(status, headers, [content], len(content)))

    def _send(self, response: Response) -> None:
        with response.release:
            self.send_response_only(response.status)
            for name, value in (_HEADERS | response.headers).items():
                self.send_header(name, value)
            if response.status is HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET, POST")
            if response.length is None:
                self.close_connection = True
            else:
                self.send_header("Content-Length", str(response.length))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                for chunk in response.body:
                    self.wfile.write(chunk)
                self.wfile.flush()
            except (TasksApiError, httpx.RequestError):
                # The status is sent already: closing the connection early marks the body as incomplete.
                self.close_connection = True
