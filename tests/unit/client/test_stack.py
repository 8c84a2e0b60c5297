"""The boto3 clients of a stack, which several threads of the gallery and of commands use."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from tests.stacks import a_stack

_THREADS = 8


class SlowSession:
    """Creates clients as slowly as boto3 does, and counts them."""

    def __init__(self) -> None:
        self.created: list[str] = []

    def client(self, service: str, **_: Any) -> object:
        self.created.append(service)
        time.sleep(0.05)
        return object()


def test_threads_that_request_a_client_at_the_same_time_get_the_same_one() -> None:
    session = SlowSession()
    stack = a_stack(session)
    start = Barrier(_THREADS)

    def request(_: int) -> object:
        start.wait()
        return stack.client("dynamodb")

    with ThreadPoolExecutor(_THREADS) as pool:
        clients = set(pool.map(request, range(_THREADS)))

    assert (len(clients), session.created) == (1, ["dynamodb"])
