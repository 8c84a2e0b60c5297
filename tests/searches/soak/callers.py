"""Simulates users who register tasks, providers that send callbacks, and unauthorised clients.

A provider waits 15 s for the response to a callback, regards only 200 as success, and makes at most four attempts.
"""

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from local.simulator.timeline import Timeline
from tests.searches.soak.bodies import callback_body
from tests.searches.soak.plans import CallbackPlan, Cut, Registration, TaskPlan
from tests.searches.soak.reported_state import NOT_STREAMED, ReportedState

RESPONSE_TIMEOUT_SECONDS = 15.0  # real seconds, never scaled
MAX_ATTEMPTS = 4
RETRY_AFTER = 10.0
REGISTERED_LATE_AFTER = 5.0  # seconds after the task's end
# Age of a task without a stream record, in real seconds: the hourly run restarts the polling of tasks of this age.
NOT_STREAMED_AGE_SECONDS = 8 * 3600
# An invalid token with the length and alphabet of a real one.
WRONG_TOKEN = "x" * 48


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request with a callback, and the status of its response if the sender waited for it."""

    task: str
    reported: ReportedState
    fault: str
    attempt: int
    sent_at: float
    answered_at: float
    status: int | None
    cut: str | None = None
    error: str | None = None
    is_authorized: bool = True
    sha256: str | None = None  # of a truncated body

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"reported": self.reported.to_json()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Delivery":
        return cls(**document | {"reported": ReportedState.from_json(document["reported"])})


class Callers:
    """Sends the planned requests of each task at their planned times.

    Calls `on_completed(number)` when all requests of a task have been sent.
    """

    def __init__(
        self, stack: Mapping[str, Any], images_url: str, time_scale: float, on_completed: Callable[[int], None]
    ) -> None:
        """`stack` is the content of the local stack's stack.json."""
        self._callback_urls: Mapping[str, str] = stack["callback_urls"]
        self._images_url = images_url
        self._time_scale = time_scale
        self._on_completed = on_completed
        # Tracebacks of errors in the simulation; a run with any of them has a violation.
        self.errors: list[str] = []
        self._timeline = Timeline(24, on_error=self.errors.append)
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}  # number of outstanding requests by task
        self.deliveries: list[Delivery] = []
        self._table_name = stack["table"]
        self._dynamodb = boto3.Session("local", "local", region_name=stack["region"]).client(
            "dynamodb",
            endpoint_url=stack["aws_endpoint_url"],
            config=Config(proxies={}, max_pool_connections=24, retries={"total_max_attempts": 3}),
        )

    def stop(self) -> None:
        self._timeline.stop()

    def begin(self, plan: TaskPlan, ends_at: float) -> None:
        """Schedules the requests of a task that ends at this Unix time."""
        begins_at, scale = time.time(), self._time_scale
        work: list[tuple[float, Callable[[], None]]] = [
            (ends_at + after * scale, partial(self._deliver, plan, callback))
            for callback in plan.callbacks
            for after in callback.at
        ]
        if plan.registration is not Registration.NEVER:
            late = ends_at + REGISTERED_LATE_AFTER * scale
            moment = late if plan.registration is Registration.LATE else begins_at
            work.append((moment, partial(self._register, plan)))
        if plan.forgery:
            work.append((ends_at, partial(self._forge, plan, plan.forgery)))
        with self._lock:
            self._open[plan.number] = len(work)
        if not work:
            self._on_completed(plan.number)
        for moment, act in work:
            self._timeline.at(moment, act)

    def _close(self, number: int) -> None:
        with self._lock:
            self._open[number] -= 1
            is_completed = self._open[number] == 0
        if is_completed:
            self._on_completed(number)

    # ------------------------------------------------------------------------------------------------ users

    def _register(self, plan: TaskPlan) -> None:
        is_not_streamed = plan.registration is Registration.NOT_STREAMED
        registered_at = time.time() - (NOT_STREAMED_AGE_SECONDS if is_not_streamed else 0)
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(registered_at)) + ".000Z"
        item: dict[str, Any] = {
            "task": {"S": plan.task},
            "provider": {"S": plan.provider},
            "taskId": {"S": plan.task_id},
            "status": {"S": "PENDING"},
            "rank": {"N": "0"},
            "registeredAt": {"S": now},
            "updatedAt": {"S": now},
        }
        if is_not_streamed:
            item[NOT_STREAMED] = {"BOOL": True}
        # A callback may have created the item first.
        with contextlib.suppress(self._dynamodb.exceptions.ConditionalCheckFailedException):
            self._dynamodb.put_item(
                TableName=self._table_name, Item=item, ConditionExpression="attribute_not_exists(task)"
            )
        self._close(plan.number)

    # ------------------------------------------------------------------------------------------------ providers

    def _deliver(self, plan: TaskPlan, callback: CallbackPlan, attempt: int = 1) -> None:
        cut = callback.cut if attempt <= callback.cut_attempts else None
        delivery = self._send(plan, callback.reported, str(callback.fault), attempt, cut)
        if delivery.status != 200 and attempt < MAX_ATTEMPTS:
            again_at = time.time() + RETRY_AFTER * self._time_scale
            self._timeline.at(again_at, partial(self._deliver, plan, callback, attempt + 1))
        else:
            self._close(plan.number)

    def _forge(self, plan: TaskPlan, reported: ReportedState) -> None:
        self._send(plan, reported, "forged", 1, None, is_authorized=False)
        self._close(plan.number)

    def _send(
        self,
        plan: TaskPlan,
        reported: ReportedState,
        fault: str,
        attempt: int,
        cut: Cut | None,
        *,
        is_authorized: bool = True,
    ) -> Delivery:
        url = self._callback_urls[plan.provider]
        if not is_authorized:
            url = url.rpartition("/")[0] + "/" + WRONG_TOKEN
        body = json.dumps(
            callback_body(
                plan.provider, plan.task_id, reported, self._images_url, is_record_shaped=plan.is_record_shaped
            )
        ).encode()
        if cut is Cut.BODY:
            body = body[: len(body) // 2]
        sha256 = hashlib.sha256(body).hexdigest() if cut is Cut.BODY else None
        sent_at, status, error = time.time(), None, None
        try:
            status = post(url, body, cut)
        except (OSError, http.client.HTTPException) as exc:
            error = type(exc).__name__
        delivery = Delivery(
            plan.task, reported, fault, attempt, sent_at, time.time(), status, cut, error, is_authorized, sha256
        )
        self.deliveries.append(delivery)
        return delivery


def post(url: str, body: bytes, cut: Cut | None) -> int | None:
    """Sends a callback and returns the response's status; None if the sender breaks off the delivery.

    Raises:
        OSError, HTTPException: the connection failed, or no response arrived in time.
    """
    parts = urlsplit(url)
    assert parts.hostname
    if cut in (Cut.CONNECTION, Cut.RESPONSE):
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        sent = body if cut is Cut.RESPONSE else body[: len(body) // 2]
        with socket.create_connection((parts.hostname, parts.port or 80), RESPONSE_TIMEOUT_SECONDS) as stream:
            stream.sendall(head.encode() + sent)
        return None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=RESPONSE_TIMEOUT_SECONDS)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
        status: int = connection.getresponse().status
    finally:
        connection.close()
    return status
