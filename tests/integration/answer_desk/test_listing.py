"""Pages of tasks: the newest first, one query each, and cursors that only go on where the page before ended."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from functions.answer_requests import app
from image_tasks import task_answers, task_queries
from image_tasks.models import Failure, FailureReason, Reporter, TaskReport, TaskStatus
from tests.integration.answer_desk.desk import Answer, Clock, Desk
from tests.integration.answer_desk.test_one_task import a_success, archived
from tests.integration.conftest import TABLE_NAME

# Of a Lambda function.
LARGEST_ANSWER_BYTES = 6 * 1024 * 1024


@contextmanager
def calls(desk: Desk) -> Iterator[list[str]]:
    """The calls of DynamoDB that are made meanwhile."""
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    desk.dynamodb.meta.events.register("before-call.dynamodb", note)
    yield made
    desk.dynamodb.meta.events.unregister("before-call.dynamodb", note)


def some_tasks(desk: Desk, clock: Clock, number: int, provider: str = "flux-kontext") -> list[str]:
    """Registers tasks one after the other; their keys, the newest first."""
    keys: list[str] = []
    for index in range(number):
        clock.pass_by(seconds=1)
        desk.register(f"{provider}-{index}", provider=provider)
        keys.insert(0, f"{provider}#{provider}-{index}")
    return keys


def fail(desk: Desk, clock: Clock, task_id: str, provider: str = "flux-kontext") -> None:
    clock.pass_by(seconds=1)
    report = TaskReport(
        provider=provider,
        task_id=task_id,
        status=TaskStatus.FAILED,
        reported_by=Reporter.CALLBACK,
        reported_at=clock.now,
        failure=Failure(reason=FailureReason.INTERNAL),
    )
    desk.store.table.record(report)


def listed(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [task["task"] for task in answer.body["tasks"]]


def pages(desk: Desk, **query: Any) -> list[list[str]]:
    """All pages of a query, each asked for with the cursor of the one before."""
    found = []
    while True:
        answer = desk.ask("GET", "/tasks", query=query)
        found.append(listed(answer))
        assert len(found) < 100
        if "cursor" not in answer.body:
            return found
        query["cursor"] = answer.body["cursor"]


# ------------------------------------------------------------------------------------------------ in which order


def test_no_tasks(desk: Desk) -> None:
    assert desk.ask("GET", "/tasks").body == {"tasks": [], "unreadable": []}


def test_the_newest_comes_first(desk: Desk, clock: Clock) -> None:
    keys = some_tasks(desk, clock, 5)

    assert listed(desk.ask("GET", "/tasks")) == keys


def test_what_happens_to_a_task_does_not_move_it(desk: Desk, clock: Clock) -> None:
    keys = some_tasks(desk, clock, 3)
    fail(desk, clock, "flux-kontext-0")

    assert listed(desk.ask("GET", "/tasks")) == keys


def test_with_a_status_the_latest_change_comes_first(desk: Desk, clock: Clock) -> None:
    some_tasks(desk, clock, 4)
    for task_id in ("flux-kontext-2", "flux-kontext-0"):
        fail(desk, clock, task_id)

    assert listed(desk.ask("GET", "/tasks", query={"status": "FAILED"})) == [
        "flux-kontext#flux-kontext-0",
        "flux-kontext#flux-kontext-2",
    ]
    assert len(listed(desk.ask("GET", "/tasks", query={"status": "PENDING"}))) == 2
    assert listed(desk.ask("GET", "/tasks", query={"status": "ARCHIVED"})) == []


def test_a_callback_that_nobody_has_registered_is_listed(desk: Desk, clock: Clock) -> None:
    fail(desk, clock, "unregistered")

    assert listed(desk.ask("GET", "/tasks")) == ["flux-kontext#unregistered"]


def test_a_task_that_was_put_by_hand_is_listed_with_its_first_news(desk: Desk, clock: Clock) -> None:
    desk.store.register("flux-kontext#by-hand")
    assert listed(desk.ask("GET", "/tasks")) == []

    fail(desk, clock, "by-hand")

    assert listed(desk.ask("GET", "/tasks")) == ["flux-kontext#by-hand"]


def test_tasks_are_shown_whole_with_their_links(desk: Desk) -> None:
    a_success(desk, archived())

    by_arrival = desk.ask("GET", "/tasks").body["tasks"]
    by_status = desk.ask("GET", "/tasks", query={"status": "ARCHIVED"}).body["tasks"]
    alone = desk.ask("GET", "/tasks/flux-kontext/task12345").body

    for shown in (by_arrival[0], by_status[0], alone):
        assert shown["images"][0].pop("link").startswith("https://")
    assert by_arrival == by_status == [alone]


def test_links_live_as_long_as_asked_for(desk: Desk) -> None:
    a_success(desk, archived())

    (task,) = desk.ask("GET", "/tasks", query={"linkSeconds": 3600}).body["tasks"]

    assert task["images"][0]["linkExpiresAt"] == "2026-11-21T13:00:00.000Z"
    assert "X-Amz-Expires=3600" in task["images"][0]["link"]


# ------------------------------------------------------------------------------------------------ since, provider


def test_since_is_when_tasks_arrived(desk: Desk, clock: Clock) -> None:
    keys = some_tasks(desk, clock, 5)

    assert listed(desk.ask("GET", "/tasks", query={"since": "2026-11-21T12:00:03Z"})) == keys[:3]
    assert listed(desk.ask("GET", "/tasks", query={"since": "2026-11-21T14:00:03.001+02:00"})) == keys[:2]
    assert listed(desk.ask("GET", "/tasks", query={"since": "2030-01-01T00:00:00Z"})) == []


def test_since_is_when_tasks_changed_where_they_have_a_status(desk: Desk, clock: Clock) -> None:
    some_tasks(desk, clock, 3)
    fail(desk, clock, "flux-kontext-1")
    noted = clock.pass_by(seconds=1)
    fail(desk, clock, "flux-kontext-0")

    assert listed(desk.ask("GET", "/tasks", query={"status": "FAILED", "since": noted})) == [
        "flux-kontext#flux-kontext-0"
    ]


@pytest.mark.parametrize("status", [None, "PENDING"])
def test_only_one_providers_tasks(desk: Desk, clock: Clock, status: str | None) -> None:
    of_flux = some_tasks(desk, clock, 3)
    of_acedata = some_tasks(desk, clock, 3, "acedata")
    query = {"status": status} if status else {}

    assert listed(desk.ask("GET", "/tasks", query={"provider": "flux-kontext", **query})) == of_flux
    assert listed(desk.ask("GET", "/tasks", query={"provider": "acedata", **query})) == of_acedata
    assert listed(desk.ask("GET", "/tasks", query={"provider": "nanobanana", **query})) == []


# ------------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("status", [None, "PENDING"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_hold_every_task_once(desk: Desk, clock: Clock, status: str | None, limit: int) -> None:
    keys = some_tasks(desk, clock, 7)

    found = pages(desk, limit=limit, **({"status": status} if status else {}))

    assert [key for page in found for key in page] == keys
    assert all(len(page) <= limit for page in found)


@pytest.mark.parametrize("status", [None, "PENDING"])
@pytest.mark.parametrize("examined", [2, 3, 100])
def test_pages_of_a_provider_hold_each_of_its_tasks_once(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch, status: str | None, examined: int
) -> None:
    """However many entries are looked at for a page, which may be short or empty then."""
    for name in ("_BY_ARRIVAL", "_BY_STATUS"):
        index = getattr(task_queries, name)
        few = task_queries._Index(index.name, index.partition, index.order, examined)
        monkeypatch.setattr(task_queries, name, few)
    of_flux = some_tasks(desk, clock, 5)
    some_tasks(desk, clock, 4, "acedata")

    found = pages(desk, limit=2, provider="flux-kontext", **({"status": status} if status else {}))

    assert [key for page in found for key in page] == of_flux
    assert all(len(page) <= 2 for page in found)


def test_pages_go_on_where_they_ended_though_tasks_arrive(desk: Desk, clock: Clock) -> None:
    keys = some_tasks(desk, clock, 4)
    first = desk.ask("GET", "/tasks", query={"limit": 2})
    clock.pass_by(seconds=1)
    desk.register("newer")

    second = desk.ask("GET", "/tasks", query={"limit": 2, "cursor": first.body["cursor"]})

    assert listed(first) + listed(second) == keys


def test_pages_go_on_where_they_ended_though_the_last_task_is_deleted(desk: Desk, clock: Clock) -> None:
    keys = some_tasks(desk, clock, 4)
    first = desk.ask("GET", "/tasks", query={"limit": 2})
    desk.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": keys[1]}})

    second = desk.ask("GET", "/tasks", query={"limit": 2, "cursor": first.body["cursor"]})

    assert listed(second) == keys[2:]


def test_a_page_that_would_be_too_long_ends_early(desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = some_tasks(desk, clock, 5)
    monkeypatch.setattr(task_answers, "MAX_PAGE_BYTES", 700)

    found = pages(desk, limit=5)

    assert [key for page in found for key in page] == keys
    assert [len(page) for page in found] == [2, 2, 1]


def test_one_task_that_is_too_long_by_itself_is_a_page(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = some_tasks(desk, clock, 3)
    monkeypatch.setattr(task_answers, "MAX_PAGE_BYTES", 1)

    assert pages(desk, limit=5) == [[key] for key in keys]


def test_a_page_of_the_largest_tasks_is_an_answer_that_lambda_gives(desk: Desk) -> None:
    """All at once, as BatchGetItem brings them: moto's Query counts what an index does not hold."""
    long = "https://host.example/" + "x" * 2000
    image = {"kind": "result", "url": long, "expiresAt": "2026-12-01T00:00:00Z"}
    rows = [
        task_queries.Row(
            f"acedata#{number}",
            {"task": f"acedata#{number}", "status": "SUCCEEDED", "images": [image] * 32},
            str(number),
        )
        for number in range(100)
    ]

    page = task_answers.page_answer(task_queries.Page(rows, None), app.dependencies()._links(60))

    assert 0 < len(page.tasks) < 100
    assert page.cursor == str(len(page.tasks) - 1)
    assert len(page.model_dump_json(by_alias=True, exclude_none=True)) < LARGEST_ANSWER_BYTES


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["Query", "BatchGetItem"]),
        ({"provider": "flux-kontext"}, ["Query", "BatchGetItem"]),
        ({"since": "2026-11-21T12:00:03Z"}, ["Query", "BatchGetItem"]),
        ({"status": "PENDING"}, ["Query"]),
        ({"status": "PENDING", "provider": "flux-kontext", "since": "2026-11-21T12:00:03Z"}, ["Query"]),
        ({"provider": "acedata"}, ["Query"]),  # nothing to get
    ],
)
def test_a_page_is_one_query(desk: Desk, clock: Clock, query: dict[str, str], expected: list[str]) -> None:
    some_tasks(desk, clock, 5)

    with calls(desk) as made:
        answer = desk.ask("GET", "/tasks", query={"limit": 2, **query})
        if "cursor" in answer.body:
            desk.ask("GET", "/tasks", query={"limit": 2, **query, "cursor": answer.body["cursor"]})
            expected = expected * 2

    assert made == expected


def test_what_one_batch_could_not_bring_is_asked_for_again(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = some_tasks(desk, clock, 4)
    batch_get_item = desk.dynamodb.batch_get_item

    def half(RequestItems: dict[str, Any]) -> Any:  # noqa: N803 - boto3's name
        wanted = RequestItems[TABLE_NAME]["Keys"]
        left = wanted[2:]
        answer = batch_get_item(RequestItems={TABLE_NAME: {"Keys": wanted[:2]}})
        return answer | {"UnprocessedKeys": {TABLE_NAME: {"Keys": left}} if left else {}}

    monkeypatch.setattr(desk.dynamodb, "batch_get_item", half)

    assert listed(desk.ask("GET", "/tasks")) == keys


def test_items_that_are_no_tasks_do_not_hide_the_others(desk: Desk, clock: Clock) -> None:
    (key,) = some_tasks(desk, clock, 1)
    place = {"feed": "tasks", "arrivedAt": "2026-11-21T12:00:09.000Z", "updatedAt": "2026-11-21T12:00:09.000Z"}
    desk.store.put("flux-kontext#malformed", status="PENDING", images="none", **place)
    desk.store.put("<script>", status="PENDING", **place)

    for query in ({}, {"status": "PENDING"}):
        answer = desk.ask("GET", "/tasks", query=query)
        assert listed(answer) == [key]
        assert sorted(answer.body["unreadable"]) == ["<script>", "flux-kontext#malformed"]


def test_a_task_that_was_deleted_a_moment_ago_is_not_missed(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = some_tasks(desk, clock, 3)
    query = desk.dynamodb.query

    def then_deleted(**arguments: Any) -> Any:
        answer = query(**arguments)
        desk.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": keys[1]}})
        return answer

    monkeypatch.setattr(desk.dynamodb, "query", then_deleted)

    assert listed(desk.ask("GET", "/tasks")) == [keys[0], keys[2]]


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ({"status": "DONE"}, "status"),
        ({"status": "pending"}, "status"),
        ({"status": "PENDING,FAILED"}, "status"),
        ({"provider": "midjourney"}, "provider"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-11-21"}, "since"),
        ({"since": "2026-11-21T12:00:00"}, "since"),
        ({"since": "1763726400"}, "since"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"since": "2026-11-21T12:00:00 00:00"}, "since"),  # a plus that was not encoded
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "all"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "x" * 5000}, "cursor"),
        ({"linkSeconds": "0"}, "linkSeconds"),
        ({"wait": "1"}, "wait"),
        ({"page": "2"}, "page"),
    ],
)
def test_a_parameter_that_is_none(desk: Desk, query: dict[str, str], at: str) -> None:
    answer = desk.ask("GET", "/tasks", query=query)

    assert (answer.status, answer.problem) == (400, "invalid-parameter")
    assert [error["at"] for error in answer.body["errors"]] == [at]


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_cursor_belongs_to_its_filters(desk: Desk, clock: Clock) -> None:
    some_tasks(desk, clock, 4)
    cursor = desk.ask("GET", "/tasks", query={"limit": 2}).body["cursor"]

    for other in ({"status": "PENDING"}, {"provider": "acedata"}, {"since": "2026-11-21T12:00:00Z"}):
        answer = desk.ask("GET", "/tasks", query={"cursor": cursor, **other})
        assert (answer.status, answer.problem) == (400, "invalid-parameter")
    # How many are on a page, and how long their links live, is none of them.
    assert desk.ask("GET", "/tasks", query={"cursor": cursor, "limit": 3, "linkSeconds": 60}).status == 200


def test_a_cursor_that_was_made_up_leads_nowhere_else(desk: Desk, clock: Clock) -> None:
    some_tasks(desk, clock, 3)
    real = desk.ask("GET", "/tasks", query={"limit": 1}).body["cursor"]
    seal, task, moment = json.loads(base64.urlsafe_b64decode(real + "=="))

    made_up = [
        "cursor",
        "é",
        "////",
        "0",
        real[:-1] + "*",
        real + "AAAA",
        encoded(None),
        encoded({}),
        encoded([seal]),
        encoded([seal, task]),
        encoded([seal, task, moment, 1]),
        encoded([seal, task, 5]),
        encoded([seal, "", moment]),
        encoded([seal, task, ""]),
        encoded([seal, "\ud800", moment]),
        encoded([seal, task, "x" * 2049]),
        encoded(["0" * 12, task, moment]),
        encoded([[[[seal]]]]),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
    ]
    for cursor in made_up:
        answer = desk.ask("GET", "/tasks", query={"cursor": cursor})
        assert (answer.status, answer.problem) == (400, "invalid-parameter"), cursor


def test_a_cursor_that_leads_to_before_since(desk: Desk, clock: Clock) -> None:
    some_tasks(desk, clock, 3)
    query = {"limit": 1, "since": "2026-11-21T12:00:01Z"}
    seal, task, _ = json.loads(base64.urlsafe_b64decode(desk.ask("GET", "/tasks", query=query).body["cursor"] + "=="))

    answer = desk.ask("GET", "/tasks", query={**query, "cursor": encoded([seal, task, "2026-11-21T11:00:00.000Z"])})

    assert (answer.status, answer.problem) == (400, "invalid-parameter")


def test_a_table_that_does_not_answer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.register("a")
    monkeypatch.setenv("TASKS_TABLE", "no-such-table")
    desk.start_anew()

    for path in ("/tasks", "/tasks/flux-kontext/a", "/tasks/flux-kontext/a/images/result-0"):
        answer = desk.ask("GET", path)
        assert (answer.status, answer.problem) == (503, "unavailable")
    assert desk.submit().problem == "unavailable"
    assert desk.ask("DELETE", "/submissions/order-1").problem == "unavailable"


def test_every_route_of_the_handler_was_meant(desk: Desk) -> None:
    assert app.ROUTES.keys() == {
        "POST /tasks",
        "GET /tasks",
        "GET /tasks/{provider}/{taskId}",
        "GET /tasks/{provider}/{taskId}/images/{image}",
        "DELETE /submissions/{key}",
    }
