"""Reads the tasks table, and updates its items conditionally: the basis of the other modules of this package."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from catchlight.aws.dynamodb import UpdateExpression, batch_get, deserialized, malformed_attributes, store_errors
from catchlight.errors import StoreUnavailableError
from catchlight.models import GenerationRequest, Model, TaskStatus, iso
from catchlight.tasks.task import Task

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# The value of the partition key of all entries of the index byArrival. The template describes the resulting throughput.
FEED = "tasks"


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The result of a conditional update."""

    is_applied: bool
    # In DynamoDB's format. Of an applied update: the attributes that `returns` requests. Otherwise: the stored item.
    attributes: Mapping[str, Any] = field(default_factory=dict)


class TasksTable:
    """One item per task, with the partition key `task`.

    Every method raises StoreUnavailableError when a call to DynamoDB fails. A write may have been applied nevertheless;
    repeating it is safe.
    """

    def __init__(self, name: str, client: "DynamoDBClient", *, retention: timedelta | None = None) -> None:
        self._name = name
        self._client = client
        # Time after which DynamoDB deletes a task whose processing has ended; None: never.
        self._retention = retention

    def get(self, task: str) -> Task | None:
        """Reads a task (strongly consistent); None if the table has no such item."""
        with store_errors():
            answer = self._client.get_item(TableName=self._name, Key=_key(task), ConsistentRead=True)
        return parse_item(answer["Item"]) if "Item" in answer else None

    def get_many(
        self, tasks: Sequence[str], *, unreadable: Callable[[str, str], None] | None = None
    ) -> dict[str, Task]:
        """Reads several tasks (strongly consistent) and returns those that exist, by key.

        A malformed item is omitted, and `unreadable` is called with its key and the names of its malformed attributes.
        """
        keys = [_key(task) for task in dict.fromkeys(tasks)]
        items = batch_get(self._client, self._name, keys, consistent_read=True)
        return {task.task: task for task in readable_tasks(items, unreadable)}

    def update(
        self,
        task: str,
        update: UpdateExpression,
        *,
        condition: str,
        returns: Literal["NONE", "UPDATED_OLD", "ALL_NEW"] = "NONE",
    ) -> UpdateResult:
        """Updates a task's item, or creates it, if the condition holds. Otherwise nothing is written."""
        try:
            with store_errors():
                answer = self._client.update_item(
                    TableName=self._name,
                    Key=_key(task),
                    ConditionExpression=condition,
                    # If the condition fails, DynamoDB returns the stored item. A second call could read a later state.
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    ReturnValues=returns,
                    **update.arguments(),
                )
        except self._client.exceptions.ConditionalCheckFailedException as exc:
            return UpdateResult(False, exc.response.get("Item", {}))  # type: ignore[arg-type] # the stubs leave it out
        return UpdateResult(True, answer.get("Attributes", {}))

    def set_delete_after(self, update: UpdateExpression, status: TaskStatus, now: datetime) -> None:
        """Sets `deleteAfter` (epoch seconds), the time when DynamoDB deletes the item.

        PENDING and SUCCEEDED tasks have none, because they are still polled or archived.
        """
        if self._retention is None:
            return
        if status in (TaskStatus.PENDING, TaskStatus.SUCCEEDED):
            update.remove("deleteAfter")
        else:
            update.set("deleteAfter", int((now + self._retention).timestamp()))


def parse_item(item: Mapping[str, Any]) -> Task:
    """Converts an item to a task.

    Raises:
        StoreUnavailableError: the item was edited by hand and is malformed.
    """
    try:
        return Task.model_validate(deserialized(item))
    except ValidationError as exc:
        attributes = malformed_attributes(exc)
        raise StoreUnavailableError(f"the task's item is malformed, repair it by hand: {attributes}") from exc


def readable_tasks(items: Iterable[Mapping[str, Any]], unreadable: Callable[[str, str], None] | None) -> Iterator[Task]:
    """Converts items to tasks, without the malformed ones: calls `unreadable` as `TasksTable.get_many` does."""
    for item in items:
        # Users can edit items by hand: a malformed item must not prevent reading the other ones.
        try:
            task = Task.model_validate(deserialized(item))
        except ValidationError as exc:
            if unreadable:
                unreadable(item["task"]["S"], malformed_attributes(exc))
        else:
            yield task


def document(model: Model) -> dict[str, Any]:
    """Returns a model in the form in which it is stored: without the fields that are None."""
    return model.model_dump(by_alias=True, exclude_none=True)


def is_as_read(task: Task, update: UpdateExpression) -> str:
    """Returns the condition that the task has not changed since it was read."""
    return " AND ".join((update.equals("status", task.status.value), update.equals("updatedAt", task.updated_at)))


def set_arrival(update: UpdateExpression, moment: datetime) -> None:
    """Adds a task to the index byArrival with the time of its first write. Later writes do not change this time."""
    update.set_once("feed", FEED)
    update.set_once("arrivedAt", iso(moment))


def set_required(update: UpdateExpression, provider_id: str, task_id: str, status: TaskStatus, now: datetime) -> None:
    """Adds the attributes that an item needs to be in the indexes and to be updated by the archiver, if it lacks them.

    `status`: the status that the item has or gets.
    """
    update.set_once("provider", provider_id)
    update.set_once("taskId", task_id)
    update.set_once("rank", status.rank)
    update.set_once("updatedAt", iso(now))
    set_arrival(update, now)


def set_status(update: UpdateExpression, status: TaskStatus, now: datetime) -> None:
    """Sets a task's status, its rank and the time of this change."""
    update.set("status", status.value)
    update.set("rank", status.rank)
    update.set("updatedAt", iso(now))


def complete_request(
    update: UpdateExpression, reported: GenerationRequest | None, stored: GenerationRequest | None
) -> None:
    """Adds the request's parameters that the item lacks. Existing ones stay: they may come from the submission."""
    if reported and stored:
        # Attribute by attribute, because `request` may contain attributes that users added and the model ignores.
        for name, value in document(reported.missing_in(stored)).items():
            update.set_once(f"request.{name}", value)
    elif reported:
        update.set_once("request", document(reported))


def _key(task: str) -> dict[str, Any]:
    return {"task": {"S": task}}
