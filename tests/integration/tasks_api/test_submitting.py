"""POST /submissions sends a request to the provider once, however often the caller repeats it."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from catchlight.api.problems import IN_PROGRESS, APIError
from catchlight.api.request_models import Submission
from catchlight.api.response_models import NewTask
from catchlight.providers import PROVIDERS
from functions.serve_tasks_api import app
from tests.canary_secrets import API_KEYS, CALLBACK_TOKEN
from tests.integration.tasks_api.api_harness import ACCEPTED, CALLBACK_BASE_URL, Clock, TasksApiHarness

TASK = "flux-kontext#task12345"

# ------------------------------------------------------------------------------------------------ accepted


@pytest.mark.parametrize(
    ("provider_id", "url", "field"),
    [
        ("flux-kontext", "https://api.kie.ai/api/v1/flux/kontext/generate", "callBackUrl"),
        ("nanobanana", "https://api.nanobananaapi.ai/api/v1/nanobanana/generate", "callBackUrl"),
        ("acedata", "https://api.acedata.cloud/flux/images", "callback_url"),
    ],
)
def test_the_request_is_sent_unchanged_with_the_callback_url_added(
    api: TasksApiHarness, provider_id: str, url: str, field: str
) -> None:
    fields: dict[str, Any] = {
        "prompt": "Ein Leuchtturm \N{WAVING BLACK FLAG}",
        "inputImage": "https://x.example/1.png",
        "seed": 7,
    }

    response = api.submit(provider=provider_id, **fields)

    (request,) = api.providers.requests
    assert (request.method, str(request.url)) == ("POST", url)
    assert request.headers["authorization"] == f"Bearer {API_KEYS[provider_id]}"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {
        **fields,
        field: f"{CALLBACK_BASE_URL}/callbacks/{provider_id}/{CALLBACK_TOKEN}",
    }
    assert response.status == 201
    assert response.headers["location"] == f"/tasks/{provider_id}/task12345"
    assert response.body == {
        "task": f"{provider_id}#task12345",
        "provider": provider_id,
        "taskId": "task12345",
        "outcome": "submitted",
    }


def test_the_task_is_registered_with_the_submission(api: TasksApiHarness) -> None:
    api.submit(prompt="a lighthouse", model="flux-kontext-max", aspectRatio="16:9", seed=7)

    assert api.store.item(TASK) == {
        "task": TASK,
        "provider": "flux-kontext",
        "taskId": "task12345",
        "status": "PENDING",
        "rank": 0,
        "registeredAt": "2026-11-21T12:00:00.000Z",
        "updatedAt": "2026-11-21T12:00:00.000Z",
        "feed": "tasks",
        "arrivedAt": "2026-11-21T12:00:00.000Z",
        "request": {"prompt": "a lighthouse", "model": "flux-kontext-max", "size": "16:9", "seeds": [7]},
        "idempotencyKey": "order-1",
    }


def test_metadata_is_stored_and_not_sent(api: TasksApiHarness) -> None:
    body = {"provider": "flux-kontext", "request": {"prompt": "a lighthouse"}, "metadata": {"order": "17"}}
    body["ref"] = "order-17"
    headers = {"Idempotency-Key": "order-17"}

    responses = [api.send("POST", "/submissions", body=body, headers=headers)]
    # Metadata may differ when a request is repeated: nothing is generated again.
    responses.append(api.send("POST", "/submissions", body=body | {"metadata": {"order": "18"}}, headers=headers))

    assert [response.status for response in responses] == [201, 201]
    (request,) = api.providers.requests
    assert not {"metadata", "ref"} & set(json.loads(request.content))
    assert [task["ref"] for task in api.send("GET", "/tasks", query={"ref": "order-17"}).body["tasks"]] == ["order-17"]
    assert api.send("GET", "/tasks/flux-kontext/task12345").body["metadata"] == {"order": "17"}


@pytest.mark.parametrize("endpoint", PROVIDERS["nanobanana"].submit_paths)
def test_a_submission_can_select_an_endpoint(api: TasksApiHarness, endpoint: str) -> None:
    body = {"provider": "nanobanana", "endpoint": endpoint, "request": {"prompt": "a lighthouse"}}

    assert api.send("POST", "/submissions", body=body, headers={"Idempotency-Key": "1"}).status == 201
    assert api.providers.requests[0].url.path == f"/api/v1/nanobanana/{endpoint}"


def test_a_callback_before_the_submissions_response_is_not_overwritten(api: TasksApiHarness) -> None:
    def call_back_first(request: httpx.Request) -> httpx.Response:
        api.store.put(TASK, provider="flux-kontext", taskId="task12345", status="SUCCEEDED", rank=30, deliveries=1)
        return httpx.Response(200, json=ACCEPTED["flux-kontext"])

    api.providers.respond = call_back_first

    assert api.submit().status == 201
    item = api.store.item(TASK)
    assert item
    assert (item["status"], item["rank"], item["deliveries"]) == ("SUCCEEDED", 30, 1)
    assert item["registeredAt"]
    assert item["idempotencyKey"] == "order-1"


def test_an_idempotency_record_is_not_listed_as_a_task(api: TasksApiHarness) -> None:
    api.submit()

    assert "status" not in api.record()
    assert "feed" not in api.record()
    assert api.tasks() == [TASK]
    assert [task["task"] for task in api.send("GET", "/tasks").body["tasks"]] == [TASK]


def test_idempotency_records_have_the_retention_of_tasks(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.submit("for-ever")
    monkeypatch.setenv("TASK_RETENTION_DAYS", "30")
    api.restart()
    api.submit("for-a-month")

    assert "deleteAfter" not in api.record("for-ever")
    assert api.record("for-a-month")["deleteAfter"] == int(clock.now.timestamp()) + 30 * 86_400


# ------------------------------------------------------------------------------------------------ repeated


def test_the_same_key_and_request_have_the_same_response(api: TasksApiHarness, clock: Clock) -> None:
    first = api.submit()
    clock.pass_by(days=3)
    api.restart()

    repeated = api.submit()

    assert (repeated.status, repeated.body, repeated.headers["location"]) == (
        201,
        first.body,
        first.headers["location"],
    )
    assert len(api.providers.requests) == 1


def test_the_order_of_members_does_not_matter(api: TasksApiHarness) -> None:
    api.submit(prompt="a lighthouse", seed=7)

    assert api.submit(seed=7, prompt="a lighthouse").status == 201
    assert len(api.providers.requests) == 1


@pytest.mark.parametrize(
    "other", [{"prompt": "another"}, {"prompt": "a lighthouse", "seed": 1}, {"provider": "acedata"}], ids=str
)
def test_the_same_key_with_another_request_is_rejected(api: TasksApiHarness, other: dict[str, Any]) -> None:
    api.submit()

    response = api.submit(**other)

    assert (response.status, response.problem) == (422, "idempotency-key-used")
    assert len(api.providers.requests) == 1


def test_another_key_generates_again(api: TasksApiHarness) -> None:
    api.submit("order-1")
    api.submit("order-2")

    assert len(api.providers.requests) == 2


def submit_at_once() -> NewTask | APIError:
    """Submits without the handler: a Lambda sandbox handles one request at a time, and so does Powertools' resolver."""
    submission = Submission(provider="flux-kontext", request={"prompt": "a lighthouse"})
    try:
        return app.dependencies().submissions.submit(submission, "order-1")
    except APIError as exc:
        return exc


def test_one_of_many_concurrent_submissions_is_sent(api: TasksApiHarness) -> None:
    assert app.dependencies().submissions  # created before the threads start
    is_sent, may_respond = threading.Event(), threading.Event()

    def wait(request: httpx.Request) -> httpx.Response:
        is_sent.set()
        assert may_respond.wait(60)
        return httpx.Response(200, json=ACCEPTED["flux-kontext"])

    api.providers.respond = wait
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(submit_at_once)
        assert is_sent.wait(60)
        others = list(pool.map(lambda _: submit_at_once(), range(15)))
        may_respond.set()

    new = first.result()
    assert isinstance(new, NewTask)
    refusals = [other for other in others if isinstance(other, APIError)]
    assert [refusal.problem for refusal in refusals] == [IN_PROGRESS] * 15
    assert all(refusal.retry_after_seconds for refusal in refusals)
    assert api.submit().body == new.model_dump(by_alias=True)
    assert len(api.providers.requests) == 1


def test_a_race_for_a_key_has_one_winner(api: TasksApiHarness) -> None:
    assert app.dependencies().submissions
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda _: submit_at_once(), range(32)))

    assert len(api.providers.requests) == 1
    refusals = [response.problem.status for response in responses if isinstance(response, APIError)]
    assert set(refusals) <= {409}
    assert len(refusals) < 32
