"""Sends callbacks as the providers do: 15 s to answer, only 200 is success, three more tries, no redirects."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from local.simulator import payloads
from local.simulator.scripts import PlannedCallback
from local.simulator.tasks import Delivery, SimulatedTask

MAX_RETRIES = 3
ANSWER_TIMEOUT_SECONDS = 15.0  # real ones, never scaled
_STOP_SECONDS = 3.0


class CallbackSender:
    """Delivers each callback in a thread of its own and keeps a record of every attempt."""

    def __init__(
        self,
        *,
        wait: Callable[[float], bool],
        wait_for_end: Callable[[SimulatedTask], bool],
        on_through: Callable[[SimulatedTask], None],
        retry_delay_seconds: float,
        webhook_keys: Mapping[str, str],
    ) -> None:
        """`wait` sleeps simulated seconds, `wait_for_end` until the task has ended.

        Both return True, and early, once the simulator stops. `on_through` hears of each callback that was delivered
        or given up.
        """
        self._wait = wait
        self._wait_for_end = wait_for_end
        self._on_through = on_through
        self._retry_delay_seconds = retry_delay_seconds
        self._webhook_keys = webhook_keys
        self._threads: list[threading.Thread] = []
        self._deliveries: list[Delivery] = []
        # No proxy of the environment: callbacks stay on this machine.
        self._client = httpx.Client(
            timeout=ANSWER_TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "provider-simulator/1"},
        )

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Every attempt so far, in the order in which they ended."""
        return tuple(self._deliveries)

    @property
    def outstanding(self) -> int:
        """Callbacks that are still to come or under way."""
        return sum(thread.is_alive() for thread in list(self._threads))

    def send(
        self, task: SimulatedTask, planned: PlannedCallback, *, previous: Sequence[threading.Thread] = ()
    ) -> threading.Thread:
        """Deliver a copy of it once the task has ended, the previous callbacks are through, and its delay is over."""
        thread = threading.Thread(target=self._deliver, args=(task, planned, previous), daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def stop(self) -> None:
        """Give up what has not been delivered. `wait` must have been told before."""
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._client.close()

    def _deliver(self, task: SimulatedTask, planned: PlannedCallback, previous: Sequence[threading.Thread]) -> None:
        stopping = self._wait_for_end(task)
        for thread in previous:
            thread.join()
        stopping = stopping or self._wait(planned.delay_seconds)
        body = payloads.callback(task, planned.outcome or task.script.outcome, tells_task_id=planned.tells_task_id)
        for attempt in range(1, MAX_RETRIES + 2):
            if stopping:
                break
            delivery = self._attempt(task, body, attempt)
            self._deliveries.append(delivery)
            if delivery.taken:
                break
            stopping = attempt <= MAX_RETRIES and self._wait(self._retry_delay_seconds)
        self._on_through(task)

    def _attempt(self, task: SimulatedTask, body: Mapping[str, Any], attempt: int) -> Delivery:
        assert task.callback_url is not None
        headers = {"Content-Type": "application/json", **self._signature(task)}
        sent_at, begun = time.time(), time.monotonic()
        status: int | None = None
        error: str | None = None
        try:
            status = self._client.post(task.callback_url, content=json.dumps(body), headers=headers).status_code
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as exc:  # RuntimeError: closed while it waited
            error = f"{type(exc).__name__}: {exc}"
        seconds = time.monotonic() - begun
        return Delivery(
            task.provider, task.task_id, attempt, task.callback_url, headers, body, sent_at, seconds, status, error
        )

    def _signature(self, task: SimulatedTask) -> dict[str, str]:
        """kie.ai's two headers, once the account has a webhook key. They cover id and time, not the body."""
        key = self._webhook_keys.get(task.provider)
        if key is None:
            return {}
        timestamp = str(int(time.time()))
        return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": sign(key, task.task_id, timestamp)}


def sign(key: str, task_id: str, timestamp: str) -> str:
    """base64(HMAC-SHA256(key, taskId + "." + timestamp))."""
    digest = hmac.new(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()
