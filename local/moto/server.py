"""Runs moto's server, which provides the AWS services of the local stack, in this process on the loopback address."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from botocore.config import Config
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server import werkzeug_app
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.datastructures import EnvironHeaders
from werkzeug.serving import ThreadedWSGIServer

from catchlight.client.loopback_session import NO_PROXIES, loopback_session
from catchlight_cli.http_server import HOST, ConnectionsEndWithServer, IdleConnectionsAreBounded, foreign_page
from local.account import REGION
from local.loopback import IDLE_SECONDS, listening_socket
from local.moto import fast_paths

Middleware = Callable[[WSGIApplication], WSGIApplication]


class _Handler(IdleConnectionsAreBounded, MotoRequestHandler):  # type: ignore[misc]
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS

    def log_request(self, *args: Any, **kwargs: Any) -> None:
        """Logs nothing: a line per request would fill the terminal."""


class _Dispatcher(DomainDispatcherApplication):  # type: ignore[misc]
    """Caches the backend of each host. moto itself searches folders and hundreds of patterns for it at each request."""

    def __init__(self) -> None:
        # Otherwise moto would allow web pages of every origin to read its responses.
        werkzeug_app.DISABLE_GLOBAL_CORS = True
        super().__init__(create_backend_app)
        self._backends: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._backends:
            self._backends[host] = super().get_backend_for_host(host)
        return self._backends[host]


def _refusing_web_pages(application: WSGIApplication) -> WSGIApplication:
    """Wraps an application: refuses requests of other sites' web pages, and requests to moto's own API.

    moto's own API can delete all data, and record and replay requests.
    """

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reason = foreign_page(EnvironHeaders(environ).get)
        if reason is None and environ["PATH_INFO"].lstrip("/").lower().startswith("moto-api"):
            reason = "The API of moto itself is not served."
        if reason is None:
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [f"{reason}\n".encode()]

    return respond


class _Server(ConnectionsEndWithServer, ThreadedWSGIServer):
    # The AWS clients of each sandbox keep connections open.
    max_idle_connections = 256


class MotoServer:
    """Runs moto at an endpoint URL. Its state belongs to the process, so only one can run at a time.

    `middleware` wraps moto's application: it can record requests, inject faults or respond itself.
    """

    def __init__(self, port: int = 0, middleware: Middleware | None = None) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        with listening_socket(port, "--aws-port") as listener:
            application: WSGIApplication = _Dispatcher()
            if middleware is not None:
                application = middleware(application)
            application = _refusing_web_pages(application)
            self._server = _Server(HOST, 0, application, _Handler, fd=listener.fileno())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._session: Any = loopback_session(REGION)
        self._clients: dict[str, Any] = {}
        self._clients_lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.port}"

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        fast_paths.install()
        reset()
        self._thread.start()

    def stop(self) -> None:
        for client in self._clients.values():
            client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        reset()

    def client(self, service: str) -> Any:
        """Returns a boto3 client for this endpoint; each service has one client."""
        with self._clients_lock:
            if service not in self._clients:
                # A function may run for 15 minutes. By default, boto3 would retry its invocation after one minute.
                config = Config(read_timeout=900, retries={"total_max_attempts": 1}, max_pool_connections=50)
                self._clients[service] = self._session.client(
                    service, endpoint_url=self.url, config=config.merge(NO_PROXIES)
                )
            return self._clients[service]


def reset() -> None:
    """Deletes everything that moto has stored."""
    moto_api_backend.reset()
