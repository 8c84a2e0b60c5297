"""The tasks table: one item per task, one conditional write for all news."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict, cast

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from image_tasks.errors import StoreUnavailableError
from image_tasks.models import Conflict, Image, ImageState, Model, Reporter, Task, TaskReport, TaskStatus, iso

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# A callback has 10 s in all: three tries of 1 s to connect and 2 s to answer leave room for a cold start.
CLIENT_CONFIG = Config(
    connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 3, "mode": "standard"}, tcp_keepalive=True
)
# Enough to see what happened; a stranger who has the token must not grow an item to its 400 KB: 80 KB at most.
MAX_CONFLICTS = 10
MAX_URLS_PER_CONFLICT = 4
# BatchGetItem's own limit is 100 keys and 16 MB; what does not fit comes back as unprocessed and is asked for again.
MAX_KEYS_PER_GET = 100

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


class _Refused(TypedDict):
    """The part of a failed condition's response that the type stubs leave out."""

    Item: dict[str, Any]


class Outcome(StrEnum):
    """What became of a report."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"  # the same again, or less than what is known
    CONFLICT = "conflict"  # something else than what is known: kept as evidence, not applied


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a report, and the status the task had before."""

    outcome: Outcome
    previous_status: TaskStatus | None


class TasksTable:
    """Reads and writes tasks.

    Every method raises StoreUnavailableError when DynamoDB does not take a call; nothing is written then, or what was
    written may be written again.
    """

    def __init__(self, name: str, client: "DynamoDBClient") -> None:
        self._name = name
        self._client = client

    def record(self, report: TaskReport) -> Recorded:
        """Writes news of a task, from whoever it comes.

        One call for news that is applied. A duplicate or a conflict costs a second one that counts it; should that
        fail, the count is lost and nothing else.
        """
        # Nobody has heard of the task (a callback may be faster than its registration), or its item has no rank.
        has_no_rank = "attribute_not_exists(#rank)"
        # News only moves a task up: any order and any repetition of news ends in the same status.
        moves_up = "#rank < :rank"
        update = _news(report)
        try:
            with _store_errors():
                answer = self._client.update_item(
                    TableName=self._name,
                    Key=_key(report.task),
                    ConditionExpression=f"{has_no_rank} OR {moves_up}",
                    # What the item says instead comes back with the refusal: no second read, no race.
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    ReturnValues="UPDATED_OLD",
                    **update.arguments(),
                )
        except self._client.exceptions.ConditionalCheckFailedException as exc:
            try:
                known = _task(cast("_Refused", exc.response)["Item"])
            except ValidationError:
                # Put by hand, and no task: nothing can be said of it, and sending the news again would change nothing.
                return Recorded(Outcome.CONFLICT, None)
            return Recorded(self._count_refused(report, known), known.status)
        previous = answer.get("Attributes", {}).get("status")
        return Recorded(Outcome.APPLIED, TaskStatus(previous["S"]) if previous else None)

    def get(self, task: str) -> Task | None:
        """The task as it is now, None if there is no such item."""
        with _store_errors():
            answer = self._client.get_item(TableName=self._name, Key=_key(task), ConsistentRead=True)
        return _task(answer["Item"]) if "Item" in answer else None

    def get_many(self, tasks: Sequence[str]) -> dict[str, Task]:
        """Those of the tasks that have an item, by key. One that cannot be read is left out as if it were not there."""
        found: dict[str, Task] = {}
        wanted = [_key(task) for task in dict.fromkeys(tasks)]
        while wanted:
            batch, wanted = wanted[:MAX_KEYS_PER_GET], wanted[MAX_KEYS_PER_GET:]
            with _store_errors():
                answer = self._client.batch_get_item(
                    RequestItems={self._name: {"Keys": batch, "ConsistentRead": True}},
                )
            for item in answer["Responses"].get(self._name, []):
                # Items are also put by hand: one that is malformed must not take the others with it.
                with suppress(ValidationError):
                    task = _task(item)
                    found[task.task] = task
            if self._name in answer["UnprocessedKeys"]:
                wanted += answer["UnprocessedKeys"][self._name]["Keys"]
        return found

    def save_images(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> TaskStatus:
        """Writes what became of some of a task's images, by their position in `images`, and the status that follows.

        Returns ARCHIVED or INCOMPLETE once no image is pending, else the status it had.
        """
        states = [images.get(index, image).state for index, image in enumerate(task.images)]
        if ImageState.PENDING in states:
            status = task.status
        else:
            status = TaskStatus.ARCHIVED if set(states) == {ImageState.ARCHIVED} else TaskStatus.INCOMPLETE
        update = _Update()
        for index, image in images.items():
            update.set(f"images[{index}]", _document(image))
        update.set("status", status.value)
        update.set("rank", status.rank)
        update.set("updatedAt", iso(now))
        if status.rank > TaskStatus.SUCCEEDED.rank:
            update.set("archivedAt", iso(now))
        # Two runs may archive the same task at once. The objects are the same; the further status stays.
        nobody_was_further = "#rank <= :rank"
        try:
            with _store_errors():
                self._client.update_item(
                    TableName=self._name,
                    Key=_key(task.task),
                    ConditionExpression=nobody_was_further,
                    **update.arguments(),
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            pass
        return status

    def _count_refused(self, report: TaskReport, known: Task) -> Outcome:
        outcome = Outcome.CONFLICT if known.contradicts(report) else Outcome.DUPLICATE
        # The news itself is in the table already: a 5xx would only make the provider send it again.
        with suppress(StoreUnavailableError):
            if not (outcome is Outcome.CONFLICT and self._keep_evidence(report, known)):
                self._count_delivery(report)
        return outcome

    def _keep_evidence(self, report: TaskReport, known: Task) -> bool:
        """Whether it was kept, and the delivery counted with it: not if it is known, or enough is."""
        evidence = _evidence(report)
        if _without_time(evidence) in map(_without_time, known.conflicts):
            return False
        update = _Update()
        update.append("conflicts", _document(evidence))
        if report.reported_by is Reporter.CALLBACK:
            update.add("deliveries", 1)
        # Of many conflicts at once each has read that there is room.
        has_room = f"attribute_not_exists(#conflicts[{MAX_CONFLICTS - 1}])"
        try:
            with _store_errors():
                self._client.update_item(
                    TableName=self._name, Key=_key(report.task), ConditionExpression=has_room, **update.arguments()
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _count_delivery(self, report: TaskReport) -> None:
        if report.reported_by is Reporter.CALLBACK:
            update = _Update()
            update.add("deliveries", 1)
            with _store_errors():
                self._client.update_item(TableName=self._name, Key=_key(report.task), **update.arguments())


class _Update:
    """An UpdateExpression under construction. Every name is aliased: `status` is reserved, others may become so."""

    def __init__(self) -> None:
        self._clauses: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def set(self, path: str, value: Any) -> None:
        self._clause("SET", f"{self._path(path)} = {self._value(path, value)}")

    def set_once(self, path: str, value: Any) -> None:
        name = self._path(path)
        self._clause("SET", f"{name} = if_not_exists({name}, {self._value(path, value)})")

    def append(self, path: str, value: Any) -> None:
        name = self._path(path)
        new, empty = self._value(path, [value]), self._value("empty", [])
        self._clause("SET", f"{name} = list_append(if_not_exists({name}, {empty}), {new})")

    def add(self, path: str, value: int) -> None:
        self._clause("ADD", f"{self._path(path)} {self._value(path, value)}")

    def remove(self, path: str) -> None:
        self._clause("REMOVE", self._path(path))

    def arguments(self) -> dict[str, Any]:
        return {
            "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in self._clauses.items()),
            "ExpressionAttributeNames": self._names,
            "ExpressionAttributeValues": self._values,
        }

    def _clause(self, verb: str, clause: str) -> None:
        self._clauses.setdefault(verb, []).append(clause)

    def _path(self, path: str) -> str:
        name, bracket, rest = path.partition("[")
        self._names[f"#{name}"] = name
        return f"#{name}{bracket}{rest}"

    def _value(self, path: str, value: Any) -> str:
        placeholder = f":{path.replace('[', '_').rstrip(']')}"
        self._values[placeholder] = _serialize(value)
        return placeholder


def _news(report: TaskReport) -> _Update:
    provider, task_id = report.provider, report.task_id
    update = _Update()
    update.set("provider", provider)
    update.set("taskId", task_id)
    update.set("status", report.status.value)
    update.set("rank", report.status.rank)
    update.set("updatedAt", iso(report.reported_at))
    if report.status is TaskStatus.PENDING:
        update.set_once("registeredAt", iso(report.reported_at))
    else:
        update.set("reportedBy", report.reported_by.value)
        update.set("reportedAt", iso(report.reported_at))
    if report.images:
        update.set("images", [_document(image) for image in report.images])
    if report.failure:
        update.set("failure", _document(report.failure))
    else:
        update.remove("failure")  # a success heals it
    if report.reported_by is Reporter.CALLBACK:
        update.add("deliveries", 1)
    return update


def _evidence(report: TaskReport) -> Conflict:
    return Conflict(
        reported_by=report.reported_by,
        reported_at=report.reported_at,
        status=report.status,
        urls=tuple(image.url for image in report.images[:MAX_URLS_PER_CONFLICT]),
        failure=report.failure,
    )


def _without_time(conflict: Conflict) -> dict[str, Any]:
    return conflict.model_dump(exclude={"reported_at"})


def _key(task: str) -> dict[str, Any]:
    return {"task": {"S": task}}


def _document(model: Model) -> dict[str, Any]:
    document: dict[str, Any] = _plain(model.model_dump(by_alias=True, exclude_none=True))
    return document


def _plain(value: Any) -> Any:
    """What DynamoDB's serializer takes: times as ISO strings, tuples as lists."""
    match value:
        case datetime():
            return iso(value)
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return value


def _task(item: Mapping[str, Any]) -> Task:
    return Task.model_validate({name: _deserialize(value) for name, value in item.items()})


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turns every fault but a failed condition into StoreUnavailableError."""
    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ConditionalCheckFailedException":
            raise
        raise StoreUnavailableError(f"DynamoDB refused {exc.operation_name}: {exc.response['Error']['Code']}") from exc
    except BotoCoreError as exc:
        raise StoreUnavailableError(f"DynamoDB did not answer: {type(exc).__name__}") from exc
