"""Simulates the providers of a soak test on one port: responds to polls and serves images as the plans specify."""

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
from tests.searches.soak.plans import ACEDATA, FLUX_KONTEXT, NANOBANANA, ImageFault, ImagePlan, PollFault, TaskPlan
from tests.searches.soak.reported_state import RUNNING, ReportedState

PATHS = {FLUX_KONTEXT: "/kie", NANOBANANA: "/nanobanana", ACEDATA: "/acedata"}
SLOW_POLL_SECONDS = 0.7
SLOW_IMAGE_SECONDS = 0.5
# These faults affect one task of a poll, the others the whole request.
_OF_THE_TASK = {PollFault.UNKNOWN, PollFault.LAGGING}


class _Task:
    def __init__(self, plan: TaskPlan, ends_at: float) -> None:
        self.plan = plan
        self.ends_at = ends_at
        self.poll_faults = deque(plan.poll_faults)
        self.has_expired_urls = False  # an expired URL was requested; the next poll returns fresh URLs


class Provider:
    """All simulated providers. Records their reports and counts requests.

    `reports[task, reported]`: the time at which a poll first received this report; `image_requests`: counts by path.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._images: dict[str, ImagePlan] = {}
        self._lock = threading.Lock()
        self.reports: dict[tuple[str, ReportedState], float] = {}
        self.image_requests: Counter[str] = Counter()
        self.polls: Counter[str] = Counter()  # by result of the request
        self.is_out = False  # whether every request is answered with an error
        self.is_outage_over = False  # whether polls of tasks with `is_provider_out` succeed again
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
        """Adds a task that ends at this Unix time."""
        with self._lock:
            self._tasks[plan.task_id] = _Task(plan, ends_at)
            self._images.update({image.path: image for image in plan.images})

    # ------------------------------------------------------------------------------------------------ polls

    def next_fault(self, task_ids: Sequence[str]) -> PollFault | None:
        """Returns the next fault that affects a whole poll of these tasks, or None."""
        with self._lock:
            for task_id in task_ids:
                task = self._tasks.get(task_id)
                if task and task.plan.is_provider_out and not self.is_outage_over:
                    return PollFault.ERROR
                if task and task.poll_faults and task.poll_faults[0] not in _OF_THE_TASK:
                    return task.poll_faults.popleft()
        return None

    def report(self, task_id: str) -> tuple[ReportedState, list[str]] | None:
        """Returns a task's reported state and image URLs; None if the provider does not know the task (yet)."""
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None:
                return None
            fault = task.poll_faults.popleft() if task.poll_faults and task.poll_faults[0] in _OF_THE_TASK else None
            is_running = fault is not None or time.time() < task.ends_at
            reported = RUNNING if is_running else task.plan.provider_outcome
            self.reports.setdefault((task.plan.task, reported), time.time())
            if fault is PollFault.UNKNOWN:
                return None
            fresh = "?fresh=1" if task.has_expired_urls else ""
            stale = {image.path for image in task.plan.images if image.fault is ImageFault.STALE}
            return reported, [self.url + path + (fresh if path in stale else "") for path in reported.paths]

    # ------------------------------------------------------------------------------------------------ images

    def image(self, path: str, *, is_fresh: bool) -> tuple[ImageFault, ImagePlan | None]:
        """Returns the image at a path and the fault for this request."""
        with self._lock:
            self.image_requests[path] += 1
            plan = self._images.get(path)
            if plan is None:
                return ImageFault.GONE, None
            if plan.fault is ImageFault.STALE:
                if is_fresh:
                    return ImageFault.NONE, plan
                self._tasks[path.split("/")[3]].has_expired_urls = True
                return ImageFault.GONE, plan
            if plan.fault in (ImageFault.GONE, ImageFault.PAGE, ImageFault.SLOW):
                return plan.fault, plan
            return plan.fault if self.image_requests[path] <= plan.faulty_requests else ImageFault.NONE, plan


class _Server(LoopbackServer):
    def __init__(self, provider: Provider) -> None:
        super().__init__(_Handler)
        self.provider = provider


class _Handler(LoopbackHandler):
    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        split = urlsplit(self.path)
        if self._provider.is_out:
            self._provider.polls["503, outage"] += not split.path.startswith("/images/")
            self.answer(503, b"outage", [])
        elif split.path.startswith("/images/"):
            self._serve_image(split.path, is_fresh=bool(split.query))
        elif "taskId" in (query := parse_qs(split.query)):
            provider = FLUX_KONTEXT if split.path.startswith(PATHS[FLUX_KONTEXT]) else NANOBANANA
            self._serve_poll(provider, query["taskId"])
        else:
            self._provider.image_requests[split.path] += 1
            self.answer(404, b"not found", [])

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(length := int(self.headers.get("content-length", 0)))
        if len(body) < length:  # the polling function was killed while it sent the request
            self.close_connection = True
            return
        if self._provider.is_out:
            self._provider.polls["503, outage"] += 1
            self.answer(503, b"outage", [])
            return
        try:
            request = json.loads(body)
            task_ids = request.get("ids") or [request["id"]]
        except (ValueError, LookupError, AttributeError):  # a request of another program
            self.answer(400, b"not a poll", [])
            return
        self._serve_poll(ACEDATA, task_ids, is_batch="ids" in request)

    @property
    def _provider(self) -> Provider:
        return cast("_Server", self.server).provider

    def _serve_poll(self, provider: str, task_ids: Sequence[str], *, is_batch: bool = False) -> None:
        fault = self._provider.next_fault(task_ids)
        self._provider.polls[fault or "no fault"] += 1
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
        reports = {task_id: self._provider.report(task_id) for task_id in task_ids}
        if provider == ACEDATA:
            records = [bodies.acedata_record(task_id, *report) for task_id, report in reports.items() if report]
            body = {"items": records, "count": len(records)} if is_batch else (records[0] if records else {})
        else:
            [(task_id, report)] = reports.items()
            body = bodies.kie_response(task_id, *report) if report else bodies.unknown_kie_task(provider)
        return self._cut(json.dumps(body).encode()) if fault is PollFault.CUT else self._json(body)

    def _serve_image(self, path: str, *, is_fresh: bool) -> None:
        fault, plan = self._provider.image(path, is_fresh=is_fresh)
        match fault:
            case ImageFault.ERRORS_FIRST:
                return self.answer(503, b"try later", [])
            case ImageFault.NOT_YET | ImageFault.GONE:
                return self.answer(404 if plan else 403, b"no such image", [])
            case ImageFault.RESET_FIRST:
                return self._reset_connection()
            case ImageFault.PAGE:
                return self.answer(200, PAGE, [("content-type", "image/png")])
            case ImageFault.SLOW:
                time.sleep(SLOW_IMAGE_SECONDS)
        assert plan is not None
        content = image_bytes(plan)
        return self._cut(content) if fault is ImageFault.TRUNCATED_FIRST else self.answer(200, content, [])

    def _json(self, body: dict[str, Any], status: int = 200) -> None:
        self.answer(status, json.dumps(body).encode(), [("content-type", "application/json")])

    def _cut(self, body: bytes) -> None:
        """Sends the head and half of the body."""
        self.send_response_only(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self._reset_connection()

    def _reset_connection(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
