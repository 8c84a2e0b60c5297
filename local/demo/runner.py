"""Plays the cases as a user of the services would: submits, registers, watches the table."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
from boto3.dynamodb.types import TypeDeserializer

from catchlight.models import TaskStatus, iso, utc_now
from local.demo.cases import Case
from local.simulator import Simulator

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_WATCH_INTERVAL_SECONDS = 0.15
# As people do it: not all at the same moment. It also spares a small machine a dozen cold starts at once.
_SUBMIT_INTERVAL_SECONDS = 0.1
_AT_THE_END = {TaskStatus.ARCHIVED, TaskStatus.INCOMPLETE, TaskStatus.FAILED, TaskStatus.TIMED_OUT}

_deserialize = TypeDeserializer().deserialize


class DemoError(Exception):
    """The demo cannot go on."""


@dataclass(slots=True)
class Played:
    """A case under way: when it was submitted, and its item as last seen."""

    case: Case
    submitted_at: float | None = None
    forgery_answer: int | None = None  # the HTTP status that a stranger got
    item: Mapping[str, Any] | None = None

    @property
    def status(self) -> TaskStatus | None:
        """The item's status, None while there is no item."""
        return TaskStatus(self.item["status"]) if self.item else None

    @property
    def is_at_its_end(self) -> bool:
        """Nothing more is to come."""
        return self.status in _AT_THE_END

    @property
    def seconds(self) -> float | None:
        """From the submission to the end."""
        if self.item is None or self.submitted_at is None or not self.is_at_its_end:
            return None
        ended = self.item.get("archivedAt") or self.item.get("reportedAt") or self.item["updatedAt"]
        return max(0.0, datetime.fromisoformat(ended).astimezone(UTC).timestamp() - self.submitted_at)


def submit_and_register(
    tasks: Sequence[Played],
    simulator: Simulator,
    dynamodb: "DynamoDBClient",
    table: str,
    callback_urls: Mapping[str, str],
    submit_by_api: Callable[[Case], Case],
) -> Iterator[Played]:
    """Submits each task to its service, registers it as users do, lets strangers have a try, and yields it.

    Raises:
        DemoError: a service did not take a task.
    """
    with httpx.Client(trust_env=False, timeout=20) as http:
        for played in tasks:
            case = played.case
            played.submitted_at = time.time()
            if case.by_api:
                played.case = submit_by_api(case)
                yield played
                continue
            answer = http.post(
                simulator.provider_urls[case.provider] + case.path,
                json=case.request(callback_urls[case.provider]),
                headers={
                    "Authorization": "Bearer demo",
                    "X-Simulate": case.script_name,
                    "X-Simulate-Task-Id": case.task_id,
                },
            ).json()
            if case.task_id not in (answer.get("task_id"), (answer.get("data") or {}).get("taskId")):
                raise DemoError(f"the simulator did not take {case.key}: {answer}")
            register(dynamodb, table, case)
            if case.forgery:
                url = callback_urls[case.provider]
                played.forgery_answer = case.forgery.post(http, url, case.task_id, simulator.url)
            yield played
            time.sleep(_SUBMIT_INTERVAL_SECONDS)


def register(dynamodb: "DynamoDBClient", table: str, case: Case) -> None:
    """Puts the item of a new task, unless a callback was faster."""
    now = iso(utc_now())
    with suppress(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.put_item(
            TableName=table,
            Item={
                "task": {"S": case.key},
                "provider": {"S": case.provider},
                "taskId": {"S": case.task_id},
                "status": {"S": TaskStatus.PENDING.value},
                "rank": {"N": str(TaskStatus.PENDING.rank)},
                "registeredAt": {"S": now},
                "updatedAt": {"S": now},
            },
            ConditionExpression="attribute_not_exists(task)",
        )


def watch(
    tasks: Sequence[Played], simulator: Simulator, dynamodb: "DynamoDBClient", table: str, *, deadline: float
) -> Iterator[list[Played]]:
    """Yields those whose item has changed, again and again, until all are at their end and nothing more is delivered.

    `deadline`, on the monotonic clock, ends it in any case.
    """
    while True:
        # Asked before the table: what was delivered by now is in what is read now.
        all_delivered = simulator.outstanding_callbacks == 0
        items = _items(dynamodb, table, tasks)
        yield [played for played in tasks if _has_changed(played, items)]
        if (all_delivered and all(played.is_at_its_end for played in tasks)) or time.monotonic() > deadline:
            return
        time.sleep(_WATCH_INTERVAL_SECONDS)


def _items(dynamodb: "DynamoDBClient", table: str, tasks: Sequence[Played]) -> dict[str, dict[str, Any]]:
    keys: list[Any] = [{"task": {"S": played.case.key}} for played in tasks]
    answer = dynamodb.batch_get_item(RequestItems={table: {"Keys": keys, "ConsistentRead": True}})
    items = ({name: _deserialize(value) for name, value in item.items()} for item in answer["Responses"][table])
    return {item["task"]: item for item in items}


def _has_changed(played: Played, items: Mapping[str, Mapping[str, Any]]) -> bool:
    before, played.item = played.item, items.get(played.case.key)
    return before != played.item
