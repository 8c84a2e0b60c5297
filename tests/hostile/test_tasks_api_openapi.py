"""Tests that the tasks API's responses to requests generated from docs/tasks-api.openapi.yaml match the document."""

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from catchlight.api.queries import TaskQueries
from catchlight.models import ImageKind
from functions.serve_tasks_api import app
from tests.hostile.in_process import InProcess
from tests.integration.conftest import a_store, an_account
from tests.integration.tasks_api.api_harness import DOCUMENT, Clock, TasksApiHarness, refusal, respond
from tests.integration.tasks_api.test_one_task import a_success, archived
from tests.project_template import project_template


def with_problem_types(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the document with the problem types of each response in its schema, so that they are checked."""
    document = deepcopy(document)
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for response in operation["responses"].values():
            if content := response.get("content", {}).get("application/problem+json"):
                types = {"properties": {"type": {"enum": content["x-problem-types"]}}}
                content["schema"] = {"allOf": [content["schema"], types]}
    return document


SCHEMA = schemathesis.openapi.from_dict(with_problem_types(DOCUMENT))
OPERATIONS = [SCHEMA[path][method.upper()] for path, methods in DOCUMENT["paths"].items() for method in methods]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODES = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
EXAMPLES = 250  # tests/searches/test_tasks_api_document.py generates 900
KNOWN = {"provider": "flux-kontext", "taskId": "task12345", "image": "result-0"}
# Few idempotency keys, so that some submissions are repeated and some keys are released.
KEYS = [f"order-{number}" for number in range(40)]
# The provider's responses in turn, as status and body, in the formats of all providers.
REPLIES = [
    (200, {"code": 200, "data": {"taskId": "made"}, "task_id": "made"}),
    (200, {"code": 422, "msg": "?"}),
    (400, {"error": {"code": "bad_request"}}),
    (401, {"code": 401}),
    (429, {"code": 429}),
    (500, {"code": 500}),
    (200, ["?"]),
]


@pytest.fixture(scope="module")
def api() -> Iterator[TasksApiHarness]:
    with an_account(), pytest.MonkeyPatch.context() as patches:
        patches.setattr(app, "TaskQueries", lambda table, client: TaskQueries(table, client, sleep=lambda _: None))
        api = TasksApiHarness(a_store(project_template()), Clock(), patches)
        a_success(api, archived(ImageKind.ORIGIN), archived())
        api.register(*(f"task-{number}" for number in range(60)), provider="acedata")
        api.providers.respond = refusal(500, {"code": 500})
        for key in KEYS[::2]:
            api.submit(key)  # its outcome is unknown until the key is released
        yield api
    app.dependencies.cache_clear()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", InProcess(respond))
        yield session


def send_generated_requests(api: TasksApiHarness, session: requests.Session, examples: int) -> Counter[tuple[str, int]]:
    """Sends requests that are generated from the document, and checks each response against it.

    Returns the number of responses by operation and status.
    """
    responses: Counter[tuple[str, int]] = Counter()
    replies = iter(range(10**9))

    def reply(_: httpx.Request) -> httpx.Response:
        status, body = REPLIES[next(replies) % len(REPLIES)]
        return httpx.Response(status, json=body)

    api.providers.respond = reply
    cases = [operation.as_strategy(generation_mode=mode) for operation in OPERATIONS for mode in MODES]

    # Without shrinking: schemathesis prints a failing request as a command for curl.
    @settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=st.one_of(*cases), is_known=st.booleans(), is_plain=st.booleans(), key=st.sampled_from(KEYS))
    def send(case: schemathesis.Case[Any], is_known: bool, is_plain: bool, key: str) -> None:
        if is_known:  # with generated ids, all responses would be 404 or a missing key
            case.path_parameters.update({name: (KNOWN | {"key": key})[name] for name in case.path_parameters})
            if case.method == "POST":
                case.headers["Idempotency-Key"] = key
                if (
                    is_plain and case.path == "/submissions"
                ):  # most generated bodies are rejected before a request to the provider
                    case.body = {"provider": "flux-kontext", "request": {"prompt": "a lake"}}
                elif isinstance(case.body, dict):
                    case.body.pop("endpoint", None)  # it rarely belongs to this provider
                    case.body["provider"] = "flux-kontext"  # the provider whose API key is configured
        response = case.call_and_validate("http://catchlight.example", session=session, checks=CHECKS)
        responses[case.operation.label, response.status_code] += 1

    send()
    return responses


def test_generated_requests_get_documented_responses(api: TasksApiHarness, session: requests.Session) -> None:
    responses = send_generated_requests(api, session, EXAMPLES)

    assert responses.total() >= EXAMPLES / 2
    assert {label for label, _ in responses} == {operation.label for operation in OPERATIONS}
    assert {status for _, status in responses} >= {200, 404, 422}
