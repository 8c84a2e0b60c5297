"""Reads and writes the tasks table: one item per task, and the same conditional write for reports of every source."""

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

# Enough to investigate a contradiction. Conflicts take at most 80 KB, so that an attacker who has the token cannot fill
# an item up to DynamoDB's limit of 400 KB.
MAX_CONFLICTS = 10
MAX_URLS_PER_CONFLICT = 4
# Checked by the write itself: several concurrent writers may all have read an item with fewer conflicts.
_HAS_ROOM_FOR_EVIDENCE = f"attribute_not_exists(#conflicts[{MAX_CONFLICTS - 1}])"
# BatchGetItem is limited to 100 keys and 16 MB. Keys beyond 16 MB are returned as unprocessed and requested again.
MAX_KEYS_PER_GET = 100


class _Refused(TypedDict):
    """The part of a failed condition's response that the type stubs lack."""

    Item: dict[str, Any]


class Outcome(StrEnum):
    """The outcome of recording a report."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"  # the report repeats the stored result, or adds nothing to it
    CONFLICT = "conflict"  # the report contradicts the stored result: kept as evidence, not applied


@dataclass(frozen=True, slots=True)
class Recorded:
    """The outcome of recording a report, and the status that the task had before."""

    outcome: Outcome
    previous_status: TaskStatus | None
    # Set if the replaced failure could not be stored as evidence; the report itself is written.
    evidence_error: StoreUnavailableError | None = None


class TasksTable:
    """Reads and writes tasks.

    Every method raises StoreUnavailableError when a call to DynamoDB fails. Then nothing was written, or repeating the
    write is safe.
    """

    def __init__(self, name: str, client: "DynamoDBClient", *, retention: timedelta | None = None) -> None:
        self._name = name
        self._client = client
        # How long a task is kept after its last change; None: for ever.
        self._retention = retention

    def record(self, report: TaskReport, *, known_request: GenerationRequest | None = None) -> Recorded:
        """Writes a report of a task, from a callback or a poll, if its status ranks higher than the stored one.

        `known_request` has the request's parameters that the item is known to contain; missing ones are added.
        One call to DynamoDB is enough, whether the report is applied or not. A report that contradicts the stored
        result is written as evidence by a second call; if this fails, the method fails, too, so that a caller never
        acknowledges a report that is not stored.
        """
        # The table does not contain the task (a callback may precede its registration), or the item has no rank.
        has_no_rank = "attribute_not_exists(#rank)"
        # Reports only move a task to a higher rank, so their order and repetitions do not change the final status.
        moves_up = "#rank < :rank"
        update = _news(report, known_request)
        self._set_end(update, report.status, report.reported_at)
        try:
            with store_errors():
                answer = self._client.update_item(
                    TableName=self._name,
                    Key=_key(report.task),
                    ConditionExpression=f"{has_no_rank} OR {moves_up}",
                    # A failed condition returns the stored item: no second read is needed, so there is no race.
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
            # A success replaces a failure. One of the two reports was wrong, so the failure is kept for investigation.
            evidence_error = self._keep_overruled(previous)
        return Recorded(Outcome.APPLIED, previous.status if previous else None, evidence_error)

    def get(self, task: str) -> Task | None:
        """Reads a task (strongly consistent); None if the table has no such item."""
        with store_errors():
            answer = self._client.get_item(TableName=self._name, Key=_key(task), ConsistentRead=True)
        return _known_task(answer["Item"]) if "Item" in answer else None

    def get_many(
        self, tasks: Sequence[str], *, unreadable: Callable[[str, str], None] | None = None
    ) -> dict[str, Task]:
        """Reads several tasks (strongly consistent) and returns the existing ones by key.

        A malformed item is omitted, and `unreadable` is called with its key and the names of its malformed attributes.
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
                # Users can edit items by hand: a malformed one must not prevent reading the others.
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
        """Replaces an unconfirmed callback's result by the provider's own answer.

        If the answer contradicts the result of the callback, that result is kept as evidence. A correction may move a
        task to a lower rank, but only a task whose result comes from an unconfirmed callback. Returns False, without
        writing, if the task is no longer as in `claimed`.
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
        """Marks a callback's result as confirmed by the provider. Returns False if the task has changed meanwhile."""
        update = UpdateExpression()
        update.set("confirmedAt", iso(answer.reported_at))
        update.set("updatedAt", iso(answer.reported_at))
        _complete_request(update, answer.request, claimed.request)
        return self._update_if(claimed.task, _is_still_claimed(claimed, update), update)

    def renew(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> bool:
        """Replaces some of a task's images, so that they are archived (again). `images` maps positions to new images.

        The task's status becomes SUCCEEDED. If it was INCOMPLETE, the stream's change of status starts the archiver.
        Returns False, without writing, if the task has changed since it was read.
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
        """Sets a TIMED_OUT task to PENDING again; the stream's change of status starts polling.

        Returns False, without writing, if the task has changed since it was read.
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
        """Writes the archiving results of some of a task's images and the resulting status of the task.

        `images` maps positions in the task's list to images. `known_request` has the request's parameters that the item
        contained before the provider was asked; missing ones are added. Returns the updated task: ARCHIVED or
        INCOMPLETE if no image is pending, else with an unchanged status.
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
        # Two invocations may archive the same task concurrently. They store the same objects; the higher rank stays.
        nobody_was_further = "#rank <= :rank"
        # A correction may have appended images to the list: these must not be skipped by a final status.
        there_are_no_more = update.equals(f"images[{len(task.images)}]", None)
        conditions = [nobody_was_further, there_are_no_more]
        for index, image in enumerate(task.images):
            if index in images:
                # An image that was renewed or corrected meanwhile has another URL and a queue message of its own.
                conditions.append(update.equals(f"images[{index}].url", image.url))
            is_archived = index in images and images[index].state is ImageState.ARCHIVED
            if not is_archived and (index in images or status.rank > TaskStatus.SUCCEEDED.rank):
                # An image that another invocation has archived stays ARCHIVED. A final status is only correct if the
                # images that this call does not write still have the states that were read.
                conditions.append(update.equals(f"images[{index}].state", image.state.value))
        self._update_if(task.task, " AND ".join(conditions), update)
        return task.model_copy(update={"status": status, "rank": status.rank, "images": all_images})

    def _set_end(self, update: UpdateExpression, status: TaskStatus, now: datetime) -> None:
        """Sets `deleteAfter` (epoch seconds), the time when DynamoDB deletes the item.

        PENDING and SUCCEEDED tasks have none, because they are still polled or archived.
        """
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
        """Stores evidence, unless the item has the same evidence already or `MAX_CONFLICTS` conflicts."""
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
        except StoreUnavailableError as exc:  # the report itself is stored: the caller logs the missing evidence
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
    # The confirmation belongs to the replaced result: a success after a confirmed failure is unconfirmed.
    update.remove("confirmedAt")
    _complete_request(update, report.request, known_request)
    if report.images:
        update.set("images", [_document(image) for image in report.images])
    if report.failure:
        update.set("failure", _document(report.failure))
    else:
        update.remove("failure")  # a success replaces it
    if report.reported_by is Reporter.CALLBACK:
        update.add("deliveries", 1)
    return update


def _complete_request(
    update: UpdateExpression, told: GenerationRequest | None, known: GenerationRequest | None
) -> None:
    """Adds the request's parameters that the item lacks. Existing ones stay: they may be from the task's submission."""
    if told and known:
        # One attribute at a time, because `request` may contain attributes that users added and the model ignores.
        for name, value in _document(told.besides(known)).items():
            update.set_once(f"request.{name}", value)
    elif told:
        update.set_once("request", _document(told))


def _is_still_claimed(claimed: Task, update: UpdateExpression) -> str:
    """Returns the condition that neither a new report nor a correction has changed the task since it was read."""
    return " AND ".join(
        (
            update.equals("status", claimed.status.value),
            update.equals("reportedBy", Reporter.CALLBACK.value),
            update.equals("reportedAt", claimed.reported_at),
            # If another invocation has confirmed the task meanwhile, it may have archived some of the images already.
            update.equals("confirmedAt", None),
        )
    )


def _is_as_read(task: Task, update: UpdateExpression) -> str:
    """Returns the condition that the task has not changed since it was read."""
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
    """Builds the task from its previous attributes; None if there was no item, or a malformed one."""
    with suppress(ValidationError):
        return _task({**old_attributes, **_key(task)})
    return None
