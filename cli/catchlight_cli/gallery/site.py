"""Responds to requests of the gallery's page: for its static files, tasks of the tasks API, images and actions."""

import contextlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import unquote

import httpx
from pydantic import BaseModel, ValidationError

from catchlight.api.request_models import PageQuery
from catchlight.api.response_models import ImageResponse, TaskResponse
from catchlight.client import NotFoundError, TasksApiError, TasksClient
from catchlight.client.aws_errors import explained_errors
from catchlight.client.downloading import file_name
from catchlight.client.errors import CatchlightError
from catchlight.models import ImageState, Model, task_key
from catchlight_cli.gallery.actions import Action, ActionName, TaskActions
from catchlight_cli.gallery.stack_reader import StackReader, StatusCounts, TaskDeliveries
from catchlight_cli.gallery.thumbnails import CONTENT_TYPE as THUMBNAIL_TYPE
from catchlight_cli.gallery.thumbnails import Thumbnails
from catchlight_cli.gallery.zip_stream import zip_stream

_CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Content types that a browser may display. All other content is sent as a download.
_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"})
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_IMAGE_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
# Presigned links are left out: they change with every response, and the page loads images from this server.
_EXCLUDED = {"images": {"__all__": {"link", "link_expires_at"}}}
_LINK_MARGIN = timedelta(seconds=30)
_MAX_LINKS = 5000
# 400 of the longest task names fit into a request line, which http.server limits to 65,536 bytes.
_MAX_TASKS_PER_ZIP = 400
_CHUNK_BYTES = 64 * 1024


class TaskActionsResponse(Model):
    """The actions on a task; none if the gallery is read-only."""

    actions: tuple[Action, ...]


class ImageLink(Model):
    """A presigned link to an image."""

    link: str


@dataclass
class Response:
    """An HTTP response. `body` is streamed; `release` closes the connection that it is read from."""

    status: HTTPStatus
    headers: dict[str, str]
    body: Iterable[bytes]
    length: int | None  # bytes; None: unknown
    release: ExitStack = field(default_factory=ExitStack)


class GallerySite:
    """Responds to the gallery's requests with data of a tasks API. Thread-safe."""

    def __init__(
        self,
        api: TasksClient,
        actions: TaskActions | None = None,
        thumbnails: Thumbnails | None = None,
        reader: StackReader | None = None,
    ) -> None:
        self._api = api
        self._actions = actions
        self._thumbnails = thumbnails
        self._reader = reader
        self._links = _LinkCache()
        static = resources.files("catchlight_cli.gallery") / "static"
        self._files = {file.name: file.read_bytes() for file in static.iterdir()}

    def respond(self, path: str, query: Mapping[str, str]) -> Response:
        """Returns the response for a path, which is given without its leading slash."""
        try:
            with explained_errors():
                return self._page(path, query) or _error(HTTPStatus.NOT_FOUND, "There is no such page.")
        except ValidationError:
            return _error(HTTPStatus.BAD_REQUEST, "The filter is invalid.")
        except NotFoundError as exc:
            return _error(HTTPStatus.NOT_FOUND, str(exc))
        except CatchlightError as exc:
            return _error(HTTPStatus.BAD_GATEWAY, str(exc))

    def _page(self, path: str, query: Mapping[str, str]) -> Response | None:
        if not path:
            return self._file("index.html")
        match _parts(path):
            case [name] if name in self._files:
                return self._file(name)
            case ["api", "tasks"]:
                return self._tasks(query)
            case ["api", "counts"]:
                since = PageQuery.model_validate(query).since
                return _json(self._reader.count(since) if self._reader else StatusCounts())
            case ["api", "tasks", provider, task_id, "deliveries"]:
                task = self._api.task(provider, task_id)
                return _json(self._reader.deliveries(task) if self._reader else TaskDeliveries())
            case ["api", "tasks", provider, task_id]:
                return self._task(provider, task_id)
            case ["api", "tasks", provider, task_id, "actions"]:
                actions = self._actions.plan(task_key(provider, task_id)) if self._actions else ()
                return _json(TaskActionsResponse(actions=actions))
            case ["api", "tasks", provider, task_id, "links", name] if _is_image_name(name):
                return _json(ImageLink(link=self._image_link(provider, task_id, name)))
            case ["images", provider, task_id, name] if _is_image_name(name):
                return self._image(provider, task_id, name)
            case ["thumbnails", provider, task_id, name] if _is_image_name(name):
                return self._thumbnail(provider, task_id, name, query.get("sha256", ""))
            case ["images.zip"]:
                return self._zip(query.get("tasks", ""))
        return None

    def act(self, path: str) -> Response:
        """Carries out the action that a path names: `api/tasks/{provider}/{taskId}/actions/{name}`."""
        match _parts(path):
            case ["api", "tasks", provider, task_id, "actions", name] if self._actions and name in list(ActionName):
                try:
                    with explained_errors():
                        return _json(self._actions.run(ActionName(name), task_key(provider, task_id)))
                except CatchlightError as exc:
                    return _error(HTTPStatus.BAD_GATEWAY, str(exc))
        return _error(HTTPStatus.NOT_FOUND, "There is no such action.")

    def _file(self, name: str) -> Response:
        headers = {
            "Content-Type": _CONTENT_TYPES[name.rpartition(".")[2]],
            "Content-Security-Policy": _PAGE_POLICY,
            "Cache-Control": "no-cache",
        }
        return Response(HTTPStatus.OK, headers, [self._files[name]], len(self._files[name]))

    def _tasks(self, query: Mapping[str, str]) -> Response:
        filters = PageQuery.model_validate(query)
        page = self._api.page(
            status=filters.status,
            provider=filters.provider,
            since=filters.since,
            reason=filters.reason,
            limit=filters.limit,
            cursor=filters.cursor,
        )
        for task in page.tasks:
            self._links.add(task)
        return _json(page, {"tasks": {"__all__": _EXCLUDED}})

    def _task(self, provider: str, task_id: str) -> Response:
        task = self._api.task(provider, task_id)
        self._links.add(task)
        return _json(task, _EXCLUDED)

    def _thumbnail(self, provider: str, task_id: str, name: str, sha256: str) -> Response:
        """Returns the thumbnail of an image, or the image itself if no thumbnail can be made."""
        if self._thumbnails is None:
            return self._image(provider, task_id, name)
        thumbnail = self._thumbnails.find(sha256)
        if thumbnail is None:
            with ExitStack() as release:
                image = b"".join(self._open(release, provider, task_id, name).iter_bytes(_CHUNK_BYTES))
            thumbnail = self._thumbnails.make(image)
        if thumbnail is None:
            return self._image(provider, task_id, name)
        return Response(HTTPStatus.OK, _image_headers(THUMBNAIL_TYPE), [thumbnail], len(thumbnail))

    def _zip(self, names: str) -> Response:
        """Returns a zip file with the archived images of tasks, given as `provider/taskId,provider/taskId`."""
        found = [name.partition("/") for name in names.split(",")][:_MAX_TASKS_PER_ZIP]
        tasks = [self._api.task(provider, task_id) for provider, _, task_id in found]
        files = (
            (file_name(task, image), self._content(task, image))
            for task in tasks
            for image in task.images
            if image.state is ImageState.ARCHIVED
        )
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": 'attachment; filename="catchlight-images.zip"',
            "Content-Security-Policy": _IMAGE_POLICY,
            "Cache-Control": "no-store",
        }
        return Response(HTTPStatus.OK, headers, zip_stream(files, now=datetime.now()), None)  # noqa: DTZ005 - zip has no zones

    @contextlib.contextmanager
    def _content(self, task: TaskResponse, image: ImageResponse) -> Iterator[Iterable[bytes]]:
        with ExitStack() as release:
            name = f"{image.kind}-{image.index}"
            yield self._open(release, task.provider, task.task_id, name).iter_bytes(_CHUNK_BYTES)

    def _image(self, provider: str, task_id: str, name: str) -> Response:
        release = ExitStack()
        response = self._open(release, provider, task_id, name)
        headers = _image_headers(response.headers.get("Content-Type", ""))
        length = response.headers.get("Content-Length", "")
        body = response.iter_bytes(_CHUNK_BYTES)
        return Response(HTTPStatus.OK, headers, body, int(length) if length.isdecimal() else None, release)

    def _open(self, release: ExitStack, provider: str, task_id: str, name: str) -> httpx.Response:
        if link := self._links.take(provider, task_id, name):
            # The link may have expired early, at the end of the session whose credentials signed it.
            with contextlib.suppress(TasksApiError):
                return release.enter_context(self._api.open_link(link))
        return release.enter_context(self._api.open_link(self._image_link(provider, task_id, name)))

    def _image_link(self, provider: str, task_id: str, name: str) -> str:
        """Returns a presigned link to an image, which the user can share."""
        kind, _, index = name.partition("-")
        return self._api.image_link(provider, task_id, kind, int(index))


def _parts(path: str) -> list[str]:
    """Returns the decoded parts of a path; an empty list, which matches no page, if one of them is empty."""
    parts = [unquote(part) for part in path.split("/")]
    return parts if all(parts) else []


def _is_image_name(name: str) -> bool:
    return re.fullmatch(r"[a-z]+-[0-9]{1,4}", name) is not None


def _image_headers(content_type: str) -> dict[str, str]:
    is_image = content_type in _IMAGE_TYPES
    return {
        "Content-Type": content_type if is_image else "application/octet-stream",
        "Content-Disposition": "inline" if is_image else "attachment",
        "Content-Security-Policy": _IMAGE_POLICY,
        # An archived image never changes.
        "Cache-Control": "private, max-age=31536000, immutable",
    }


def _json(model: BaseModel, exclude: dict[str, Any] | None = None) -> Response:
    return _json_text(HTTPStatus.OK, model.model_dump_json(by_alias=True, exclude_none=True, exclude=exclude))


def _error(status: HTTPStatus, detail: str) -> Response:
    return _json_text(status, json.dumps({"detail": detail}))


def _json_text(status: HTTPStatus, text: str) -> Response:
    headers = {
        "Content-Type": "application/json",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
    }
    content = text.encode()
    return Response(status, headers, [content], len(content))


class _LinkCache:
    """Caches the image links of tasks that the page has loaded, which halves the API calls per image."""

    def __init__(self) -> None:
        self._links: OrderedDict[tuple[str, str, str], tuple[str, datetime]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, task: TaskResponse) -> None:
        with self._lock:
            for image in task.images:
                if image.link and image.link_expires_at:
                    key = (task.provider, task.task_id, f"{image.kind}-{image.index}")
                    self._links[key] = image.link, datetime.fromisoformat(image.link_expires_at)
                    self._links.move_to_end(key)
            while len(self._links) > _MAX_LINKS:
                self._links.popitem(last=False)

    def take(self, provider: str, task_id: str, name: str) -> str | None:
        """Removes a link and returns it; None if it has expired. A retry after a failure then requests a fresh link."""
        with self._lock:
            link, expires_at = self._links.pop((provider, task_id, name), (None, datetime.min.replace(tzinfo=UTC)))
        return link if expires_at > datetime.now(UTC) + _LINK_MARGIN else None
