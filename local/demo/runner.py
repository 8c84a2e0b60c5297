"""Submits the demo's tasks to the services, registers them, and watches the table until all are final."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from catchlight.api.response_models import FINAL_STATUSES
from catchlight.aws.dynamodb import deserialized
from catchlight.client import TasksClient
from catchlight.models import TaskStatus
from local.demo.cases import Case
from local.simulator import Simulator

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_WATCH_INTERVAL_SECONDS = 0.15
# The submissions are spread over time, as those of real users: a dozen simultaneous cold starts overload a small
# machine.
_SUBMIT_INTERVAL_SECONDS = 0.1


class DemoError(Exception):
    """The demo cannot continue."""


@dataclass(slots=True)
class DemoTask:
    """A case, with the time of its submission and its item as last read."""

    case: Case
    submitted_at: float | None = None
    forgery_status: int | None = None  # HTTP status of the response to the forged callback
    item: Mapping[str, Any] | None = None

    @property
    def status(self) -> TaskStatus | None:
        """The item's status; None while there is no item."""
        return TaskStatus(self.item["status"]) if self.item else None

    @property
    def is_final(self) -> bool:
        """Whether the task has a final status."""
        return self.status in FINAL_STATUSES

    @property
    def seconds(self) -> float | None:
        """Seconds from the submission to the final status; None if the task is not final."""
        if self.item is None or self.submitted_at is None or not self.is_final:
            return None
        reported_at = None if self.status is TaskStatus.UNCONFIRMED else self.item.get("reportedAt")
        ended = self.item.get("archivedAt") or reported_at or self.item["updatedAt"]
        return max(0.0, datetime.fromisoformat(ended).astimezone(UTC).timestamp() - self.submitted_at)


def submit_and_register(
    tasks: Sequence[DemoTask],
    simulator: Simulator,
    api: TasksClient,
    callback_urls: Mapping[str, str],
    submit_by_api: Callable[[Case], Case],
) -> Iterator[DemoTask]:
    """Submits each task to its service, registers it, posts its forged callback if any, and yields it.

    Raises:
        DemoError: a service did not accept a task.
    """
    with httpx.Client(trust_env=False, timeout=60) as http:
        for task in tasks:
            case = task.case
            task.submitted_at = time.time()
            if case.by_api:
                task.case = submit_by_api(case)
                yield task
                continue
            response = http.post(
                simulator.provider_urls[case.provider] + case.path,
                json=case.request(callback_urls[case.provider]),
                headers={
                    "Authorization": "Bearer demo",
                    "X-Simulate": case.scenario_name,
                    "X-Simulate-Task-Id": case.task_id,
                },
            ).json()
            if case.task_id not in (response.get("task_id"), (response.get("data") or {}).get("taskId")):
                raise DemoError(f"the simulator did not accept {case.key}: {response}")
            api.register(case.provider, [case.task_id])
            if case.forgery:
                url = callback_urls[case.provider]
                task.forgery_status = case.forgery.post(http, url, case.task_id, simulator.url)
            yield task
            time.sleep(_SUBMIT_INTERVAL_SECONDS)


def watch(
    tasks: Sequence[DemoTask], simulator: Simulator, dynamodb: "DynamoDBClient", table: str, *, deadline: float
) -> Iterator[list[DemoTask]]:
    """Reads the items repeatedly and yields the tasks whose item has changed since the last time.

    Ends when all tasks have a final status and no callback is outstanding, at the latest at `deadline` (monotonic
    clock).
    """
    while True:
        # Checked before the table is read, so that the items read include every callback delivered by then.
        all_delivered = simulator.outstanding_callbacks == 0
        items = _items(dynamodb, table, tasks)
        yield [task for task in tasks if _has_changed(task, items)]
        if (all_delivered and all(task.is_final for task in tasks)) or time.monotonic() > deadline:
            return
        time.sleep(_WATCH_INTERVAL_SECONDS)


def _items(dynamodb: "DynamoDBClient", table: str, tasks: Sequence[DemoTask]) -> dict[str, dict[str, Any]]:
    keys: list[Any] = [{"task": {"S": task.case.key}} for task in tasks]
    response = dynamodb.batch_get_item(RequestItems={table: {"Keys": keys, "ConsistentRead": True}})
    return {item["task"]: item for item in map(deserialized, response["Responses"][table])}


def _has_changed(task: DemoTask, items: Mapping[str, Mapping[str, Any]]) -> bool:
    before, task.item = task.item, items.get(task.case.key)
    return before != task.item
