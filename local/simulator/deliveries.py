"""Sends callbacks as the providers do: 15 s timeout, success only with status 200, three retries, no redirects."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import httpx

from catchlight_cli.console import SafeConsole
from local.simulator import payloads
from local.simulator.scenarios import PlannedCallback
from local.simulator.tasks import MAX_RECORDED, Delivery, SimulatedTask
from local.simulator.timeline import Timeline

MAX_RETRIES = 3
RESPONSE_TIMEOUT_SECONDS = 15.0  # real seconds, never scaled
# Maximum number of concurrent deliveries. A receiver that does not respond occupies a thread for 15 s.
MAX_SENDERS = 32


class CallbackSender:
    """Delivers callbacks at scheduled times, in a few threads, and records every attempt."""

    def __init__(
        self,
        *,
        time_scale: float,
        on_done: Callable[[SimulatedTask], None],
        retry_delay_seconds: float,
        webhook_keys: Mapping[str, str],
    ) -> None:
        """`on_done` is called with the task after the last attempt of each callback."""
        self._time_scale = time_scale
        self._on_done = on_done
        self._retry_delay_seconds = retry_delay_seconds
        self._webhook_keys = webhook_keys
        self._lock = threading.Lock()
        self._outstanding = 0
        # Functions that begin deliveries, by provider and task id, until the task has ended.
        self._waiting: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._deliveries: deque[Delivery] = deque(maxlen=MAX_RECORDED)
        # Ignores proxy settings: callbacks must not leave this machine.
        self._client = httpx.Client(
            timeout=RESPONSE_TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "provider-simulator/1"},
        )
        self._timeline = Timeline(MAX_SENDERS, on_error=SafeConsole(stderr=True).print)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The latest attempts, in the order in which they ended."""
        return tuple(self._deliveries)

    @property
    def outstanding(self) -> int:
        """Number of callbacks that are planned or being delivered."""
        return self._outstanding

    def send(
        self, task: SimulatedTask, planned: PlannedCallback, *, previous: Sequence[Future[None]] = ()
    ) -> Future[None]:
        """Delivers one copy of a callback, when the task has ended, `previous` are done and its delay has passed.

        The returned future is done after the last attempt.
        """
        done: Future[None] = Future()
        with self._lock:
            self._outstanding += 1
            begin = partial(self._begin, task, planned, previous, done)
            self._waiting.setdefault((task.provider, task.task_id), []).append(begin)
        self._timeline.at(task.ends_at, partial(self.begin, task))
        return done

    def begin(self, task: SimulatedTask) -> None:
        """Begins the deliveries that wait for the end of this task, which has ended."""
        with self._lock:
            waiting = self._waiting.pop((task.provider, task.task_id), [])
        for begin in waiting:
            begin()

    def stop(self) -> None:
        """Cancels undelivered callbacks and closes the HTTP client."""
        self._timeline.stop(wait=False)
        self._client.close()

    def _begin(
        self, task: SimulatedTask, planned: PlannedCallback, previous: Sequence[Future[None]], done: Future[None]
    ) -> None:
        if unfinished := next((other for other in previous if not other.done()), None):
            unfinished.add_done_callback(lambda _: self._begin(task, planned, previous, done))
            return
        body = payloads.callback(task, planned.outcome or task.scenario.outcome, has_task_id=planned.has_task_id)
        self._after(planned.delay_seconds, partial(self._deliver, task, body, done, 1))

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        self._timeline.at(time.time() + seconds * self._time_scale, work)

    def _deliver(self, task: SimulatedTask, body: Mapping[str, Any], done: Future[None], attempt: int) -> None:
        delivery = self._attempt(task, body, attempt)
        self._deliveries.append(delivery)
        if not delivery.is_accepted and attempt <= MAX_RETRIES:
            self._after(self._retry_delay_seconds, partial(self._deliver, task, body, done, attempt + 1))
            return
        self._on_done(task)
        with self._lock:
            self._outstanding -= 1
        done.set_result(None)

    def _attempt(self, task: SimulatedTask, body: Mapping[str, Any], attempt: int) -> Delivery:
        assert task.callback_url is not None
        headers = {"Content-Type": "application/json", **self._signature(task)}
        sent_at, begun = time.time(), time.monotonic()
        status: int | None = None
        error: str | None = None
        try:
            status = self._client.post(task.callback_url, content=json.dumps(body), headers=headers).status_code
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as exc:  # RuntimeError: the client is closed
            error = f"{type(exc).__name__}: {exc}"
        seconds = time.monotonic() - begun
        return Delivery(
            task.provider, task.task_id, attempt, task.callback_url, headers, body, sent_at, seconds, status, error
        )

    def _signature(self, task: SimulatedTask) -> dict[str, str]:
        """Returns kie.ai's two headers, which sign task id and time, but not the body. Empty without a webhook key."""
        key = self._webhook_keys.get(task.provider)
        if key is None:
            return {}
        timestamp = str(int(time.time()))
        return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": sign(key, task.task_id, timestamp)}


def sign(key: str, task_id: str, timestamp: str) -> str:
    """Signs a callback: base64(HMAC-SHA256(key, taskId + "." + timestamp))."""
    digest = hmac.new(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()
