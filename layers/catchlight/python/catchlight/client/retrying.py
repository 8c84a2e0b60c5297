"""Retries requests to the tasks API with exponential backoff."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from catchlight.client.errors import TasksApiError

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.4
_LONGEST_PAUSE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries temporary failures. Pauses between attempts double, or have the length of the response's Retry-After."""

    max_seconds: float = 60  # for all attempts and pauses together
    max_attempts: int = 6
    sleep: Callable[[float], None] = time.sleep  # of TasksClient
    async_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep  # of AsyncTasksClient

    def call(self, function: Callable[[], Result]) -> Result:
        """Calls the function until it succeeds, and returns its result.

        Raises:
            TasksApiError: raised by the last attempt.
        """
        attempts = Attempts(self)
        while True:
            try:
                return function()
            except TasksApiError as exc:
                pause = attempts.pause_after(exc)
            self.sleep(pause)


class Attempts:
    """Counts the failed attempts of one request."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failed = 0
        self._started_at = time.monotonic()

    def pause_after(self, error: TasksApiError) -> float:
        """Returns the seconds until the next attempt.

        Raises:
            TasksApiError: `error` itself, if there is no further attempt.
        """
        self._failed += 1
        if not error.is_retryable or self._failed >= self._policy.max_attempts:
            raise error
        pause = error.retry_after_seconds
        if pause is None:
            # Jitter: clients that failed at the same time must not retry at the same time.
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** (self._failed - 1), _LONGEST_PAUSE_SECONDS)
            pause *= random.uniform(0.5, 1)  # noqa: S311  # nosec B311
        if time.monotonic() - self._started_at + pause > self._policy.max_seconds:
            raise error
        return pause
