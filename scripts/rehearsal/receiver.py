"""Receives the webhooks of the deployed stack on this machine, and verifies them with the reference implementation."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

# MiniStack ignores ExcludePunctuation, so the secret that it generates is not base64.
SECRET = base64.b64encode(b"webhook secret of the rehearsal").decode()


@dataclass
class Receiver:
    """The receiver's address, the tasks of verified webhooks, and the reasons why others were refused."""

    port: int
    tasks: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The address as HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL that gets the webhooks."""
        return f"http://{self.host}/webhooks"


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Runs a receiver until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                found.tasks.add(Webhook(SECRET).verify(body, dict(self.headers.items()))["task"])
                status = 204
            except (WebhookVerificationError, ValueError) as exc:
                found.refusals.append(str(exc))
                status = 401
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
