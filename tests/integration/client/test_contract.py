"""The client's requests, and the responses of the tasks API in memory, match `docs/tasks-api.openapi.yaml`."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from catchlight.client import NotFoundError, TasksClient
from catchlight.models import TaskStatus
from tests.tasks_api_in_memory import API, TasksApiInMemory, a_lost_image, a_task, an_image

DOCUMENT: dict[str, Any] = yaml.load(
    (Path(__file__).parents[3] / "docs" / "tasks-api.openapi.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader
)
_NUMBERS: dict[str | None, type] = {"integer": int, "number": float}


class ValidatingTransport(httpx.BaseTransport):
    """Passes on requests to the tasks API, and its responses, after it has validated them against the document."""

    def __init__(self, api: TasksApiInMemory) -> None:
        self._api = api
        self.operations: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        operation, path_values = self._operation(request)
        self._check_parameters(operation, request, path_values)
        if "requestBody" in operation:
            _check(json.loads(request.content), operation["requestBody"]["content"]["application/json"]["schema"])
        else:
            assert request.content == b""
        response = self._api(request)
        described = operation["responses"][str(response.status_code)]
        for name, header in described.get("headers", {}).items():
            assert name in response.headers or not header.get("required")
        if "content" in described:
            media_type = response.headers["Content-Type"].partition(";")[0]
            _check(response.json(), described["content"][media_type]["schema"])
        self.operations.add(operation["operationId"])
        return response

    def _operation(self, request: httpx.Request) -> tuple[dict[str, Any], dict[str, str]]:
        for template, operations in DOCUMENT["paths"].items():
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
            if match := re.fullmatch(pattern, request.url.path):
                return operations[request.method.lower()], match.groupdict()
        raise AssertionError(f"the document has no {request.method} {request.url.path}")

    def _check_parameters(self, operation: dict[str, Any], request: httpx.Request, in_path: dict[str, str]) -> None:
        described = {(each["in"], each["name"].lower()): each for each in operation.get("parameters", [])}
        given = {("path", name.lower()): value for name, value in in_path.items()}
        given |= {("query", name.lower()): value for name, value in request.url.params.items()}
        if ("header", "idempotency-key") in described and "Idempotency-Key" in request.headers:
            given["header", "idempotency-key"] = request.headers["Idempotency-Key"]
        assert given.keys() <= described.keys()
        for place, value in given.items():
            schema = described[place]["schema"]
            _check(_NUMBERS.get(schema.get("type"), str)(value), schema)
        assert all(place in given for place, each in described.items() if each.get("required"))


def _check(value: Any, schema: dict[str, Any]) -> None:
    complete = schema | {"components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(complete, format_checker=jsonschema.FormatChecker()).validate(value)


@pytest.fixture
def transport() -> ValidatingTransport:
    content = b"an image"
    images = [an_image("t1", content, width=3, height=2), a_lost_image("t1")]
    tasks = [a_task("t1", images=images, request={"prompt": "a tree"}), a_task("t2", TaskStatus.PENDING)]
    return ValidatingTransport(TasksApiInMemory(tasks, {images[0].key or "": content}))


def test_requests_of_the_client_and_their_responses_match_the_document(transport: ValidatingTransport) -> None:
    api = TasksClient(API, transport=transport)
    api.submit("nanobanana", {"prompt": "a tree", "type": "TEXTTOIAMGE"}, endpoint="generate-pro")
    api.submit("acedata", {"prompt": "a tree"}, idempotency_key="order-17")
    api.register("flux-kontext", ["t1", "t9"])
    api.task("flux-kontext", "t1")
    api.wait("flux-kontext", "t1")
    since = datetime(2026, 1, 31, 12, tzinfo=UTC)
    list(api.tasks(status=TaskStatus.ARCHIVED, provider="flux-kontext", since=since, limit=3))
    api.page(limit=1, cursor="at=/+1")
    api.image_link("flux-kontext", "t1", "result", 0)
    with pytest.raises(NotFoundError):
        api.task("flux-kontext", "t404")
    with pytest.raises(NotFoundError):
        api.image_link("flux-kontext", "t1", "result", 7)
    assert transport.operations == {"registerTasks", "submitTask", "listTasks", "getTask", "getImage"}


def test_the_release_of_a_key_matches_the_document(transport: ValidatingTransport) -> None:
    api = transport._api
    api.before = lambda request: httpx.Response(204) if request.method == "DELETE" else None
    TasksClient(API, transport=transport).release_key("order-17")
    assert transport.operations == {"releaseKey"}


def test_requests_that_violate_the_document_are_detected(transport: ValidatingTransport) -> None:
    api = TasksClient(API, transport=transport)
    with pytest.raises(jsonschema.ValidationError):
        api.page(limit=1000)
    with pytest.raises(jsonschema.ValidationError):
        api.submit("dalle", {"prompt": "a tree"})
    with pytest.raises(jsonschema.ValidationError):
        api.task("flux-kontext", "a b")
