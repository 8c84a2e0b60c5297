"""A tasks API in memory, and the storage of its image links, for httpx.MockTransport.

It follows the contract by using the tasks API's own models for its responses.
"""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import httpx

from catchlight.api.problems import IMAGE_NOT_ARCHIVED, NO_SUCH_IMAGE, NO_SUCH_TASK, APIError, Problem
from catchlight.api.response_models import FINAL_STATUSES, ImageResponse, NewTask, TaskPage, TaskResponse
from catchlight.client import TasksClient
from catchlight.client.retrying import RetryPolicy
from catchlight.models import TaskStatus, iso
from local.simulator.pictures import Picture, PictureFormat, draw_picture

API = "https://api.example"
STORAGE = "https://storage.example"
# Not a canary secret: clients are meant to see the links of a task.
_LINK_SIGNATURE = "signatureOfALink"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def _is_selected(task: TaskResponse, query: httpx.QueryParams) -> bool:
    name, _, value = query.get("metadata", "").partition("=")
    return (
        query.get("provider") in (None, task.provider)
        and query.get("ref") in (None, task.ref)
        and query.get("reason") in (None, task.failure and task.failure.reason)
        and (not name or (task.metadata or {}).get(name) == value)
    )


class TasksApiInMemory:
    """Serves `tasks` and records the `requests`. If `before` returns a response, it replaces the API's own."""

    def __init__(self, tasks: Iterable[TaskResponse] = (), pictures: dict[str, bytes] | None = None) -> None:
        self.tasks = {task.task: task for task in tasks}
        self.pictures = pictures if pictures is not None else {}  # content by object key
        self.unreadable: dict[str, str] = {}  # listed on the first page, with their malformed attributes
        self.requests: list[httpx.Request] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self._lock = threading.Lock()

    def client(self, **options: Any) -> TasksClient:
        """Returns a client that is connected to this API and does not wait before retries."""
        retry_policy = RetryPolicy(sleep=lambda _: None)
        return TasksClient(API, transport=httpx.MockTransport(self), **{"retry_policy": retry_policy, **options})

    def put(self, *tasks: TaskResponse) -> None:
        """Adds tasks, or replaces them."""
        with self._lock:
            self.tasks |= {task.task: task for task in tasks}

    def requested_paths(self, method: str = "GET", host: str = "api.example") -> list[str]:
        """Returns the paths and queries of the requests."""
        return [
            request.url.raw_path.decode()
            for request in self.requests
            if request.method == method and request.url.host == host
        ]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        # Not within the lock: `before` may wait for the response to another request.
        if instead := self.before(request):
            return instead
        with self._lock:
            if request.url.host == "storage.example":
                return self._stored(request)
            try:
                return self._answer(request)
            except APIError as exc:
                headers = {"Content-Type": "application/problem+json"}
                return httpx.Response(exc.problem.status, json=exc.members, headers=headers)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        parts = [
            httpx.URL(f"https://x/{part}").path[1:]
            for part in request.url.raw_path.decode().partition("?")[0].split("/")
        ]
        match request.method, parts[1:]:
            case "POST", ["tasks"]:
                return self._registered(json.loads(request.content))
            case "POST", ["submissions"]:
                return self._submitted(json.loads(request.content))
            case "GET", ["tasks"]:
                return _json(self._page(request.url.params))
            case "GET", ["tasks", provider, task_id]:
                return _json(self._task(provider, task_id))
            case "GET", ["tasks", provider, task_id, "images", name]:
                if request.url.params.get("quarantined") == "true":
                    return httpx.Response(302, headers={"Location": self._quarantined(provider, task_id, name)})
                image = self._image(provider, task_id, name)
                return httpx.Response(302, headers={"Location": _linked(image, datetime.now(UTC)).link or ""})
        return httpx.Response(404, json={"message": "Not Found"})

    def _submitted(self, body: dict[str, Any]) -> httpx.Response:
        provider, task_id = body["provider"], f"task{len(self.tasks)}"
        more = {"request": body["request"], "metadata": body.get("metadata")}
        task = a_task(task_id, TaskStatus.PENDING, provider=provider, **more)
        self.tasks[task.task] = task
        new = NewTask(task=task.task, provider=provider, task_id=task_id, outcome="submitted")
        return _json(new, 201, {"Location": f"/tasks/{provider}/{task_id}"})

    def _registered(self, body: dict[str, Any]) -> httpx.Response:
        provider, made = body["provider"], []
        for task_id in body["taskIds"]:
            key = f"{provider}#{task_id}"
            outcome = "known" if key in self.tasks else "registered"
            made.append({"task": key, "provider": provider, "taskId": task_id, "outcome": outcome})
            task = a_task(task_id, TaskStatus.PENDING, provider=provider, metadata=body.get("metadata"))
            self.tasks.setdefault(key, task)
        return httpx.Response(200, json={"tasks": made})

    def _page(self, query: httpx.QueryParams) -> TaskPage:
        status = query.get("status")

        def place(task: TaskResponse) -> str:
            return (task.updated_at if status else task.arrived_at) or ""

        found = sorted(self.tasks.values(), key=place, reverse=True)
        found = [task for task in found if not status or task.status == status]
        if since := query.get("since"):
            found = [task for task in found if datetime.fromisoformat(place(task)) >= datetime.fromisoformat(since)]
        start, limit = int(query.get("cursor", "0").removeprefix("at=/+")), int(query.get("limit", "50"))
        # As in the real API: these filters make pages short, but do not end the list.
        page = [task for task in found[start : start + limit] if _is_selected(task, query)]
        end = start + limit
        return TaskPage(
            tasks=tuple(map(_with_links, page)),
            cursor=f"at=/+{end}" if end < len(found) else None,
            unreadable=() if start else tuple(self.unreadable),
            malformed_attributes=None if start else self.unreadable or None,
        )

    def _task(self, provider: str, task_id: str) -> TaskResponse:
        try:
            return _with_links(self.tasks[f"{provider}#{task_id}"])
        except KeyError:
            raise _problem(NO_SUCH_TASK, f"{provider} has no task {task_id}") from None

    def _image(self, provider: str, task_id: str, name: str) -> ImageResponse:
        for image in self._task(provider, task_id).images:
            if f"{image.kind}-{image.index}" == name:
                if image.key is None:
                    raise _problem(IMAGE_NOT_ARCHIVED, "not yet")
                return image
        raise _problem(NO_SUCH_IMAGE, f"it has no {name}")

    def _quarantined(self, provider: str, task_id: str, name: str) -> str:
        for image in self._task(provider, task_id).images:
            if f"{image.kind}-{image.index}" == name and image.quarantine:
                return f"{STORAGE}/{quote(image.quarantine.key)}?X-Amz-Signature={_LINK_SIGNATURE}"
        raise _problem(NO_SUCH_IMAGE, f"nothing is in quarantine for {name}")

    def _stored(self, request: httpx.Request) -> httpx.Response:
        assert "Authorization" not in request.headers  # the signature for the tasks API must not reach the storage
        assert not any(name.startswith("x-amz") for name in request.headers)
        key = request.url.path[1:]
        content = self.pictures.get(key)
        if content is None:
            return httpx.Response(404)
        headers = {"Content-Type": f"image/{key.rpartition('.')[2].replace('jpg', 'jpeg')}"}
        if "Range" not in request.headers:
            return httpx.Response(200, content=content, headers=headers)
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return httpx.Response(416)
        return httpx.Response(206, content=content[start:], headers=headers)


def _problem(problem: Problem, detail: str) -> APIError:
    return APIError(problem, detail, advice="Look at the id.")


def _json(
    model: TaskResponse | TaskPage | NewTask, status: int = 200, headers: dict[str, str] | None = None
) -> httpx.Response:
    content = model.model_dump_json(by_alias=True, exclude_none=True)
    return httpx.Response(status, text=content, headers={"Content-Type": "application/json", **(headers or {})})


def _linked(image: ImageResponse, now: datetime) -> ImageResponse:
    if image.key is None:
        return image
    link = f"{STORAGE}/{quote(image.key)}?X-Amz-Signature={_LINK_SIGNATURE}"
    return image.model_copy(update={"link": link, "link_expires_at": iso(now + timedelta(minutes=15))})


def _with_links(task: TaskResponse) -> TaskResponse:
    now = datetime.now(UTC)
    return task.model_copy(update={"images": tuple(_linked(image, now) for image in task.images)})


# ------------------------------------------------------------------------------------------------ tasks


def a_task(
    task_id: str,
    status: TaskStatus = TaskStatus.ARCHIVED,
    *,
    provider: str = "flux-kontext",
    arrived_at: datetime = NOW,
    images: Iterable[ImageResponse] = (),
    **more: Any,
) -> TaskResponse:
    """Returns a task. Attributes that are not given have values that fit its status."""
    took = timedelta(seconds=8.4)
    reported = iso(arrived_at + took) if status is not TaskStatus.PENDING else None
    content: dict[str, Any] = {
        "task": f"{provider}#{task_id}",
        "provider": provider,
        "task_id": task_id,
        "status": status,
        "done": status in FINAL_STATUSES,
        "images": tuple(images),
        "reported_by": reported and "callback",
        "deliveries": 1 if reported else 0,
        "arrived_at": iso(arrived_at),
        "registered_at": iso(arrived_at),
        "reported_at": reported,
        "archived_at": iso(arrived_at + took + timedelta(seconds=0.6)) if status is TaskStatus.ARCHIVED else None,
        "updated_at": reported or iso(arrived_at),
    }
    return TaskResponse.model_validate(content | more)


def an_image(
    task_id: str,
    content: bytes,
    *,
    provider: str = "flux-kontext",
    kind: str = "result",
    index: int = 0,
    extension: str = "jpg",
    **more: Any,
) -> ImageResponse:
    """Returns an archived image."""
    described: dict[str, Any] = {
        "kind": kind,
        "index": index,
        "state": "ARCHIVED",
        "url": f"https://images.example/{task_id}/{kind}-{index}.{extension}",
        "expires_at": iso(NOW + timedelta(days=14)),
        "bucket": "images",
        "key": f"images/{provider}/{task_id}/{kind}-{index}.{extension}",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content_type": f"image/{extension.replace('jpg', 'jpeg')}",
        "archived_at": iso(NOW),
    }
    return ImageResponse.model_validate(described | more)


def a_lost_image(task_id: str, *, kind: str = "origin", index: int = 0, state: str = "EXPIRED") -> ImageResponse:
    """Returns an image that could not be downloaded."""
    return ImageResponse.model_validate(
        {
            "kind": kind,
            "index": index,
            "state": state,
            "url": f"https://images.example/{task_id}/{kind}-{index}.jpg",
            "expires_at": iso(NOW),
            "reason": "its URL had expired: HTTP 404 on every try",
        }
    )


@lru_cache(maxsize=64)
def _picture(number: int, variant: str) -> Picture:
    return draw_picture(f"gallery-{number}", variant, PictureFormat.WEBP)


# Prompts that describe the pictures, by number.
_PROMPTS = (
    "aurora behind a chain of hills, the sky full of stars",
    "full moon over blue ridges, layered like cut paper",
    "the moon just rising between two peaks",
    "pine-green mountains in the morning haze",
    "a small sail heading into a copper evening",
    "copper sea, low sun, one boat far out",
    "a sail under northern lights, mirror-flat water",
    "the last light of the day, a boat near the horizon",
    "pale morning on the water, everything rose and grey",
    "sunset over folded hills, long shadows in the valleys",
    "a boat by night, the moon straight above it",
    "green lagoon by starlight, a single white sail",
    "red desert hills, heat in the air",
    "crimson dunes and a wide white sun",
    "blue hour at sea, the first stars",
    "make the hills deeper red and lower the sun",
    "lavender ridges at dawn, the sun half risen",
    "burning sky, a sail against the light",
    "night watch: a sail, a small moon, deep blue",
    "moonlight on a calm sea, quiet, almost no wind",
    "violet dusk, a large sun behind the ridge",
    "narrow valley at sundown, layered silhouettes",
    "moonrise over dark green peaks, light mist",
    "a wide pastel sea, a tiny boat, a lot of air",
)
_FAILURES = (
    ("CONTENT_POLICY", "400", "Your prompt was flagged by Website as violating content policies"),
    ("GENERATION_FAILED", "501", "Generation failed. Try again later"),
    ("INTERNAL", "500", "Internal error"),
)


def many_tasks(
    count: int, *, now: datetime, different_pictures: int = 24
) -> tuple[list[TaskResponse], dict[str, bytes]]:
    """Returns tasks with all statuses but UNCONFIRMED, newest first, and the contents of their images by object key."""
    tasks: list[TaskResponse] = []
    pictures: dict[str, bytes] = {}
    dice = random.Random(7)
    arrived_at = now - timedelta(seconds=9)
    for number in range(count):
        task_id = f"{dice.getrandbits(128):032x}" if number % 3 else f"task{90_000 - number}"
        task, its_pictures = _any_task(number, task_id, arrived_at, dice, different_pictures)
        tasks.append(task)
        pictures |= its_pictures
        arrived_at -= timedelta(seconds=dice.choice((7, 19, 42, 95, 180)))
    return tasks, pictures


def _any_task(
    number: int, task_id: str, arrived_at: datetime, dice: random.Random, different_pictures: int
) -> tuple[TaskResponse, dict[str, bytes]]:
    provider = dice.choice(("flux-kontext", "flux-kontext", "nanobanana", "acedata"))
    prompt = _PROMPTS[number * 5 % different_pictures % len(_PROMPTS)]
    request = {"prompt": prompt, "model": f"{provider}-pro", "seed": dice.getrandbits(31)}
    status = _any_status(number, dice)
    if status is TaskStatus.TIMED_OUT and number < 400:  # polling gives up only after hours
        status = TaskStatus.ARCHIVED
    more: dict[str, Any] = {"provider": provider, "arrived_at": arrived_at, "request": request}
    if dice.random() < 0.12 and status is not TaskStatus.PENDING:
        seconds = dice.uniform(61, 95)
        more |= {"reported_by": "poll", "deliveries": 0, "reported_at": iso(arrived_at + timedelta(seconds=seconds))}
        if status is TaskStatus.ARCHIVED:
            more["archived_at"] = iso(arrived_at + timedelta(seconds=seconds + 0.7))
    if status is TaskStatus.FAILED:
        reason, code, message = dice.choice(_FAILURES)
        more["failure"] = {"reason": reason, "code": code, "message": message}
    if status is TaskStatus.TIMED_OUT:
        more |= {"failure": {"reason": "NO_RESULT"}, "reported_by": "poll", "deliveries": 0}
        more["reported_at"] = iso(arrived_at + timedelta(hours=6))
    if status not in (TaskStatus.ARCHIVED, TaskStatus.INCOMPLETE):
        return a_task(task_id, status, **more), {}
    results = 4 if provider == "acedata" and dice.random() < 0.4 else 1
    drawn = [
        ("result", index, _picture((number * 5 + index * 7) % different_pictures, "light")) for index in range(results)
    ]
    if provider == "flux-kontext" and status is TaskStatus.ARCHIVED:
        drawn.append(("origin", 0, _picture(number * 5 % different_pictures, "day")))
    images, pictures = [], {}
    for kind, index, picture in drawn:
        sizes: dict[str, Any] = {"width": picture.width, "height": picture.height}
        image = an_image(task_id, picture.content, provider=provider, kind=kind, index=index, extension="webp", **sizes)
        images.append(image)
        pictures[image.key or ""] = picture.content
    if status is TaskStatus.INCOMPLETE:
        images = [a_lost_image(task_id)] + (images if number % 2 else [])
    return a_task(task_id, status, images=images, **more), pictures


def _any_status(number: int, dice: random.Random) -> TaskStatus:
    if number < 2:
        return TaskStatus.PENDING
    if number == 2:
        return TaskStatus.SUCCEEDED
    weights = {
        TaskStatus.ARCHIVED: 84,
        TaskStatus.FAILED: 7,
        TaskStatus.INCOMPLETE: 4,
        TaskStatus.TIMED_OUT: 2,
        TaskStatus.PENDING: 2,
    }
    return dice.choices(list(weights), list(weights.values()))[0]
