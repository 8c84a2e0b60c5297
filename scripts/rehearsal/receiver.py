"""Receives the webhooks of the deployed stack on this machine, and verifies them with the reference implementation."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from local.loopback import LoopbackHandler, LoopbackServer

# MiniStack ignores ExcludePunctuation, so the secret that it generates is not base64.
SECRET = base64.b64encode(b"webhook secret of the rehearsal").decode()
_MAX_BYTES = 256 * 1024  # the maximum size of an SQS message


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
        """The URL for the parameter WebhookUrl."""
        return f"http://{self.host}/webhooks"


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Runs a receiver until the end of the block."""

    class Handler(LoopbackHandler):
        def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
            body = self.read_body(_MAX_BYTES) or b""
            try:
                found.tasks.add(Webhook(SECRET).verify(body, dict(self.headers.items()))["task"])
                status = 204
            except (WebhookVerificationError, ValueError) as exc:
                found.refusals.append(str(exc))
                status = 401
            self.answer(status, b"", [])

    with LoopbackServer(Handler) as server:
        found = Receiver(server.port)
        yield found
