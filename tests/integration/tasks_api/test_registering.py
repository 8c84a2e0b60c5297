"""POST /tasks registers tasks that other programs submitted, once each, before or after their callback."""

from typing import Any

import pytest

from catchlight.models import Reporter, TaskReport, TaskStatus
from tests.integration.conftest import TABLE_NAME
from tests.integration.tasks_api.api_harness import NOW, Clock, TasksApiHarness, lost

TASK = "flux-kontext#task12345"


def outcomes(body: Any) -> list[tuple[str, str]]:
    return [(entry["task"], entry["outcome"]) for entry in body["tasks"]]


def test_a_registered_task_has_the_documented_attributes(api: TasksApiHarness) -> None:
    response = api.register("task12345")

    assert (response.status, outcomes(response.body)) == (200, [(TASK, "registered")])
    assert api.store.items() == [
        {
            "task": TASK,
            "provider": "flux-kontext",
            "taskId": "task12345",
            "status": "PENDING",
            "rank": 0,
            "registeredAt": "2026-11-21T12:00:00.000Z",
            "updatedAt": "2026-11-21T12:00:00.000Z",
            "feed": "tasks",
            "arrivedAt": "2026-11-21T12:00:00.000Z",
        }
    ]


def test_a_known_task_is_not_changed_by_registering_it_again(api: TasksApiHarness, clock: Clock) -> None:
    api.register("task12345")
    before = api.store.items()
    clock.pass_by(hours=1)

    response = api.register("new", "task12345")

    assert outcomes(response.body) == [("flux-kontext#new", "registered"), (TASK, "known")]
    assert [item for item in api.store.items() if item["task"] == TASK] == before


def test_a_task_is_known_if_its_report_arrived_before_its_registration(api: TasksApiHarness) -> None:
    report = TaskReport(
        provider="flux-kontext",
        task_id="task12345",
        status=TaskStatus.PENDING,
        reported_by=Reporter.POLL,
        reported_at=NOW,
    )
    api.store.reports.record(report)

    assert outcomes(api.register("task12345").body) == [(TASK, "known")]


def test_a_duplicate_id_in_one_request_is_known_the_second_time(api: TasksApiHarness) -> None:
    assert outcomes(api.register("a", "b", "a").body) == [
        ("flux-kontext#a", "registered"),
        ("flux-kontext#b", "registered"),
        ("flux-kontext#a", "known"),
    ]


def test_one_request_registers_at_most_a_hundred_tasks(api: TasksApiHarness) -> None:
    ids = [f"task{number}" for number in range(100)]

    assert {entry["outcome"] for entry in api.register(*ids, provider="acedata").body["tasks"]} == {"registered"}
    assert len(api.store.items()) == 100
    assert api.register(*ids, "one-more").problem == "invalid-request"


def test_the_same_id_at_two_providers_means_two_tasks(api: TasksApiHarness) -> None:
    api.register("a", provider="flux-kontext")

    assert outcomes(api.register("a", provider="nanobanana").body) == [("nanobanana#a", "registered")]


@pytest.mark.parametrize("arrives", [True, False])
def test_a_failed_registration_can_be_repeated(
    api: TasksApiHarness, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(api.dynamodb, "update_item", lost(api.dynamodb.update_item, arrives=arrives))
        response = api.register("a", "b")
    assert (response.status, response.problem) == (503, "unavailable")
    assert int(response.headers["retry-after"]) > 0

    # The writes run in parallel: after the first error, the other may not have been sent.
    written = {item["task"] for item in api.store.items()}
    assert bool(written) == arrives
    expected = [(task, "known" if task in written else "registered") for task in ("flux-kontext#a", "flux-kontext#b")]
    assert outcomes(api.register("a", "b").body) == expected


def test_the_idempotency_key_header_is_ignored(api: TasksApiHarness) -> None:
    body = {"provider": "acedata", "taskIds": ["a"]}

    assert api.send("POST", "/tasks", body=body, headers={"Idempotency-Key": "x y"}).status == 200


@pytest.mark.parametrize(
    ("body", "status", "problem", "at"),
    [
        (b"", 400, "malformed-body", None),
        (b"{", 400, "malformed-body", None),
        (b"\xff", 400, "malformed-body", None),
        (b'{"provider": "acedata", "provider": "acedata", "taskIds": ["a"]}', 400, "malformed-body", None),
        (b"[" * 100_000, 400, "malformed-body", None),
        (b" " * (256 * 1024 + 1), 413, "body-too-large", None),
        ([], 422, "invalid-request", None),
        ("taskIds", 422, "invalid-request", None),
        ({}, 422, "invalid-request", None),
        ({"provider": "acedata"}, 422, "invalid-request", "taskIds"),
        ({"provider": "acedata", "taskIds": ["a"], "request": {"prompt": "p"}}, 422, "invalid-request", "request"),
        ({"taskIds": ["a"]}, 422, "invalid-request", "provider"),
        ({"provider": "midjourney", "taskIds": ["a"]}, 422, "invalid-request", "provider"),
        ({"provider": 1, "taskIds": ["a"]}, 422, "invalid-request", "provider"),
        ({"provider": "acedata", "taskIds": []}, 422, "invalid-request", "taskIds"),
        ({"provider": "acedata", "taskIds": "a"}, 422, "invalid-request", "taskIds"),
        ({"provider": "acedata", "taskIds": ["a", "b c"]}, 422, "invalid-request", "taskIds.1"),
        ({"provider": "acedata", "taskIds": ["a", None]}, 422, "invalid-request", "taskIds.1"),
        ({"provider": "acedata", "taskIds": ["a\n", "b"]}, 422, "invalid-request", "taskIds.0"),
        ({"provider": "acedata", "taskIds": ["b c"]}, 422, "invalid-request", "taskIds.0"),
        ({"provider": "acedata", "taskIds": ["a" * 129, "b"]}, 422, "invalid-request", "taskIds.0"),
        ({"provider": "acedata", "taskIds": ["a"], "tasks": []}, 422, "invalid-request", "tasks"),
        ({"provider": "acedata", "taskIds": ["a"], "\ud800": []}, 422, "invalid-request", "body"),
    ],
)
def test_malformed_registrations_are_rejected(
    api: TasksApiHarness, body: Any, status: int, problem: str, at: str | None
) -> None:
    response = api.send("POST", "/tasks", body=body)

    assert (response.status, response.problem) == (status, problem)
    assert [error["at"] for error in response.body.get("errors", [])] == ([at] if at else [])
    assert api.store.client.scan(TableName=TABLE_NAME)["Count"] == 0


def test_a_response_lists_at_most_ten_errors(api: TasksApiHarness) -> None:
    response = api.register(*["not an id"] * 100)

    assert len(response.body["errors"]) == 10


def test_a_base64_encoded_body_is_decoded(api: TasksApiHarness) -> None:
    """API Gateway encodes the body if the content type is not a text type."""
    response = api.send(
        "POST", "/tasks", body={"provider": "acedata", "taskIds": ["a"]}, headers={"content-type": "application/x"}
    )

    assert response.status == 200


# ------------------------------------------------------------------------------------------------ metadata


def register_with(api: TasksApiHarness, metadata: Any, *task_ids: str) -> Any:
    body = {"provider": "flux-kontext", "taskIds": list(task_ids), "metadata": metadata}
    return api.send("POST", "/tasks", body=body)


def test_metadata_is_returned_and_filters_lists(api: TasksApiHarness, clock: Clock) -> None:
    for number in range(3):
        assert register_with(api, {"order": str(number % 2), "shop": "a=b"}, f"task{number}").status == 200
        clock.pass_by(minutes=1)

    assert api.send("GET", "/tasks/flux-kontext/task1").body["metadata"] == {"order": "1", "shop": "a=b"}
    for more in ({}, {"status": "PENDING"}):
        page = api.send("GET", "/tasks", query={"metadata": "order=0", **more})
        assert [task["taskId"] for task in page.body["tasks"]] == ["task2", "task0"]
    assert len(api.send("GET", "/tasks", query={"metadata": "shop=a=b"}).body["tasks"]) == 3
    assert api.send("GET", "/tasks", query={"metadata": "order="}).body["tasks"] == []


def test_a_list_filtered_by_metadata_continues_at_its_cursor(api: TasksApiHarness, clock: Clock) -> None:
    for number in range(5):
        register_with(api, {"even": str(number % 2 == 0)}, f"task{number}")
        clock.pass_by(minutes=1)

    first = api.send("GET", "/tasks", query={"metadata": "even=True", "limit": 2}).body
    second = api.send("GET", "/tasks", query={"metadata": "even=True", "limit": 2, "cursor": first["cursor"]}).body

    assert [task["taskId"] for page in (first, second) for task in page["tasks"]] == ["task4", "task2", "task0"]
    assert "cursor" not in second
    other = api.send("GET", "/tasks", query={"metadata": "even=False", "limit": 2, "cursor": first["cursor"]})
    assert other.status == 400


def test_metadata_is_added_to_a_known_task_once(api: TasksApiHarness) -> None:
    api.register("task12345")

    assert outcomes(register_with(api, {"order": "1"}, "task12345").body) == [(TASK, "known")]
    assert outcomes(register_with(api, {"order": "2"}, "task12345").body) == [(TASK, "known")]

    (item,) = api.store.items()
    assert item["metadata"] == {"order": "1"}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"": "x"},
        {"a b": "x"},
        {"a": 5},
        {"a": "x" * 257},
        {f"name{number}": "x" * 250 for number in range(9)},
        "order",
    ],
)
def test_metadata_beyond_its_limits_is_rejected(api: TasksApiHarness, metadata: Any) -> None:
    assert register_with(api, metadata, "task12345").status == 422
    assert api.store.items() == []


def test_a_ref_is_added_to_known_tasks_without_one(api: TasksApiHarness) -> None:
    for ref, task_ids in (("r1", ["a"]), ("r2", ["a", "b"])):
        api.send("POST", "/tasks", body={"provider": "flux-kontext", "taskIds": task_ids, "ref": ref})

    assert [api.send("GET", f"/tasks/flux-kontext/{task_id}").body["ref"] for task_id in ("a", "b")] == ["r1", "r2"]
    malformed = {"provider": "flux-kontext", "taskIds": ["a"], "ref": "a b"}
    assert api.send("POST", "/tasks", body=malformed).status == 422
