"""Simulates the image services of a soak test behind one port: answers polls and serves images by each task's plan."""

import contextlib
import json
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from catchlight_cli.http_server import HOST
from local.loopback import LoopbackHandler, LoopbackServer
from tests.searches.soak import bodies
from tests.searches.soak.images import PAGE, image_bytes
from tests.searches.soak.plans import ACEDATA, FLUX_KONTEXT, NANOBANANA, ImageFate, ImagePlan, PollFault, TaskPlan
from tests.searches.soak.reported_state import RUNNING, ReportedState

PATHS = {FLUX_KONTEXT: "/kie", NANOBANANA: "/nanobanana", ACEDATA: "/acedata"}
SLOW_POLL_SECONDS = 0.7
SLOW_IMAGE_SECONDS = 0.5
# These faults concern one task, the others the whole request.
_OF_THE_TASK = {PollFault.UNKNOWN, PollFault.LAGGING}


class _Task:
    def __init__(self, plan: TaskPlan, ends_at: float) -> None:
        self.plan = plan
        self.ends_at = ends_at
        self.poll_faults = deque(plan.poll_faults)
        self.has_dead_urls = False  # an expired URL was requested: the next poll returns fresh ones


class Provider:
    """All simulated services, with records of their reports and image requests.

    `said[task, reported]` is the time at which a poll first received this report; `image_requests` counts by path.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._images: dict[str, ImagePlan] = {}
        self._lock = threading.Lock()
        self.said: dict[tuple[str, ReportedState], float] = {}
        self.image_requests: Counter[str] = Counter()
        self.polls: Counter[str] = Counter()  # by result of the request
        self.is_out = False  # every request is answered with an error
        self.is_back = False  # polls about tasks whose service is out are answered again
        self._server = _Server(self)

    @property
    def url(self) -> str:
        return f"http://{self.image_host}"

    @property
    def image_host(self) -> str:
        return f"{HOST}:{self._server.port}"

    @property
    def base_urls(self) -> dict[str, str]:
        """Base URLs for polls, by provider."""
        return {provider: self.url + path for provider, path in PATHS.items()}

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def create(self, plan: TaskPlan, ends_at: float) -> None:
        """Adds a task that ends at this moment of the wall clock."""
        with self._lock:
            self._tasks[plan.task_id] = _Task(plan, ends_at)
            self._images.update({image.path: image for image in plan.images})

    # ------------------------------------------------------------------------------------------------ polls

    def next_fault(self, task_ids: Sequence[str]) -> PollFault | None:
        """Returns the next fault for a poll of these tasks as a whole, or None."""
        with self._lock:
            for task_id in task_ids:
                task = self._tasks.get(task_id)
                if task and task.plan.is_service_out and not self.is_back:
                    return PollFault.ERROR
                if task and task.poll_faults and task.poll_faults[0] not in _OF_THE_TASK:
                    return task.poll_faults.popleft()
        return None

    def answer(self, task_id: str) -> tuple[ReportedState, list[str]] | None:
        """Returns the report about a task and its images' URLs, or None if the task is not known (yet)."""
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None:
                return None
            fault = task.poll_faults.popleft() if task.poll_faults and task.poll_faults[0] in _OF_THE_TASK else None
            is_running = fault is not None or time.time() < task.ends_at
            says = RUNNING if is_running else task.plan.truth
            self.said.setdefault((task.plan.task, says), time.time())
            if fault is PollFault.UNKNOWN:
                return None
            fresh = "?fresh=1" if task.has_dead_urls else ""
            stale = {image.path for image in task.plan.images if image.fate is ImageFate.STALE}
            return says, [self.url + path + (fresh if path in stale else "") for path in says.paths]

    # ------------------------------------------------------------------------------------------------ images

    def image(self, path: str, *, is_fresh: bool) -> tuple[ImageFate, ImagePlan | None]:
        """Returns the image at a path and the fault for this request."""
        with self._lock:
            self.image_requests[path] += 1
            plan = self._images.get(path)
            if plan is None:
                return ImageFate.GONE, None
            if plan.fate is ImageFate.STALE:
                if is_fresh:
                    return ImageFate.FINE, plan
                self._tasks[path.split("/")[3]].has_dead_urls = True
                return ImageFate.GONE, plan
            if plan.fate in (ImageFate.GONE, ImageFate.PAGE, ImageFate.SLOW):
                return plan.fate, plan
            return plan.fate if self.image_requests[path] <= plan.troubles else ImageFate.FINE, plan


class _Server(LoopbackServer):
    def __init__(self, provider: Provider) -> None:
        super().__init__(_Handler)
        self.provider = provider


class _Handler(LoopbackHandler):
    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        split = urlsplit(self.path)
        if self._provider.is_out:
            self._provider.polls["out"] += not split.path.startswith("/images/")
            self.answer(503, b"out of order", [])
        elif split.path.startswith("/images/"):
            self._serve_image(split.path, is_fresh=bool(split.query))
        elif "taskId" in (query := parse_qs(split.query)):
            provider = FLUX_KONTEXT if split.path.startswith(PATHS[FLUX_KONTEXT]) else NANOBANANA
            self._answer_poll(provider, query["taskId"])
        else:
            self._provider.image_requests[split.path] += 1
            self.answer(404, b"not found", [])

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(length := int(self.headers.get("content-length", 0)))
        if len(body) < length:  # the polling function was killed meanwhile
            self.close_connection = True
            return
        if self._provider.is_out:
            self._provider.polls["out"] += 1
            self.answer(503, b"out of order", [])
            return
        try:
            asked = json.loads(body)
            task_ids = asked.get("ids") or [asked["id"]]
        except (ValueError, LookupError, AttributeError):  # a stranger's request
            self.answer(400, b"not a poll", [])
            return
        self._answer_poll(ACEDATA, task_ids, is_batch="ids" in asked)

    @property
    def _provider(self) -> Provider:
        return cast("_Server", self.server).provider

    def _answer_poll(self, provider: str, task_ids: Sequence[str], *, is_batch: bool = False) -> None:
        fault = self._provider.next_fault(task_ids)
        self._provider.polls[fault or "answered"] += 1
        match fault:
            case PollFault.ERROR:
                return self._json({"code": 500, "msg": "failed", "data": None}, status=500)
            case PollFault.BUSY if provider == ACEDATA:
                return self._json({"error": {"code": "too_many_requests", "message": "later"}}, status=429)
            case PollFault.BUSY:
                return self._json({"code": 455, "msg": "maintenance", "data": None})
            case PollFault.GARBAGE:
                return self.answer(200, PAGE, [("content-type", "text/html")])
            case PollFault.SLOW:
                time.sleep(SLOW_POLL_SECONDS)
        answers = {task_id: self._provider.answer(task_id) for task_id in task_ids}
        if provider == ACEDATA:
            records = [bodies.acedata_record(task_id, *said) for task_id, said in answers.items() if said]
            body = {"items": records, "count": len(records)} if is_batch else (records[0] if records else {})
        else:
            [(task_id, said)] = answers.items()
            body = bodies.kie_answer(task_id, *said) if said else bodies.unknown_kie_task(provider)
        return self._cut(json.dumps(body).encode()) if fault is PollFault.CUT else self._json(body)

    def _serve_image(self, path: str, *, is_fresh: bool) -> None:
        fate, plan = self._provider.image(path, is_fresh=is_fresh)
        match fate:
            case ImageFate.ERRORS_FIRST:
                return self.answer(503, b"try later", [])
            case ImageFate.NOT_YET | ImageFate.GONE:
                return self.answer(404 if plan else 403, b"no such image", [])
            case ImageFate.RESET_FIRST:
                return self._hang_up()
            case ImageFate.PAGE:
                return self.answer(200, PAGE, [("content-type", "image/png")])
            case ImageFate.SLOW:
                time.sleep(SLOW_IMAGE_SECONDS)
        assert plan is not None
        content = image_bytes(plan)
        return self._cut(content) if fate is ImageFate.TRUNCATED_FIRST else self.answer(200, content, [])

    def _json(self, body: dict[str, Any], status: int = 200) -> None:
        self.answer(status, json.dumps(body).encode(), [("content-type", "application/json")])

    def _cut(self, body: bytes) -> None:
        """Sends the head and half of the body."""
        self.send_response_only(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
