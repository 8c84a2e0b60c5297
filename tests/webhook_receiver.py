"""A receiver of webhooks on this machine, whose responses a test defines."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from local.loopback import LoopbackHandler, LoopbackServer


@dataclass
class Received:
    """A webhook: its headers and body."""

    headers: dict[str, str]
    body: bytes
    status: int  # of the response


@dataclass
class WebhookReceiver:
    """Records the received webhooks.

    `answers`: the statuses of the responses to successive requests with the same webhook id; then 204. None: no
    response until the receiver is closed.
    """

    url: str
    answers: Sequence[int | None] = ()
    received: list[Received] = field(default_factory=list)
    arrival: threading.Condition = field(default_factory=threading.Condition)
    closing: threading.Event = field(default_factory=threading.Event)

    def answer(self, headers: dict[str, str], body: bytes) -> int | None:
        """Records a webhook and returns the status of its response; None: no response."""
        with self.arrival:
            tries = len(self.of(headers["webhook-id"]))
            status = self.answers[tries] if tries < len(self.answers) else 204
            self.received.append(Received(headers, body, status or 0))
            self.arrival.notify_all()
        return status

    def of(self, event_id: str) -> list[Received]:
        """Returns the webhooks with this id."""
        return [each for each in self.received if each.headers["webhook-id"] == event_id]

    def wait_for(self, text: str, count: int, timeout: float = 120) -> list[Received]:
        """Waits until this many webhooks with the text in their body have arrived, and returns them."""

        def found() -> list[Received]:
            return [each for each in self.received if text.encode() in each.body]

        with self.arrival:
            is_complete = self.arrival.wait_for(lambda: len(found()) >= count, timeout)
            assert is_complete, f"{len(found())} of {count} arrived"
            return found()


@contextmanager
def webhook_receiver(answers: Sequence[int | None] = ()) -> Iterator[WebhookReceiver]:
    """Runs a receiver until the end of the block."""

    class Handler(LoopbackHandler):
        def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.answer(headers, self.rfile.read(int(headers["content-length"])))
            if status is None:
                receiver.closing.wait(120)
                self.close_connection = True
                return
            self.answer(status, b"", [])

    with LoopbackServer(Handler) as server:
        receiver = WebhookReceiver(f"http://127.0.0.1:{server.port}/catchlight", answers)
        try:
            yield receiver
        finally:
            receiver.closing.set()
