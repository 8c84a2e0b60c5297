"""Retries requests to the tasks API with exponential backoff."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from catchlight.client.errors import TasksApiError

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.4
_LONGEST_PAUSE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries temporary failures. The pauses between attempts double, or have the length that Retry-After demands."""

    max_seconds: float = 60  # for all attempts and pauses together
    max_attempts: int = 6
    sleep: Callable[[float], None] = time.sleep

    def call(self, function: Callable[[], Result]) -> Result:
        """Calls the function until it succeeds, and returns its result.

        Raises:
            TasksApiError: raised by the last attempt.
        """
        started_at = time.monotonic()
        for number in range(self.max_attempts - 1):
            try:
                return function()
            except TasksApiError as exc:
                if not exc.is_retryable:
                    raise
                pause = exc.retry_after_seconds
                if pause is None:
                    # Jitter: clients that failed at the same time must not retry at the same time.
                    pause = min(_FIRST_PAUSE_SECONDS * 2**number, _LONGEST_PAUSE_SECONDS)
                    pause *= random.uniform(0.5, 1)  # noqa: S311  # nosec B311
                if time.monotonic() - started_at + pause > self.max_seconds:
                    raise
                self.sleep(pause)
        return function()
