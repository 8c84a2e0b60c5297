"""Runs the tasks API without sockets: converts requests to API Gateway's events, and results to responses.

Every response is validated against the OpenAPI document.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from urllib.parse import urlencode

import boto3
import httpx
import jsonschema
import pytest
import yaml
from botocore.exceptions import ReadTimeoutError

from catchlight.api import submission_client
from catchlight.api.submission_client import SubmissionClient
from catchlight.models import iso
from functions.serve_tasks_api import app
from local.http.api import Route
from local.http.events import HttpRequest, HttpResponse, function_response, message_response, request_event
from local.lambda_.runtime_api import InvocationResult
from tests.conftest import FakeLambdaContext
from tests.fake_http import FakeHttp
from tests.integration.conftest import REPOSITORY, TABLE_NAME, Store
from tests.integration.functions import PROVIDER_KEYS, TOKEN, a_secret

BUCKET = "images-bucket"
CALLBACK_BASE_URL = "https://callbacks.example"
DOCUMENT: dict[str, Any] = yaml.load((REPOSITORY / "docs/tasks-api.openapi.yaml").read_text(), yaml.CSafeLoader)
ROUTES = [
    Route(method.upper(), path, "ServeTasksApiFunction", is_signed=True)
    for path, operations in DOCUMENT["paths"].items()
    for method in operations
]
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

ACCEPTED = {
    "flux-kontext": {"code": 200, "msg": "success", "data": {"taskId": "task12345"}},
    "nanobanana": {"code": 200, "msg": "success", "data": {"taskId": "task12345"}},
    "acedata": {"task_id": "task12345"},
}


@dataclass
class Response:
    """The response to a caller."""

    status: int
    headers: dict[str, str]
    body: Any  # None if the response has no body

    @property
    def problem(self) -> str:
        """The name of the problem in the response."""
        assert self.headers["content-type"] == "application/problem+json", self
        return str(self.body["type"].removeprefix("urn:catchlight:problem:"))


@dataclass
class Providers:
    """Responds to submissions as the providers do, and records the requests."""

    respond: Callable[[httpx.Request], httpx.Response] = field(
        default_factory=lambda: lambda request: httpx.Response(200, json=ACCEPTED[provider_of(request)])
    )
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.respond(request)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]


def provider_of(request: httpx.Request) -> str:
    """Returns the provider whose base URL a request was sent to."""
    hosts = {"api.kie.ai": "flux-kontext", "api.nanobananaapi.ai": "nanobanana", "api.acedata.cloud": "acedata"}
    return hosts[request.url.host]


class Clock:
    """The clock of the tasks API."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **time: float) -> str:
        """Advances the clock and returns the new time in the format of items."""
        self.now += timedelta(**time)
        return iso(self.now)


class TasksApiHarness:
    """The tasks API of a stack, with its table, bucket and providers."""

    def __init__(self, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.clock = clock
        self.providers = Providers()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        self.keys_secret = a_secret("keys", json.dumps(PROVIDER_KEYS))
        environment = {
            "TASKS_TABLE": TABLE_NAME,
            "IMAGES_BUCKET": BUCKET,
            "CALLBACK_BASE_URL": CALLBACK_BASE_URL,
            "CALLBACK_TOKEN_SECRET": a_secret("token", TOKEN),
            "PROVIDER_KEYS_SECRET": self.keys_secret,
            "PROVIDER_BASE_URLS": "",
            "TASK_RETENTION_DAYS": "0",
            "TASKS_API_WAIT_LIMIT": "2",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(app, "utc_now", clock)
        http = FakeHttp(self.providers)
        monkeypatch.setattr(submission_client, "SubmissionClient", lambda urls: SubmissionClient(urls, http=http))
        self.restart()

    @property
    def dynamodb(self) -> Any:
        """The client that the tasks API uses."""
        return app.dependencies()._dynamodb

    def restart(self) -> None:
        """Makes the next request run in a new sandbox."""
        app.dependencies.cache_clear()

    def send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        remaining_seconds: float = 29,
    ) -> Response:
        """Returns the response to a request: a body of bytes is sent as it is, any other as JSON."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        sent = {"content-type": "application/json", **(headers or {})}
        request = HttpRequest(method, target, list(sent.items()), content)
        response = respond(request, remaining_seconds)
        check(request, response)
        return Response(response.status, dict(response.headers), json.loads(response.body) if response.body else None)

    def register(self, *task_ids: str, provider: str = "flux-kontext") -> Response:
        return self.send("POST", "/tasks", body={"provider": provider, "taskIds": list(task_ids)})

    def submit(self, key: str | None = "order-1", /, *, provider: str = "flux-kontext", **request: Any) -> Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"provider": provider, "request": request or {"prompt": "a lighthouse"}}
        return self.send("POST", "/submissions", body=body, headers=headers)

    def record(self, key: str = "order-1") -> dict[str, Any]:
        """Returns the item of an idempotency record."""
        item = self.store.item(f"#submission#{key}")
        assert item is not None
        return item

    def tasks(self) -> list[str]:
        """Returns the keys of all tasks in the table."""
        return [item["task"] for item in self.store.items() if "status" in item]


def respond(request: HttpRequest, remaining_seconds: float = 29) -> HttpResponse:
    """Returns the client's response.

    Raises:
        Exception: any error that the handler does not catch; Lambda would turn it into a 500.
    """
    for route in sorted(ROUTES, key=lambda route: route.precedence):
        parameters = route.match(request.method, request.path)
        if parameters is not None:
            event = json.loads(json.dumps(request_event(request, route.key, parameters, "local")))
            result = app.handler(event, FakeLambdaContext(remaining_seconds))
            assert isinstance(result["body"], str)  # not every gateway accepts null
            return function_response(InvocationResult(json.dumps(result).encode()))
    return message_response(404, "Not Found")


def check(request: HttpRequest, response: HttpResponse) -> None:
    """Checks that the document allows the response: status, content type, body, headers."""
    (path,) = {route.path for route in ROUTES if route.match(request.method, request.path) is not None}
    documented_responses = DOCUMENT["paths"][path][request.method.lower()]["responses"]
    assert str(response.status) in documented_responses, f"{response.status} is not in the document: {response.body!r}"
    documented = documented_responses[str(response.status)]
    headers = dict(response.headers)
    for name, header in documented.get("headers", {}).items():
        assert name.lower() in headers or not header.get("required"), name
    if "content" not in documented:
        assert not response.body
        return
    schema = documented["content"][headers["content-type"]]["schema"]
    validate(schema, json.loads(response.body))
    if response.status >= 400:
        problem = json.loads(response.body)
        assert problem["status"] == response.status
        assert len(problem["advice"]) > 10


def validate(schema: dict[str, Any], value: Any) -> None:
    """Raises jsonschema.ValidationError if the value does not match a schema of the document."""
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def refusal(status: int, body: Any, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    """Returns a handler that gives every request this response."""
    return lambda _: httpx.Response(status, json=body, headers=headers)


def lost(call: Callable[..., Any], *, arrives: bool) -> Callable[..., Any]:
    """Returns the same DynamoDB call with its response lost; `arrives`: the call is executed before."""

    def lose(**arguments: Any) -> NoReturn:
        if arrives:
            call(**arguments)
        raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    return lose
