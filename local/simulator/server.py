"""The HTTP side of the simulator: connections here, what is answered in `api`."""

from typing import TYPE_CHECKING

from local.http.loopback import LoopbackHandler, LoopbackServer
from local.simulator import api

if TYPE_CHECKING:
    from local.simulator.simulator import Simulator

_MAX_BODY_BYTES = 1024 * 1024


class SimulatorServer(LoopbackServer):
    """Answers for a simulator."""

    def __init__(self, simulator: "Simulator", port: int) -> None:
        """Listens at once; port 0 takes a free one."""
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

    # Names that http.server looks for.
    do_GET = do_HEAD = do_POST = _answer  # noqa: N815
