"""Pages: each needs one query, each task is on one page, and a page starts where the previous one ended."""

import json
from typing import Any

import pytest

from catchlight.api import queries, routes
from functions.serve_tasks_api import app
from tests.integration.conftest import TABLE_NAME
from tests.integration.tasks_api.api_harness import Clock, TasksApiHarness
from tests.integration.tasks_api.pages import calls, listed, pages, some_tasks

# Lambda's limit for a function's response.
MAX_RESPONSE_BYTES = 6_291_556


@pytest.mark.parametrize("status", [None, "PENDING"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_every_task_is_on_one_page(api: TasksApiHarness, clock: Clock, status: str | None, limit: int) -> None:
    keys = some_tasks(api, clock, 7)

    found = pages(api, limit=limit, **({"status": status} if status else {}))

    assert [key for page in found for key in page] == keys
    assert all(len(page) <= limit for page in found)


@pytest.mark.parametrize("status", [None, "PENDING"])
@pytest.mark.parametrize("examined", [2, 3, 100])
def test_every_task_of_a_provider_is_on_one_page(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch, status: str | None, examined: int
) -> None:
    """A page may be short or empty if other providers' entries were read for it."""
    for name in ("_BY_ARRIVAL", "_BY_STATUS"):
        index = getattr(queries, name)
        few = queries._Index(index.name, index.partition, index.order, examined)
        monkeypatch.setattr(queries, name, few)
    flux_tasks = some_tasks(api, clock, 5)
    some_tasks(api, clock, 4, "acedata")

    found = pages(api, limit=2, provider="flux-kontext", **({"status": status} if status else {}))

    assert [key for page in found for key in page] == flux_tasks
    assert all(len(page) <= 2 for page in found)


def test_new_tasks_do_not_affect_the_next_page(api: TasksApiHarness, clock: Clock) -> None:
    keys = some_tasks(api, clock, 4)
    first = api.send("GET", "/tasks", query={"limit": 2})
    clock.pass_by(seconds=1)
    api.register("newer")

    second = api.send("GET", "/tasks", query={"limit": 2, "cursor": first.body["cursor"]})

    assert listed(first) + listed(second) == keys


def test_deleting_the_last_task_of_a_page_does_not_affect_the_next_page(api: TasksApiHarness, clock: Clock) -> None:
    keys = some_tasks(api, clock, 4)
    first = api.send("GET", "/tasks", query={"limit": 2})
    api.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": keys[1]}})

    second = api.send("GET", "/tasks", query={"limit": 2, "cursor": first.body["cursor"]})

    assert listed(second) == keys[2:]


def test_a_page_ends_before_it_exceeds_the_size_limit(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = some_tasks(api, clock, 5)
    monkeypatch.setattr(routes, "MAX_PAGE_BYTES", 700)

    found = pages(api, limit=5)

    assert [key for page in found for key in page] == keys
    assert [len(page) for page in found] == [2, 2, 1]


def test_a_task_beyond_the_size_limit_has_a_page_of_its_own(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = some_tasks(api, clock, 3)
    monkeypatch.setattr(routes, "MAX_PAGE_BYTES", 1)

    assert pages(api, limit=5) == [[key] for key in keys]


@pytest.mark.parametrize(
    "character", ["x", "\U0001f600", '"', "\\", "\x01"], ids=["x", "emoji", "quote", "\\", "control"]
)
def test_a_page_of_the_largest_tasks_fits_into_a_lambda_response(api: TasksApiHarness, character: str) -> None:
    """All tasks in one page, as BatchGetItem returns them: moto's Query also counts attributes that the index lacks."""
    url = "https://host.example/" + "x" * 2000
    image = {"kind": "result", "url": url, "expiresAt": "2026-12-01T00:00:00Z"}
    # A prompt takes at most 4 of an item's 400 KB; users may write larger attributes themselves.
    size = 300_000 // len(character.encode())
    rows = [
        queries.Row(
            f"acedata#{number}",
            {
                "task": f"acedata#{number}",
                "status": "SUCCEEDED",
                "images": [image] * 32,
                "idempotencyKey": character * size,
            },
            str(number),
        )
        for number in range(100)
    ]

    page = routes.page_answer(queries.Page(rows, None), app.dependencies().api.links(60))

    assert 0 < len(page.tasks) < 100
    assert page.cursor == str(len(page.tasks) - 1)
    body = page.model_dump_json(by_alias=True, exclude_none=True)
    # As the Lambda runtime of Python 3.13 sends it.
    assert len(json.dumps({"statusCode": 200, "body": body}, ensure_ascii=False).encode()) < MAX_RESPONSE_BYTES


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["Query", "BatchGetItem"]),
        ({"provider": "flux-kontext"}, ["Query", "BatchGetItem"]),
        ({"since": "2026-11-21T12:00:03Z"}, ["Query", "BatchGetItem"]),
        ({"status": "PENDING"}, ["Query"]),
        ({"status": "PENDING", "provider": "flux-kontext", "since": "2026-11-21T12:00:03Z"}, ["Query"]),
        ({"provider": "acedata"}, ["Query"]),  # no task to read with BatchGetItem
    ],
)
def test_each_page_takes_one_query(
    api: TasksApiHarness, clock: Clock, query: dict[str, str], expected: list[str]
) -> None:
    some_tasks(api, clock, 5)

    with calls(api) as operations:
        response = api.send("GET", "/tasks", query={"limit": 2, **query})
        if "cursor" in response.body:
            api.send("GET", "/tasks", query={"limit": 2, **query, "cursor": response.body["cursor"]})
            expected = expected * 2

    assert operations == expected


def test_unprocessed_keys_of_a_batch_are_requested_again(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = some_tasks(api, clock, 4)
    batch_get_item = api.dynamodb.batch_get_item

    def return_half(RequestItems: dict[str, Any]) -> Any:  # noqa: N803 - boto3's name
        wanted = RequestItems[TABLE_NAME]["Keys"]
        left = wanted[2:]
        response = batch_get_item(RequestItems={TABLE_NAME: {"Keys": wanted[:2]}})
        return response | {"UnprocessedKeys": {TABLE_NAME: {"Keys": left}} if left else {}}

    monkeypatch.setattr(api.dynamodb, "batch_get_item", return_half)

    assert listed(api.send("GET", "/tasks")) == keys


def test_malformed_items_are_listed_as_unreadable_beside_the_tasks(api: TasksApiHarness, clock: Clock) -> None:
    (key,) = some_tasks(api, clock, 1)
    place = {"feed": "tasks", "arrivedAt": "2026-11-21T12:00:09.000Z", "updatedAt": "2026-11-21T12:00:09.000Z"}
    api.store.put("flux-kontext#malformed", status="PENDING", images="none", **place)
    api.store.put("<script>", status="PENDING", **place)

    for query in ({}, {"status": "PENDING"}):
        response = api.send("GET", "/tasks", query=query)
        assert listed(response) == [key]
        assert sorted(response.body["unreadable"]) == ["<script>", "flux-kontext#malformed"]
        assert response.body["malformedAttributes"] == {"<script>": "task", "flux-kontext#malformed": "images"}


def test_a_task_that_is_deleted_during_a_listing_is_left_out(
    api: TasksApiHarness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = some_tasks(api, clock, 3)
    query = api.dynamodb.query

    def query_then_delete(**arguments: Any) -> Any:
        response = query(**arguments)
        api.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": keys[1]}})
        return response

    monkeypatch.setattr(api.dynamodb, "query", query_then_delete)

    assert listed(api.send("GET", "/tasks")) == [keys[0], keys[2]]
