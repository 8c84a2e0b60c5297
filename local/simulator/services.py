"""Simulates the image generation services: accepts tasks, sends callbacks, and records the requests it receives."""

import re
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any

from local.simulator.deliveries import CallbackSender
from local.simulator.scenarios import ACEDATA, APIKLEY, FLUX_KONTEXT, KIE_MARKET, NANOBANANA, find_scenario
from local.simulator.tasks import (
    MAX_RECORDED,
    Delivery,
    ImageRequest,
    Poll,
    SimulatedImage,
    SimulatedTask,
    images_of,
)

# Base path of each service. All services have the same port, so that only one image host has to be allowed.
BASE_PATHS = {
    FLUX_KONTEXT: "/kie",
    APIKLEY: "/apikley",
    NANOBANANA: "/nanobanana",
    KIE_MARKET: "/kie-market",
    ACEDATA: "/acedata",
}

ORIGIN_LIFETIME_SECONDS = 600.0
RESULT_LIFETIME_SECONDS = 14 * 86400.0

# A callback that is sent before the response to the submission delays this response by at most this time.
_MAX_RESPONSE_DELAY_SECONDS = 10.0


class SimulatedServices:
    """Accepts tasks, sends callbacks, and provides poll records and images, according to each task's scenario.

    All times are scaled: with `time_scale` 0.05, a minute takes three real seconds. Only the 15 s timeout of callback
    deliveries is not scaled.
    """

    def __init__(
        self,
        *,
        time_scale: float = 1.0,
        retry_delay_seconds: float = 10.0,
        origin_lifetime_seconds: float = ORIGIN_LIFETIME_SECONDS,
        result_lifetime_seconds: float = RESULT_LIFETIME_SECONDS,
        webhook_keys: Mapping[str, str] | None = None,
        api_keys: Mapping[str, str] | None = None,
        records_wait: bool = False,
    ) -> None:
        """Sets the options that apply to all services.

        Args:
            webhook_keys: key by provider with which callbacks are signed.
            api_keys: the only accepted key by provider; other providers accept any key.
            records_wait: polls report the end of a task that has callbacks only after the last attempt of one of them.
                Otherwise it depends on milliseconds whether a callback or a poll reports the result.
        """
        self.url = ""  # base URL of all services and images; set by the server
        self.time_scale = time_scale
        self.api_keys = dict(api_keys or {})
        self.credits = 1000.0  # of every account; tasks cost nothing
        self._lifetimes = {
            "origin": origin_lifetime_seconds * time_scale,
            "result": result_lifetime_seconds * time_scale,
        }
        self._records_wait = records_wait
        self._sender = CallbackSender(
            time_scale=time_scale,
            on_done=self._add_to_record,
            retry_delay_seconds=retry_delay_seconds,
            webhook_keys=dict(webhook_keys or {}),
        )
        self._lock = threading.Lock()
        self._tasks: dict[tuple[str, str], SimulatedTask] = {}
        self._images: dict[str, SimulatedImage] = {}
        self._polls: deque[Poll] = deque(maxlen=MAX_RECORDED)
        self._image_requests: deque[ImageRequest] = deque(maxlen=MAX_RECORDED)
        self._requests_by_path: Counter[str] = Counter()

    def stop(self) -> None:
        """Cancels undelivered callbacks."""
        self._sender.stop()

    @property
    def provider_urls(self) -> dict[str, str]:
        """Base URL of each service."""
        return {provider: self.url + path for provider, path in BASE_PATHS.items()}

    # -- tasks and images

    def submit(
        self,
        provider: str,
        *,
        scenario: str = "success",
        callback_url: str | None = None,
        params: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        image_count: int | None = None,
        record_shaped: bool = False,
    ) -> SimulatedTask:
        """Starts a task, as a submission to the service does.

        Raises:
            ValueError: this provider has no such scenario, or the task id is malformed or already in use.
        """
        found = find_scenario(scenario, provider)
        if task_id is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", task_id):
            raise ValueError("a task id is 1 to 128 letters, digits, - and _")
        task_id = task_id or (str(uuid.uuid4()) if provider == ACEDATA else uuid.uuid4().hex)
        now = time.time()
        ends_at = now + found.generation_seconds * self.time_scale
        task = SimulatedTask(
            provider=provider,
            task_id=task_id,
            scenario=found,
            callback_url=callback_url,
            params=dict(params or {}),
            record_shaped=record_shaped or found.record_shaped,
            created_at=now,
            ends_at=ends_at,
            images=images_of(
                provider,
                task_id,
                found,
                base_url=self.url,
                count=image_count or found.image_count,
                ready_at=ends_at,
                lifetimes=self._lifetimes,
            ),
            videos=tuple(f"{self.url}/videos/{provider}/{task_id}/{number}.mp4" for number in range(found.video_count)),
            is_recorded=found.is_ever_recorded and not (self._records_wait and callback_url and found.callbacks),
        )
        with self._lock:
            if (provider, task_id) in self._tasks:
                raise ValueError(f"task {task_id} already exists")
            self._tasks[provider, task_id] = task
            self._images.update({image.path: image for image in task.images})
        if callback_url:
            self._plan_callbacks(task)
        return task

    def find_task(self, provider: str, task_id: str) -> SimulatedTask | None:
        """Returns the task; None if it was not submitted."""
        return self._tasks.get((provider, task_id))

    def find_image(self, path: str) -> SimulatedImage | None:
        """Returns the image at this path of the server; None if there is none."""
        return self._images.get(path)

    def record(self, event: Poll | ImageRequest) -> None:
        """Records a poll or an image request. A poll may end a task, according to its scenario."""
        if isinstance(event, ImageRequest):
            with self._lock:
                self._image_requests.append(event)
                self._requests_by_path[event.path] += 1
            return
        ended = []
        with self._lock:
            self._polls.append(event)
            for task_id in event.task_ids:
                task = self.find_task(event.provider, task_id)
                if task is not None and event.received_at < task.ends_at:
                    task.polls_while_running += 1
                    if task.polls_while_running == task.scenario.ends_when_polled:
                        task.ends_at = event.received_at
                        ended.append(task)
        for task in ended:
            self._sender.begin(task)

    def image_requests_of(self, path: str) -> int:
        """Returns how often the image at this path was requested."""
        return self._requests_by_path[path]

    # -- recorded events

    @property
    def tasks(self) -> tuple[SimulatedTask, ...]:
        """All tasks, oldest first."""
        with self._lock:
            return tuple(self._tasks.values())

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The latest attempts to deliver callbacks."""
        return self._sender.deliveries

    @property
    def outstanding_callbacks(self) -> int:
        """Number of callbacks that are planned or being delivered."""
        return self._sender.outstanding

    @property
    def polls(self) -> tuple[Poll, ...]:
        """The latest polls."""
        return tuple(self._polls)

    @property
    def image_requests(self) -> tuple[ImageRequest, ...]:
        """The latest requests for images."""
        return tuple(self._image_requests)

    # -- internals

    def _plan_callbacks(self, task: SimulatedTask) -> None:
        sent: list[Future[None]] = []
        for planned in task.scenario.callbacks:
            sent = [self._sender.send(task, planned, previous=sent) for _ in range(planned.copies)]
        if task.scenario.callback_before_response:
            wait(sent, _MAX_RESPONSE_DELAY_SECONDS)

    def _add_to_record(self, task: SimulatedTask) -> None:
        task.is_recorded = task.scenario.is_ever_recorded
