"""Responds to the HTTP requests that the simulated services receive: submissions, polls and images."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local.simulator import overview, payloads
from local.simulator.scenarios import ACEDATA, FLUX_KONTEXT, FLUX_SERVICES, KIE_MARKET, NANOBANANA, scenario_named_in
from local.simulator.services import BASE_PATHS, SimulatedServices
from local.simulator.tasks import ImageRequest, Poll

SCENARIO_HEADER = "x-simulate"
TASK_ID_HEADER = "x-simulate-task-id"

_MAX_IMAGES = 8
_MAX_BATCH = 50
_DEFAULT_LIMIT = 12  # as documented for a related service; a client must request a higher limit explicitly
# The real CDN refuses all requests with a User-Agent of Python.
_UNWANTED_USER_AGENT = "python"
_CONTENT_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes
    content_type: str = "application/json"
    location: str | None = None  # target of a redirect


class Request:
    """An HTTP request, parsed into the parts that the services read."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        """`target` is the path and query as sent."""
        split = urlsplit(target)
        self.method = method
        self.path = split.path
        self.query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        self.headers = {name.lower(): value for name, value in headers.items()}
        self._body = body

    @property
    def key(self) -> str | None:
        """The bearer token; None if there is none."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    @property
    def json(self) -> dict[str, Any] | None:
        """The body; None if it is not a JSON object."""
        try:
            decoded = json.loads(self._body)
        except ValueError:
            return None
        return decoded if isinstance(decoded, dict) else None


def respond(services: SimulatedServices, request: Request) -> Response:
    """Returns the response of the service that the path belongs to."""
    if request.path.startswith("/images/") and request.method in ("GET", "HEAD"):
        return _serve_image(services, request)
    if request.path == "/" and request.method in ("GET", "HEAD"):
        return _json(200, overview.overview(services), pretty=True)
    if (request.method, request.path) not in _ROUTES:
        return _json(404, payloads.envelope(404, f"no such endpoint; see {services.url}/", None))
    provider, route = _ROUTES[request.method, request.path]
    expected = services.api_keys.get(provider)
    if request.key is None or (expected is not None and request.key != expected):
        return _refuse(provider, 401, "invalid_token", "Authorization: Bearer KEY is missing or wrong")
    return route(services, provider, request)


def _submit(services: SimulatedServices, provider: str, request: Request) -> Response:
    params = request.json
    # The Market's requests have the model's own parameters in `input`.
    own = params and (params.get("input") if provider == KIE_MARKET else params)
    prompt = own.get("prompt") if isinstance(own, dict) else None
    if params is None or not isinstance(prompt, str) or not prompt:
        return _refuse(provider, 422, "bad_request", "prompt is required")
    if provider == ACEDATA and not (params.get("callback_url") or params.get("async")):
        return _refuse(provider, 422, "bad_request", "callback_url or async is required by this simulator")
    count = params.get("count")
    if count is not None and (not isinstance(count, int) or not 1 <= count <= _MAX_IMAGES):
        return _refuse(provider, 422, "bad_request", f"count is 1 to {_MAX_IMAGES}")
    callback_url = params.get("callback_url" if provider == ACEDATA else "callBackUrl")
    try:
        task = services.submit(
            provider,
            scenario=request.headers.get(SCENARIO_HEADER) or scenario_named_in(prompt),
            callback_url=callback_url if isinstance(callback_url, str) and callback_url else None,
            params=params,
            task_id=request.headers.get(TASK_ID_HEADER),
            image_count=count,
            record_shaped=request.path.endswith("/generate-2"),
        )
    except ValueError as exc:
        return _refuse(provider, 422, "bad_request", str(exc))
    return _json(200, payloads.submitted(task))


def _record_info(services: SimulatedServices, provider: str, request: Request) -> Response:
    task_id = request.query.get("taskId")
    if not task_id:
        return _refuse(provider, 422, "", "taskId is required")
    now = time.time()
    result = _json(200, payloads.record_info(provider, services.find_task(provider, task_id), now))
    services.record(Poll(provider, (task_id,), now))  # after the response is built, because a poll may end a task
    return result


def _credits(services: SimulatedServices, provider: str, request: Request) -> Response:  # noqa: ARG001
    return _json(200, payloads.envelope(200, "success", services.credits))


def _download_url(services: SimulatedServices, provider: str, request: Request) -> Response:
    image = services.find_image(urlsplit(str((request.json or {}).get("url"))).path)
    # kie.ai serves results itself. The hosts of original images belong to other companies.
    if image is None or image.kind != "result":
        return _refuse(provider, 422, "", "url is not that of a generated file")
    return _json(200, payloads.envelope(200, "success", f"{image.url}?download=1"))


def _flux_tasks(services: SimulatedServices, provider: str, request: Request) -> Response:
    parameters, now = request.json or {}, time.time()
    match parameters:
        case {"action": "retrieve", "id": str(task_id)}:
            ids = [task_id]
            result = payloads.acedata_record(services.find_task(provider, task_id), now)
        case {"action": "retrieve_batch", "ids": list(ids)} if len(ids) <= _MAX_BATCH:
            found = [task for task_id in ids if (task := services.find_task(provider, str(task_id)))]
            result = payloads.acedata_batch(found[: parameters.get("limit", _DEFAULT_LIMIT)], now)
        case _:
            return _refuse(provider, 400, "token_mismatched", "missing or invalid parameters")
    services.record(Poll(provider, tuple(map(str, ids)), now))
    return _json(200, result)


def _serve_image(services: SimulatedServices, request: Request) -> Response:
    result = _image_response(services, request)
    services.record(ImageRequest(request.path, request.headers.get("user-agent", ""), result.status))
    return result


def _image_response(services: SimulatedServices, request: Request) -> Response:
    if request.headers.get("user-agent", "").lower().startswith(_UNWANTED_USER_AGENT):
        return Response(403, b"error code: 1010", "text/plain; charset=UTF-8")
    image = services.find_image(request.path)
    if image is None:
        return Response(404, b"not found\n", "text/plain")
    if services.image_requests_of(request.path) < image.outage_requests:
        return Response(503, b"try again later\n", "text/plain")
    if time.time() >= image.expires_at or int(request.query.get("signature", 0)) < image.first_signature:
        return Response(403, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>\n", "application/xml")
    if image.needs_download_url and "download" not in request.query:
        return Response(403, b"the URL has expired\n", "text/plain")
    if redirect := image.redirect(int(request.query.get("hop", 0))):
        status, location = redirect
        return Response(status, b"", "text/html", location)
    # As on CDNs, the content type depends on the file extension, and may therefore be wrong.
    return Response(200, image.content, _CONTENT_TYPES[image.path.rpartition(".")[2]])


def _refuse(provider: str, status: int, code: str, message: str) -> Response:
    if provider == ACEDATA:
        return _json(400 if status == 422 else status, payloads.acedata_error(code, message))
    # kie.ai and related services report errors in the envelope; the HTTP status often remains 200.
    return _json(401 if status == 401 else 200, payloads.envelope(status, message, None))


def _json(status: int, body: Mapping[str, Any], *, pretty: bool = False) -> Response:
    return Response(status, json.dumps(body, indent=2 if pretty else None).encode() + b"\n")


_Route = Callable[[SimulatedServices, str, Request], Response]
_FLUX_ROUTES: tuple[tuple[str, str, _Route], ...] = (
    ("GET", "/api/v1/flux/kontext/record-info", _record_info),
    ("GET", "/api/v1/chat/credit", _credits),
    ("POST", "/api/v1/flux/kontext/generate", _submit),
)
_ROUTES: dict[tuple[str, str], tuple[str, _Route]] = {
    (method, BASE_PATHS[provider] + path): (provider, route)
    for provider, method, path, route in (
        *((provider, *route) for provider in FLUX_SERVICES for route in _FLUX_ROUTES),
        (FLUX_KONTEXT, "POST", "/api/v1/common/download-url", _download_url),
        (NANOBANANA, "GET", "/api/v1/nanobanana/record-info", _record_info),
        (NANOBANANA, "GET", "/api/v1/common/credit", _credits),
        (NANOBANANA, "POST", "/api/v1/nanobanana/generate", _submit),
        (NANOBANANA, "POST", "/api/v1/nanobanana/generate-2", _submit),
        (NANOBANANA, "POST", "/api/v1/nanobanana/generate-pro", _submit),
        (KIE_MARKET, "GET", "/api/v1/jobs/recordInfo", _record_info),
        (KIE_MARKET, "GET", "/api/v1/chat/credit", _credits),
        (KIE_MARKET, "POST", "/api/v1/jobs/createTask", _submit),
        (KIE_MARKET, "POST", "/api/v1/common/download-url", _download_url),
        (ACEDATA, "POST", "/flux/tasks", _flux_tasks),
        (ACEDATA, "POST", "/flux/images", _submit),
    )
}
