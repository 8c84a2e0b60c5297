"""GET /tasks: order, filters, validation of parameters, cursors."""

import base64
import json

import pytest

from catchlight.models import FailureReason
from tests.integration.tasks_api.api_harness import Clock, TasksApiHarness
from tests.integration.tasks_api.pages import encoded, fail, listed, some_tasks
from tests.integration.tasks_api.test_one_task import a_success, archived

# ------------------------------------------------------------------------------------------------ order


def test_an_empty_table_has_an_empty_list(api: TasksApiHarness) -> None:
    assert api.send("GET", "/tasks").body == {"tasks": [], "unreadable": []}


def test_the_newest_tasks_come_first(api: TasksApiHarness, clock: Clock) -> None:
    keys = some_tasks(api, clock, 5)

    assert listed(api.send("GET", "/tasks")) == keys


def test_an_update_of_a_task_does_not_change_its_place_in_the_list(api: TasksApiHarness, clock: Clock) -> None:
    keys = some_tasks(api, clock, 3)
    fail(api, clock, "flux-kontext-0")

    assert listed(api.send("GET", "/tasks")) == keys


def test_lists_of_one_status_have_the_latest_change_first(api: TasksApiHarness, clock: Clock) -> None:
    some_tasks(api, clock, 4)
    for task_id in ("flux-kontext-2", "flux-kontext-0"):
        fail(api, clock, task_id)

    assert listed(api.send("GET", "/tasks", query={"status": "FAILED"})) == [
        "flux-kontext#flux-kontext-0",
        "flux-kontext#flux-kontext-2",
    ]
    assert len(listed(api.send("GET", "/tasks", query={"status": "PENDING"}))) == 2
    assert listed(api.send("GET", "/tasks", query={"status": "ARCHIVED"})) == []


def test_an_unregistered_task_is_listed_after_its_callback(api: TasksApiHarness, clock: Clock) -> None:
    fail(api, clock, "unregistered")

    assert listed(api.send("GET", "/tasks")) == ["flux-kontext#unregistered"]


def test_an_item_written_by_hand_is_listed_after_its_first_report(api: TasksApiHarness, clock: Clock) -> None:
    api.store.register("flux-kontext#by-hand")
    assert listed(api.send("GET", "/tasks")) == []

    fail(api, clock, "by-hand")

    assert listed(api.send("GET", "/tasks")) == ["flux-kontext#by-hand"]


def test_listed_tasks_have_all_attributes_and_their_links(api: TasksApiHarness) -> None:
    a_success(api, archived())

    by_arrival = api.send("GET", "/tasks").body["tasks"]
    by_status = api.send("GET", "/tasks", query={"status": "ARCHIVED"}).body["tasks"]
    alone = api.send("GET", "/tasks/flux-kontext/task12345").body

    for shown in (by_arrival[0], by_status[0], alone):
        assert shown["images"][0].pop("link").startswith("https://")
    assert by_arrival == by_status == [alone]


def test_link_seconds_sets_the_lifetime_of_links(api: TasksApiHarness) -> None:
    a_success(api, archived())

    (task,) = api.send("GET", "/tasks", query={"linkSeconds": 3600}).body["tasks"]

    assert task["images"][0]["linkExpiresAt"] == "2026-11-21T13:00:00.000Z"
    assert "X-Amz-Expires=3600" in task["images"][0]["link"]


# ------------------------------------------------------------------------------------------------ filters


def test_since_without_a_status_compares_the_time_of_arrival(api: TasksApiHarness, clock: Clock) -> None:
    keys = some_tasks(api, clock, 5)

    assert listed(api.send("GET", "/tasks", query={"since": "2026-11-21T12:00:03Z"})) == keys[:3]
    assert listed(api.send("GET", "/tasks", query={"since": "2026-11-21T14:00:03.001+02:00"})) == keys[:2]
    assert listed(api.send("GET", "/tasks", query={"since": "2030-01-01T00:00:00Z"})) == []


def test_since_with_a_status_compares_the_time_of_the_last_change(api: TasksApiHarness, clock: Clock) -> None:
    some_tasks(api, clock, 3)
    fail(api, clock, "flux-kontext-1")
    first_change = clock.pass_by(seconds=1)
    fail(api, clock, "flux-kontext-0")

    assert listed(api.send("GET", "/tasks", query={"status": "FAILED", "since": first_change})) == [
        "flux-kontext#flux-kontext-0"
    ]


@pytest.mark.parametrize("status", [None, "PENDING"])
def test_tasks_can_be_filtered_by_provider(api: TasksApiHarness, clock: Clock, status: str | None) -> None:
    flux_tasks = some_tasks(api, clock, 3)
    acedata_tasks = some_tasks(api, clock, 3, "acedata")
    query = {"status": status} if status else {}

    assert listed(api.send("GET", "/tasks", query={"provider": "flux-kontext", **query})) == flux_tasks
    assert listed(api.send("GET", "/tasks", query={"provider": "acedata", **query})) == acedata_tasks
    assert listed(api.send("GET", "/tasks", query={"provider": "nanobanana", **query})) == []


@pytest.mark.parametrize("status", [None, "FAILED"])
def test_tasks_can_be_filtered_by_failure_reason(api: TasksApiHarness, clock: Clock, status: str | None) -> None:
    some_tasks(api, clock, 3)
    fail(api, clock, "flux-kontext-0", reason=FailureReason.CONTENT_POLICY)
    fail(api, clock, "flux-kontext-2")
    query = {"status": status} if status else {}

    policy_violations = api.send("GET", "/tasks", query={"reason": "CONTENT_POLICY", **query})
    assert listed(policy_violations) == ["flux-kontext#flux-kontext-0"]
    assert listed(api.send("GET", "/tasks", query={"reason": "INTERNAL", **query})) == ["flux-kontext#flux-kontext-2"]
    assert listed(api.send("GET", "/tasks", query={"reason": "OTHER", **query})) == []


# ------------------------------------------------------------------------------------------------ invalid input


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
        ({"since": "2026-11-21T12:00:00 00:00"}, "since"),  # the plus sign was not percent-encoded
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "all"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "x" * 5000}, "cursor"),
        ({"linkSeconds": "0"}, "linkSeconds"),
        ({"wait": "1"}, "wait"),
        ({"page": "2"}, "page"),
        ({"reason": "internal"}, "reason"),
    ],
)
def test_invalid_parameters_are_rejected(api: TasksApiHarness, query: dict[str, str], at: str) -> None:
    response = api.send("GET", "/tasks", query=query)

    assert (response.status, response.problem) == (400, "invalid-parameter")
    assert [error["at"] for error in response.body["errors"]] == [at]


def test_a_cursor_is_rejected_with_other_filters(api: TasksApiHarness, clock: Clock) -> None:
    some_tasks(api, clock, 4)
    cursor = api.send("GET", "/tasks", query={"limit": 2}).body["cursor"]

    for other in (
        {"status": "PENDING"},
        {"provider": "acedata"},
        {"reason": "OTHER"},
        {"since": "2026-11-21T12:00:00Z"},
    ):
        response = api.send("GET", "/tasks", query={"cursor": cursor, **other})
        assert (response.status, response.problem) == (400, "invalid-parameter")
    # The page's size and the links' time of expiry are not part of the filters.
    assert api.send("GET", "/tasks", query={"cursor": cursor, "limit": 3, "linkSeconds": 60}).status == 200


def test_forged_cursors_are_rejected(api: TasksApiHarness, clock: Clock) -> None:
    some_tasks(api, clock, 3)
    real = api.send("GET", "/tasks", query={"limit": 1}).body["cursor"]
    seal, task, moment = json.loads(base64.urlsafe_b64decode(real + "=="))

    forged = [
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
    for cursor in forged:
        response = api.send("GET", "/tasks", query={"cursor": cursor})
        assert (response.status, response.problem) == (400, "invalid-parameter"), cursor


def test_a_cursor_with_a_time_before_since_is_rejected(api: TasksApiHarness, clock: Clock) -> None:
    some_tasks(api, clock, 3)
    query = {"limit": 1, "since": "2026-11-21T12:00:01Z"}
    seal, task, _ = json.loads(base64.urlsafe_b64decode(api.send("GET", "/tasks", query=query).body["cursor"] + "=="))

    response = api.send("GET", "/tasks", query={**query, "cursor": encoded([seal, task, "2026-11-21T11:00:00.000Z"])})

    assert (response.status, response.problem) == (400, "invalid-parameter")


def test_an_unavailable_table_is_a_503(api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    api.register("a")
    monkeypatch.setenv("TASKS_TABLE", "no-such-table")
    api.restart()

    for path in ("/tasks", "/tasks/flux-kontext/a", "/tasks/flux-kontext/a/images/result-0"):
        response = api.send("GET", path)
        assert (response.status, response.problem) == (503, "unavailable")
    assert api.submit().problem == "unavailable"
    assert api.send("DELETE", "/submissions/order-1").problem == "unavailable"
