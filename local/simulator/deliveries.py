"""Sends callbacks as the providers do: 15 s timeout, only status 200 is a success, three retries, no redirects."""

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
from local.simulator.scenarios import PlannedCallback
from local.simulator.tasks import Delivery, SimulatedTask

MAX_RETRIES = 3
ANSWER_TIMEOUT_SECONDS = 15.0  # real seconds, never scaled
_STOP_SECONDS = 3.0


class CallbackSender:
    """Delivers each callback in its own thread and records every attempt."""

    def __init__(
        self,
        *,
        wait: Callable[[float], bool],
        wait_for_end: Callable[[SimulatedTask], bool],
        on_done: Callable[[SimulatedTask], None],
        retry_delay_seconds: float,
        webhook_keys: Mapping[str, str],
    ) -> None:
        """`wait` sleeps for simulated seconds; `wait_for_end` blocks until the task has ended.

        Both return True as soon as the simulator stops, else False. `on_done` is called with the task after each
        callback that was delivered or given up.
        """
        self._wait = wait
        self._wait_for_end = wait_for_end
        self._on_done = on_done
        self._retry_delay_seconds = retry_delay_seconds
        self._webhook_keys = webhook_keys
        self._threads: list[threading.Thread] = []
        self._deliveries: list[Delivery] = []
        # Ignores proxy settings: callbacks must not leave this machine.
        self._client = httpx.Client(
            timeout=ANSWER_TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "provider-simulator/1"},
        )

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """All attempts so far, in the order in which they ended."""
        return tuple(self._deliveries)

    @property
    def outstanding(self) -> int:
        """Number of callbacks that are planned or being delivered."""
        return sum(thread.is_alive() for thread in list(self._threads))

    def send(
        self, task: SimulatedTask, planned: PlannedCallback, *, previous: Sequence[threading.Thread] = ()
    ) -> threading.Thread:
        """Starts a thread that delivers one copy of a callback after the task's end, `previous` and its own delay."""
        thread = threading.Thread(target=self._deliver, args=(task, planned, previous), daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def stop(self) -> None:
        """Gives up undelivered callbacks and closes the HTTP client.

        The caller must first make `wait` and `wait_for_end` return.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._client.close()

    def _deliver(self, task: SimulatedTask, planned: PlannedCallback, previous: Sequence[threading.Thread]) -> None:
        stopping = self._wait_for_end(task)
        for thread in previous:
            thread.join()
        stopping = stopping or self._wait(planned.delay_seconds)
        body = payloads.callback(task, planned.outcome or task.scenario.outcome, has_task_id=planned.has_task_id)
        for attempt in range(1, MAX_RETRIES + 2):
            if stopping:
                break
            delivery = self._attempt(task, body, attempt)
            self._deliveries.append(delivery)
            if delivery.is_accepted:
                break
            stopping = attempt <= MAX_RETRIES and self._wait(self._retry_delay_seconds)
        self._on_done(task)

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
        """Returns kie.ai's two headers, which sign task id and time, not the body; none without a webhook key."""
        key = self._webhook_keys.get(task.provider)
        if key is None:
            return {}
        timestamp = str(int(time.time()))
        return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": sign(key, task.task_id, timestamp)}


def sign(key: str, task_id: str, timestamp: str) -> str:
    """Signs a callback: base64(HMAC-SHA256(key, taskId + "." + timestamp))."""
    digest = hmac.new(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()
