"""How long the same request is sent again."""

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
    """Sends again what is worth it, after pauses that double, or as long as the answer asks for."""

    seconds: float = 60  # for all tries and pauses together
    tries: int = 6
    sleep: Callable[[float], None] = time.sleep

    def send(self, send_once: Callable[[], Answer]) -> Answer:
        """The first answer.

        Raises:
            TasksApiError: the last try's.
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
                    # Not all at the same time, where many were refused at the same time.
                    pause = min(_FIRST_PAUSE_SECONDS * 2**number, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)  # noqa: S311
                if time.monotonic() - begun + pause > self.seconds:
                    raise
                self.sleep(pause)
        return send_once()
