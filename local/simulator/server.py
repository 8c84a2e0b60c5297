"""Serves the simulator over HTTP; `api` makes the answers."""

from typing import TYPE_CHECKING

from local.http.loopback import LoopbackHandler, LoopbackServer
from local.simulator import api

if TYPE_CHECKING:
    from local.simulator.simulator import Simulator

_MAX_BODY_BYTES = 1024 * 1024


class SimulatorServer(LoopbackServer):
    """Passes HTTP requests to a simulator's API."""

    def __init__(self, simulator: "Simulator", port: int) -> None:
        """Binds the port at once; port 0 takes a free port."""
        self.simulator = simulator
        super().__init__(_Handler, port, option="the simulator's port")


class _Handler(LoopbackHandler):
    server: SimulatorServer

    def _answer(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self.close_connection = True
            result = api.Answer(413, b"too long\n", "text/plain")
        else:
            request = api.Request(self.command, self.path, dict(self.headers.items()), self.rfile.read(int(length)))
            result = api.answer(self.server.simulator, request)
        self.answer(result.status, result.body, [("content-type", result.content_type)])

    # Method names that http.server requires.
    do_GET = do_HEAD = do_POST = _answer  # noqa: N815
