"""Serves the simulated services and their images over HTTP, on one port of this machine."""

from typing import Self

from catchlight_cli.http_server import OWN_NAMES
from local.loopback import LoopbackHandler, LoopbackServer
from local.simulator import api
from local.simulator.scenarios import UNLISTED_HOST
from local.simulator.services import SimulatedServices

_MAX_BODY_BYTES = 1024 * 1024


class Simulator(SimulatedServices):
    """The simulated services with their HTTP server, as a context manager."""

    _server: "_Server | None" = None

    def start(self) -> None:
        """Starts listening on a free port of 127.0.0.1."""
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._server.start()

    def stop(self) -> None:
        """Cancels undelivered callbacks, stops listening and closes all connections. A second call does nothing."""
        super().stop()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def image_host(self) -> str:
        """Host and port of the images: `127.0.0.1:PORT`."""
        return self.url.removeprefix("http://")

    @property
    def image_hosts(self) -> list[str]:
        """Values for LocalStack's `image_hosts`. The second host is that of the scenario `unlisted-host`."""
        return [self.image_host, f"{self.image_host.replace('127.0.0.1', UNLISTED_HOST)}=unlisted"]


class _Server(LoopbackServer):
    def __init__(self, services: SimulatedServices) -> None:
        super().__init__(_Handler)
        self.services = services


class _Handler(LoopbackHandler):
    server: _Server
    names = OWN_NAMES | {UNLISTED_HOST}

    def _handle(self) -> None:
        body = self.read_body(_MAX_BODY_BYTES)
        if body is None:
            self.close_connection = True
            result = api.Response(413, b"too long\n", "text/plain")
        else:
            request = api.Request(self.command, self.path, dict(self.headers.items()), body)
            result = api.respond(self.server.services, request)
        headers = [("content-type", result.content_type)]
        if result.location is not None:
            headers.append(("location", result.location))
        self.answer(result.status, result.body, headers)

    # Method names that http.server requires.
    do_GET = do_HEAD = do_POST = _handle  # noqa: N815
