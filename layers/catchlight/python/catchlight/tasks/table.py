"""The tasks table: one item per task, one conditional write for all news."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict, cast

from pydantic import ValidationError

from catchlight.aws.dynamodb import deserialized, malformed_attributes, store_errors
from catchlight.aws.update_expression import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.models import (
    Conflict,
    GenerationRequest,
    Image,
    ImageState,
    Model,
    Reporter,
    Task,
    TaskReport,
    TaskStatus,
    iso,
)
from catchlight.tasks.registration import set_arrival

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

# Enough to see what happened; a stranger who has the token must not grow an item to its 400 KB: 80 KB at most.
MAX_CONFLICTS = 10
MAX_URLS_PER_CONFLICT = 4
# Asked in the write itself: of many conflicts at once each has read that there is room.
_HAS_ROOM_FOR_EVIDENCE = f"attribute_not_exists(#conflicts[{MAX_CONFLICTS - 1}])"
# BatchGetItem's own limit is 100 keys and 16 MB; what does not fit comes back as unprocessed and is asked for again.
MAX_KEYS_PER_GET = 100


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
    # Why what the news overruled could not be kept as evidence; the news itself is written.
    evidence_error: StoreUnavailableError | None = None


class TasksTable:
    """Reads and writes tasks.

    Every method raises StoreUnavailableError when DynamoDB does not take a call; nothing is written then, or what was
    written may be written again.
    """

    def __init__(self, name: str, client: "DynamoDBClient", *, retention: timedelta | None = None) -> None:
        self._name = name
        self._client = client
        # How long a task is kept after its last change; None: for ever.
        self._retention = retention

    def record(self, report: TaskReport, *, known_request: GenerationRequest | None = None) -> Recorded:
        """Writes news of a task, from whoever it comes.

        `known_request` is what the item is known to say of the request: what it lacks is added.
        One call, whether it is applied or not. New evidence of a contradiction costs a second one, which has to be
        taken, too: what is acknowledged is known.
        """
        # Nobody has heard of the task (a callback may be faster than its registration), or its item has no rank.
        has_no_rank = "attribute_not_exists(#rank)"
        # News only moves a task up: any order and any repetition of news ends in the same status.
        moves_up = "#rank < :rank"
        update = _news(report, known_request)
        self._set_end(update, report.status, report.reported_at)
        try:
            with store_errors():
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
            known = _known_task(cast("_Refused", exc.response)["Item"])
            return Recorded(self._settle_refused(report, known), known.status)
        previous = _previous_task(report.task, answer.get("Attributes", {}))
        evidence_error = None
        if previous and previous.status is TaskStatus.FAILED:
            # A success that heals a failure: one of them was not true, and somebody may want to know which.
            evidence_error = self._keep_overruled(previous)
        return Recorded(Outcome.APPLIED, previous.status if previous else None, evidence_error)

    def get(self, task: str) -> Task | None:
        """The task as it is now, None if there is no such item."""
        with store_errors():
            answer = self._client.get_item(TableName=self._name, Key=_key(task), ConsistentRead=True)
        return _known_task(answer["Item"]) if "Item" in answer else None

    def get_many(
        self, tasks: Sequence[str], *, unreadable: Callable[[str, str], None] | None = None
    ) -> dict[str, Task]:
        """Those of the tasks that have an item, by key.

        One that cannot be read is left out, and `unreadable` is called with its key and which attributes are malformed.
        """
        found: dict[str, Task] = {}
        wanted = [_key(task) for task in dict.fromkeys(tasks)]
        while wanted:
            batch, wanted = wanted[:MAX_KEYS_PER_GET], wanted[MAX_KEYS_PER_GET:]
            with store_errors():
                answer = self._client.batch_get_item(
                    RequestItems={self._name: {"Keys": batch, "ConsistentRead": True}},
                )
            for item in answer["Responses"].get(self._name, []):
                # Items are also put by hand: one that is malformed must not take the others with it.
                try:
                    task = _task(item)
                except ValidationError as exc:
                    if unreadable:
                        unreadable(item["task"]["S"], malformed_attributes(exc))
                else:
                    found[task.task] = task
            if self._name in answer["UnprocessedKeys"]:
                wanted += answer["UnprocessedKeys"][self._name]["Keys"]
        return found

    def correct(self, claimed: Task, answer: TaskReport) -> bool:
        """Replaces what a callback claimed by what the provider itself says; a claim that it refutes becomes evidence.

        The one write that may move a task down, and only one that rests on nothing but a callback. Returns False if the
        task is not as `claimed` any more: nothing is written then.
        """
        update = _news(answer, claimed.request)
        self._set_end(update, answer.status, answer.reported_at)
        if answer.status is TaskStatus.PENDING:
            update.remove("reportedBy")
            update.remove("reportedAt")
        if not answer.images:
            update.remove("images")
        if claimed.is_contradicted_by(answer) and len(claimed.conflicts) < MAX_CONFLICTS:
            update.append("conflicts", _document(_evidence_of(claimed)))
        return self._update_if(claimed.task, _is_still_claimed(claimed, update), update)

    def confirm(self, claimed: Task, answer: TaskReport) -> bool:
        """Notes that the provider says what a callback claimed. Returns False if the task has changed meanwhile."""
        update = UpdateExpression()
        update.set("confirmedAt", iso(answer.reported_at))
        update.set("updatedAt", iso(answer.reported_at))
        _complete_request(update, answer.request, claimed.request)
        return self._update_if(claimed.task, _is_still_claimed(claimed, update), update)

    def renew(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> bool:
        """Replaces some of a task's images, by their position in `images`, by ones that are to be archived (again).

        A task that was INCOMPLETE is SUCCEEDED again, which the stream takes for news. Returns False if the task has
        changed since it was read: nothing is written then.
        """
        update = UpdateExpression()
        for index, image in images.items():
            update.set(f"images[{index}]", _document(image))
        update.set("status", TaskStatus.SUCCEEDED.value)
        update.set("rank", TaskStatus.SUCCEEDED.rank)
        update.set("updatedAt", iso(now))
        update.remove("archivedAt")
        self._set_end(update, TaskStatus.SUCCEEDED, now)
        return self._update_if(task.task, _is_as_read(task, update), update)

    def restart(self, task: Task, *, now: datetime) -> bool:
        """Makes a task that polling gave up PENDING again, which the stream takes for news.

        Returns False if the task has changed since it was read: nothing is written then.
        """
        update = UpdateExpression()
        update.set("status", TaskStatus.PENDING.value)
        update.set("rank", TaskStatus.PENDING.rank)
        update.set("updatedAt", iso(now))
        for name in ("failure", "reportedBy", "reportedAt"):
            update.remove(name)
        self._set_end(update, TaskStatus.PENDING, now)
        return self._update_if(task.task, _is_as_read(task, update), update)

    def save_images(
        self,
        task: Task,
        images: Mapping[int, Image],
        *,
        now: datetime,
        known_request: GenerationRequest | None = None,
    ) -> Task:
        """Writes what became of some of a task's images, by their position in `images`, and the status that follows.

        `known_request` is what the item said of the request before the provider was asked: what it lacks is added.
        Returns the task as it is then: ARCHIVED or INCOMPLETE once no image is pending, else with the status it had.
        """
        all_images = tuple(images.get(index, image) for index, image in enumerate(task.images))
        states = {image.state for image in all_images}
        if ImageState.PENDING in states:
            status = task.status
        else:
            status = TaskStatus.ARCHIVED if states <= {ImageState.ARCHIVED} else TaskStatus.INCOMPLETE
        update = UpdateExpression()
        for index, image in images.items():
            update.set(f"images[{index}]", _document(image))
        update.set("status", status.value)
        update.set("rank", status.rank)
        update.set("updatedAt", iso(now))
        if task.confirmed_at:
            update.set_once("confirmedAt", task.confirmed_at)
        _complete_request(update, task.request, known_request)
        if status.rank > TaskStatus.SUCCEEDED.rank:
            update.set("archivedAt", iso(now))
            self._set_end(update, status, now)
        # Two runs may archive the same task at once. The objects are the same; the further status stays.
        nobody_was_further = "#rank <= :rank"
        # A correction may have brought other images, of which the first are these: none beyond them is forgotten.
        there_are_no_more = update.equals(f"images[{len(task.images)}]", None)
        conditions = [nobody_was_further, there_are_no_more]
        for index, image in enumerate(task.images):
            if index in images:
                # Whoever has renewed or corrected it has a message of its own for what it is now.
                conditions.append(update.equals(f"images[{index}].url", image.url))
            is_archived = index in images and images[index].state is ImageState.ARCHIVED
            if not is_archived and (index in images or status.rank > TaskStatus.SUCCEEDED.rank):
                # What another run has archived is not unsaid; and a final status rests on what was read of the others.
                conditions.append(update.equals(f"images[{index}].state", image.state.value))
        self._update_if(task.task, " AND ".join(conditions), update)
        return task.model_copy(update={"status": status, "rank": status.rank, "images": all_images})

    def _set_end(self, update: UpdateExpression, status: TaskStatus, now: datetime) -> None:
        """DynamoDB deletes an item at the time in `deleteAfter` (epoch seconds): only what needs nothing any more."""
        if self._retention is None:
            return
        if status in (TaskStatus.PENDING, TaskStatus.SUCCEEDED):
            update.remove("deleteAfter")
        else:
            update.set("deleteAfter", int((now + self._retention).timestamp()))

    def _update_if(self, task: str, condition: str, update: UpdateExpression) -> bool:
        try:
            with store_errors():
                self._client.update_item(
                    TableName=self._name, Key=_key(task), ConditionExpression=condition, **update.arguments()
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _settle_refused(self, report: TaskReport, known: Task) -> Outcome:
        if not known.contradicts(report):
            return Outcome.DUPLICATE
        self._keep_evidence(_evidence(report), known)
        return Outcome.CONFLICT

    def _keep_evidence(self, evidence: Conflict, known: Task) -> None:
        """Once: not if the same is there, or enough is."""
        is_known = _without_time(evidence) in map(_without_time, known.conflicts)
        if is_known or len(known.conflicts) >= MAX_CONFLICTS:
            return
        update = UpdateExpression()
        update.append("conflicts", _document(evidence))
        if evidence.reported_by is Reporter.CALLBACK:
            update.add("deliveries", 1)
        self._update_if(known.task, _HAS_ROOM_FOR_EVIDENCE, update)

    def _keep_overruled(self, previous: Task) -> StoreUnavailableError | None:
        update = UpdateExpression()
        update.append("conflicts", _document(_evidence_of(previous)))
        try:
            self._update_if(previous.task, _HAS_ROOM_FOR_EVIDENCE, update)
        except StoreUnavailableError as exc:  # evidence, not news: the caller reports it
            return exc
        return None


def _news(report: TaskReport, known_request: GenerationRequest | None) -> UpdateExpression:
    provider, task_id = report.provider, report.task_id
    update = UpdateExpression()
    update.set("provider", provider)
    update.set("taskId", task_id)
    update.set("status", report.status.value)
    update.set("rank", report.status.rank)
    update.set("updatedAt", iso(report.reported_at))
    set_arrival(update, report.reported_at)
    if report.status is TaskStatus.PENDING:
        update.set_once("registeredAt", iso(report.reported_at))
    else:
        update.set("reportedBy", report.reported_by.value)
        update.set("reportedAt", iso(report.reported_at))
    # What was confirmed is what these news replace: a success after a confirmed failure is a claim again.
    update.remove("confirmedAt")
    _complete_request(update, report.request, known_request)
    if report.images:
        update.set("images", [_document(image) for image in report.images])
    if report.failure:
        update.set("failure", _document(report.failure))
    else:
        update.remove("failure")  # a success heals it
    if report.reported_by is Reporter.CALLBACK:
        update.add("deliveries", 1)
    return update


def _complete_request(
    update: UpdateExpression, told: GenerationRequest | None, known: GenerationRequest | None
) -> None:
    """Adds what the item does not say of the request. Who registered the task may have said the rest better."""
    if told and known:
        # Part by part: whoever has put the item may have put more there than is read of it.
        for name, value in _document(told.besides(known)).items():
            update.set_once(f"request.{name}", value)
    elif told:
        update.set_once("request", _document(told))


def _is_still_claimed(claimed: Task, update: UpdateExpression) -> str:
    """The condition that neither better news nor a correction has come in between."""
    return " AND ".join(
        (
            update.equals("status", claimed.status.value),
            update.equals("reportedBy", Reporter.CALLBACK.value),
            update.equals("reportedAt", claimed.reported_at),
            # Another run has heard the provider say the same, and may have archived some of its images by now.
            update.equals("confirmedAt", None),
        )
    )


def _is_as_read(task: Task, update: UpdateExpression) -> str:
    """The condition that nobody has changed the task since it was read."""
    return " AND ".join((update.equals("status", task.status.value), update.equals("updatedAt", task.updated_at)))


def _evidence(report: TaskReport) -> Conflict:
    return Conflict(
        reported_by=report.reported_by,
        reported_at=report.reported_at,
        status=report.status,
        urls=tuple(image.url for image in report.images[:MAX_URLS_PER_CONFLICT]),
        failure=report.failure,
    )


def _evidence_of(task: Task) -> Conflict:
    return Conflict(
        reported_by=task.reported_by or Reporter.CALLBACK,
        reported_at=task.reported_time or datetime.fromtimestamp(0, UTC),
        status=task.status,
        urls=tuple(image.url for image in task.images[:MAX_URLS_PER_CONFLICT]),
        failure=task.failure,
    )


def _without_time(conflict: Conflict) -> dict[str, Any]:
    return conflict.model_dump(exclude={"reported_at"})


def _key(task: str) -> dict[str, Any]:
    return {"task": {"S": task}}


def _document(model: Model) -> dict[str, Any]:
    return model.model_dump(by_alias=True, exclude_none=True)


def _task(item: Mapping[str, Any]) -> Task:
    return Task.model_validate(deserialized(item))


def _known_task(item: Mapping[str, Any]) -> Task:
    try:
        return _task(item)
    except ValidationError as exc:
        attributes = malformed_attributes(exc)
        raise StoreUnavailableError(f"the task's item is malformed, repair it by hand: {attributes}") from exc


def _previous_task(task: str, old_attributes: Mapping[str, Any]) -> Task | None:
    """What the written attributes were before; None if there was no item, or one that nobody can read."""
    with suppress(ValidationError):
        return _task({**old_attributes, **_key(task)})
    return None
