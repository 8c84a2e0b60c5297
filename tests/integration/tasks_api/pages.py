"""Tasks one after the other, and the pages on which they are listed."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from catchlight.models import Failure, FailureReason, Reporter, TaskReport, TaskStatus
from tests.integration.tasks_api.api_harness import Answer, Clock, Desk


@contextmanager
def calls(api: Desk) -> Iterator[list[str]]:
    """The calls of DynamoDB that are made meanwhile."""
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    api.dynamodb.meta.events.register("before-call.dynamodb", note)
    yield made
    api.dynamodb.meta.events.unregister("before-call.dynamodb", note)


def some_tasks(api: Desk, clock: Clock, number: int, provider: str = "flux-kontext") -> list[str]:
    """Registers tasks one after the other; their keys, the newest first."""
    keys: list[str] = []
    for index in range(number):
        clock.pass_by(seconds=1)
        api.register(f"{provider}-{index}", provider=provider)
        keys.insert(0, f"{provider}#{provider}-{index}")
    return keys


def fail(api: Desk, clock: Clock, task_id: str, provider: str = "flux-kontext") -> None:
    clock.pass_by(seconds=1)
    report = TaskReport(
        provider=provider,
        task_id=task_id,
        status=TaskStatus.FAILED,
        reported_by=Reporter.CALLBACK,
        reported_at=clock.now,
        failure=Failure(reason=FailureReason.INTERNAL),
    )
    api.store.table.record(report)


def listed(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [task["task"] for task in answer.body["tasks"]]


def pages(api: Desk, **query: Any) -> list[list[str]]:
    """All pages of a query, each asked for with the cursor of the one before."""
    found = []
    while True:
        answer = api.ask("GET", "/tasks", query=query)
        found.append(listed(answer))
        assert len(found) < 100
        if "cursor" not in answer.body:
            return found
        query["cursor"] = answer.body["cursor"]


def encoded(value: Any) -> str:
    """As a cursor is spelt."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
