"""Replaces the providers by plain functions, and records the requests to them."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.dispatch import PollState
from catchlight.polling.provider_client import ProviderClient
from functions.poll_tasks import app
from tests.canary_secrets import URL_QUERY
from tests.conftest import FakeLambdaContext
from tests.fake_http import FakeHttp
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import PROVIDER_KEYS, a_secret

FLUX, NANO, ACE = "flux-kontext#f1", "nanobanana#n1", "acedata#a1"
RESULT_URL = f"https://tempfile.aiquickdraw.com/r/1.png?{URL_QUERY}"


class Providers:
    """Responds to requests to all providers, by their path, and records them."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[httpx.Request], httpx.Response]] = {}
        self.requests: list[httpx.Request] = []
        self.concurrent = 0
        self.max_concurrent = 0
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            self.concurrent += 1
            self.max_concurrent = max(self.max_concurrent, self.concurrent)
        try:
            answer = self.answers.get(request.url.path)
            return answer(request) if answer else httpx.Response(500)
        finally:
            with self._lock:
                self.concurrent -= 1

    @property
    def hosts(self) -> list[str]:
        return [request.url.host for request in self.requests]


FLUX_PATH, NANO_PATH, MARKET_PATH, ACE_PATH = (
    "/api/v1/flux/kontext/record-info",
    "/api/v1/nanobanana/record-info",
    "/api/v1/jobs/recordInfo",
    "/flux/tasks",
)


def record(request: httpx.Request, **data: Any) -> httpx.Response:
    """Returns kie's record of the requested task."""
    body = {"code": 200, "msg": "success", "data": {"taskId": request.url.params["taskId"], **data}}
    return httpx.Response(200, json=body)


def running(request: httpx.Request) -> httpx.Response:
    return record(request, successFlag=0, response=None)


def succeeded(request: httpx.Request) -> httpx.Response:
    return record(request, successFlag=1, response={"resultImageUrl": RESULT_URL})


def failed(request: httpx.Request) -> httpx.Response:
    return record(request, successFlag=3, errorCode=400, errorMessage="policy")


def json_response(body: Any, status: int = 200) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, json=body)


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def timed_out(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("timed out", request=request)


@contextmanager
def polling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    """Sets the poller's environment and yields the providers that it sends requests to."""
    environment = {
        "TASKS_TABLE": TABLE_NAME,
        "PROVIDER_KEYS_SECRET": a_secret("keys", json.dumps(PROVIDER_KEYS)),
        "PROVIDER_BASE_URLS": "",
        "IMAGES_BUCKET": "images-bucket",
        "POLL_INTERVAL_SECONDS": "30",
        "SLOW_POLL_AFTER_SECONDS": "900",
        "SLOW_POLL_INTERVAL_SECONDS": "120",
        "GIVE_UP_AFTER_SECONDS": "21600",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    providers = Providers()
    http = FakeHttp(providers)
    monkeypatch.setattr(app, "ProviderClient", lambda base_urls: ProviderClient(base_urls, http=http))
    app.dependencies.cache_clear()
    yield providers
    app.dependencies.cache_clear()


def poll(
    *tasks: str,
    context: LambdaContext | None = None,
    wait_seconds: int = 60,
    waited_seconds: int = 0,
    polls: int = 0,
    polling_since: str | None = None,
) -> dict[str, Any]:
    """Runs one polling round and returns the state machine's next state."""
    state = {"tasks": list(tasks), "waitSeconds": wait_seconds, "waitedSeconds": waited_seconds, "polls": polls}
    if polling_since is not None:
        state["pollingSince"] = polling_since
    answer: dict[str, Any] = app.handler(state, context or FakeLambdaContext())
    assert PollState.model_validate(answer).model_dump(mode="json", by_alias=True, exclude_none=True) == answer
    return answer


def status_of(store: Store, task: str) -> str:
    """Returns the status of a task that is in the table."""
    item = store.item(task)
    assert item is not None
    return str(item["status"])
