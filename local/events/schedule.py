"""Runs a function on a schedule as EventBridge Scheduler does, in scaled time.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local import LocalStackError
from local.account import ACCOUNT_ID, REGION, local_arn
from local.events.event_source import EventSource
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function, TooManyRequestsError

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_UNIT_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}
# https://docs.aws.amazon.com/scheduler/latest/APIReference/API_RetryPolicy.html
DEFAULT_MAX_RETRIES = 185
RETRY_AFTER_SECONDS = 1.0


@dataclass(frozen=True)
class Schedule:
    """The settings of a schedule in the template; the defaults are EventBridge Scheduler's."""

    name: str
    function: str
    rate_seconds: float
    input: str | None = None
    max_retries: int = DEFAULT_MAX_RETRIES
    dead_letter_queue_url: str | None = None


def rate_seconds(name: str, expression: str) -> float:
    """Returns the seconds between two runs of an expression such as `rate(1 hour)`.

    Raises LocalStackError for other kinds of expressions, such as `cron(...)`.
    """
    if not (match := _RATE.fullmatch(expression)):
        raise LocalStackError(
            f"{name}: schedule {expression!r} is not supported by the local stack, which supports rate(...) only."
        )
    return float(match[1]) * _UNIT_SECONDS[match[2]]


class ScheduleSource(EventSource):
    """Invokes the function once per period, for the first time after one period.

    Results and errors of the function are ignored, as in Lambda's asynchronous invocations. If no sandbox is free, the
    invocation is retried. After the last retry its event is sent to the dead-letter queue.
    """

    def __init__(
        self,
        schedule: Schedule,
        function: Function,
        send_message: Callable[[str, str], Any],
        time_scale: float,
        logs: LogFolder,
    ) -> None:
        super().__init__(schedule.name, function, logs)
        self._schedule = schedule
        self._send_message = send_message
        self._time_scale = time_scale

    def _step(self) -> None:
        if not self._stopping.wait(self._schedule.rate_seconds * self._time_scale):
            self._invoke(self._schedule.input or json.dumps(self._event()))

    def _invoke(self, event: str) -> None:
        for _ in range(self._schedule.max_retries + 1):
            try:
                self._function.invoke(event.encode())
                return
            except TooManyRequestsError:
                if self._stopping.wait(RETRY_AFTER_SECONDS * self._time_scale):
                    return
        self._logs.error(self._name, f"no sandbox was free in {self._schedule.max_retries + 1} attempts")
        if self._schedule.dead_letter_queue_url:
            self._send_message(self._schedule.dead_letter_queue_url, event)

    def _event(self) -> dict[str, Any]:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.scheduler",
            "account": ACCOUNT_ID,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": [local_arn("scheduler", f"schedule/default/{self._schedule.name}")],
            "detail": "{}",
        }
