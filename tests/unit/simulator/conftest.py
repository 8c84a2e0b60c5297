"""Provides a receiver of callbacks, and a fast simulator."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from local.loopback import LoopbackHandler, LoopbackServer
from local.simulator import Delivery, SimulatedTask, Simulator


@dataclass
class Receiver:
    """Records requests, and responds with the statuses in `answers`, then with 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver()

    class Handler(LoopbackHandler):
        def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
            received.paths.append(self.path)
            received.headers.append(dict(self.headers.items()))
            received.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(received.answers.pop(0) if received.answers else 200, b"", [("Location", "/elsewhere")])

    with LoopbackServer(Handler) as server:
        received.url = f"http://127.0.0.1:{server.port}/callbacks/x/token"
        yield received


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """A simulator in which a second takes a millisecond. Tests share it: each uses its own tasks."""
    with Simulator(time_scale=0.001) as running:
        yield running


@pytest.fixture(scope="module")
def client(simulator: Simulator) -> Iterator[httpx.Client]:
    with client_of(simulator) as http:
        yield http


def client_of(simulator: Simulator) -> httpx.Client:
    """Returns a client with its own API key and user agent."""
    headers = {"Authorization": "Bearer key", "User-Agent": "catchlight/1"}
    return httpx.Client(base_url=simulator.url, headers=headers, trust_env=False)


def deliveries_of(simulator: Simulator, task: SimulatedTask) -> list[Delivery]:
    return [sent for sent in simulator.deliveries if sent.task_id == task.task_id]
