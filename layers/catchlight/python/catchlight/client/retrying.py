"""Retries requests to the tasks API with exponential backoff."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from catchlight.client.errors import TasksApiError

Answer = TypeVar("Answer")

_FIRST_PAUSE_SECONDS = 0.4
_LONGEST_PAUSE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries temporary failures, after pauses that double or after the number of seconds in Retry-After."""

    seconds: float = 60  # limit for all attempts and pauses together
    tries: int = 6
    sleep: Callable[[float], None] = time.sleep

    def send(self, send_once: Callable[[], Answer]) -> Answer:
        """Calls `send_once` until it succeeds, and returns its result.

        Raises:
            TasksApiError: raised by the last attempt.
        """
        begun = time.monotonic()
        for number in range(self.tries - 1):
            try:
                return send_once()
            except TasksApiError as exc:
                if not exc.is_worth_another_try:
                    raise
                pause = exc.retry_after_seconds
                if pause is None:
                    # Jitter: clients that were refused together must not retry together.
                    pause = min(_FIRST_PAUSE_SECONDS * 2**number, _LONGEST_PAUSE_SECONDS)
                    pause *= random.uniform(0.5, 1)  # noqa: S311  # nosec B311
                if time.monotonic() - begun + pause > self.seconds:
                    raise
                self.sleep(pause)
        return send_once()
