"""Waits until a condition is true."""

import time
from collections.abc import Callable
from typing import Any

# Long, because the machine may be busy. A test that succeeds does not wait for it.
TIMEOUT_SECONDS = 300


def eventually(condition: Callable[[], Any], seconds: float = TIMEOUT_SECONDS) -> Any:
    """Waits until the condition is true, and returns its value.

    The pause between two checks is ten times as long as a check, and 10 to 500 ms: checks that send requests must not
    delay what they wait for.
    """
    deadline = time.monotonic() + seconds
    while True:
        started_at = time.monotonic()
        if value := condition():
            return value
        ended_at = time.monotonic()
        assert ended_at < deadline, f"the condition did not become true within {seconds:g} s"
        time.sleep(min(max(0.01, 10 * (ended_at - started_at)), 0.5))
