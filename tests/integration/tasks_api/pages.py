"""Creates tasks in sequence, and reads the pages that list them."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from catchlight.models import Failure, FailureReason, Reporter, TaskReport, TaskStatus
from tests.integration.tasks_api.api_harness import Clock, Response, TasksApiHarness


@contextmanager
def calls(api: TasksApiHarness) -> Iterator[list[str]]:
    """Yields the list of DynamoDB calls made in the block."""
    operations: list[str] = []

    def record(model: Any, **_: Any) -> None:
        operations.append(model.name)

    api.dynamodb.meta.events.register("before-call.dynamodb", record)
    yield operations
    api.dynamodb.meta.events.unregister("before-call.dynamodb", record)


def some_tasks(api: TasksApiHarness, clock: Clock, number: int, provider: str = "flux-kontext") -> list[str]:
    """Registers tasks in sequence and returns their keys, the newest first."""
    keys: list[str] = []
    for index in range(number):
        clock.pass_by(seconds=1)
        api.register(f"{provider}-{index}", provider=provider)
        keys.insert(0, f"{provider}#{provider}-{index}")
    return keys


def fail(
    api: TasksApiHarness,
    clock: Clock,
    task_id: str,
    provider: str = "flux-kontext",
    reason: FailureReason = FailureReason.INTERNAL,
) -> None:
    clock.pass_by(seconds=1)
    report = TaskReport(
        provider=provider,
        task_id=task_id,
        status=TaskStatus.FAILED,
        reported_by=Reporter.CALLBACK,
        reported_at=clock.now,
        failure=Failure(reason=reason),
    )
    api.store.reports.record(report)


def listed(response: Response) -> list[str]:
    assert response.status == 200, response
    return [task["task"] for task in response.body["tasks"]]


def pages(api: TasksApiHarness, **query: Any) -> list[list[str]]:
    """Returns all pages of a query, each requested with the cursor of the previous one."""
    found = []
    while True:
        response = api.send("GET", "/tasks", query=query)
        found.append(listed(response))
        assert len(found) < 100
        if "cursor" not in response.body:
            return found
        query["cursor"] = response.body["cursor"]


def encoded(value: Any) -> str:
    """Encodes a value in the format of a cursor."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
