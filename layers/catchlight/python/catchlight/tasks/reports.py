"""Records reports of tasks: callbacks and polls use the same conditional update."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.models import GenerationRequest, Image, Reporter, TaskReport, TaskStatus, iso
from catchlight.tasks.table import (
    TasksTable,
    complete_request,
    document,
    parse_item,
    set_arrival,
    set_required,
    set_status,
)
from catchlight.tasks.task import Conflict, Task

# Enough to investigate a contradiction. Conflicts take at most 70 KB, so that an attacker who has the callback token
# cannot fill an item up to DynamoDB's limit of 400 KB. The outputs' URLs take at most 192 KB, the other attributes of
# 32 images and 32 other outputs 40 KB, the request and the provider's record 45 KB, all others 5 KB.
# tests/integration/test_item_size.py writes an item of the largest size.
MAX_CONFLICTS = 10
MAX_URLS_PER_CONFLICT = 4
MAX_URL_LENGTH_IN_CONFLICT = 1024
# A hint, or a repeated callback of an UNCONFIRMED task, starts a poll. Another one within this time is regarded as the
# same delivery, which the provider has sent again: it starts no poll.
HINTS_AT_LEAST_APART = timedelta(seconds=60)
# Callbacks of a task with more deliveries than this start no poll. A provider sends a callback at most four times.
MAX_DELIVERIES_BEFORE_A_HINT = 10
# The table does not contain the task, because a callback may arrive before its registration; or the item has no rank,
# because a user wrote it.
_HAS_NO_RANK = "attribute_not_exists(#rank)"
# A condition of the write, because concurrent writers may all have read an item with fewer conflicts.
_HAS_ROOM_FOR_EVIDENCE = f"attribute_not_exists(#conflicts[{MAX_CONFLICTS - 1}])"


class ReportOutcome(StrEnum):
    """The effect of recording a report."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"  # the report repeats the stored result, or has no result
    CONFLICT = "conflict"  # the report contradicts the stored result: it is kept as evidence and not applied


@dataclass(frozen=True, slots=True)
class Recorded:
    """The outcome of recording a report, and the status that the task had before."""

    outcome: ReportOutcome
    previous_status: TaskStatus | None
    # Set if the replaced failure could not be written as evidence. The report itself is written.
    evidence_error: StoreUnavailableError | None = None


class Reports:
    """Records reports in the tasks table."""

    def __init__(self, table: TasksTable) -> None:
        self._table = table

    def record(self, report: TaskReport, *, known_request: GenerationRequest | None = None) -> Recorded:
        """Writes a report from a callback or a poll, if its status has a higher rank than the stored one.

        `known_request`: the request's parameters that the item is known to contain; the report's other ones are added.
        One call to DynamoDB is enough, whether the report is applied or not. A second call writes a report that
        contradicts the stored result as evidence. If it fails, the method raises an error, so that no caller
        acknowledges a report that is not stored.

        Raises:
            StoreUnavailableError: a call to DynamoDB failed. The same report can be recorded again.
        """
        if report.is_hint:
            return self._note_hint(report)
        # Reports only move a task to a higher rank: their order and repetitions do not affect the final status.
        moves_up = "#rank < :rank"
        update = update_by_report(report, known_request)
        condition = f"{_HAS_NO_RANK} OR {moves_up}"
        if report.reported_by is Reporter.CALLBACK:
            condition = f"{_HAS_NO_RANK} OR ({moves_up} AND {_may_replace_result(update)})"
        self._table.set_delete_after(update, report.status, report.reported_at)
        written = self._table.update(report.task, update, condition=condition, returns="UPDATED_OLD")
        if not written.is_applied:
            stored = parse_item(written.attributes)
            if report.ref and not stored.ref:
                # A poll came before the callback, and only the callback has the reference.
                self._add_reference(report)
            outcome = self._keep_if_contradicting(report, stored)
            is_repeated = outcome is ReportOutcome.DUPLICATE and report.reported_by is Reporter.CALLBACK
            if is_repeated and stored.status is TaskStatus.UNCONFIRMED:
                self._note_repetition(report)
            return Recorded(outcome, stored.status)
        previous = _previous_task(report.task, written.attributes)
        evidence_error = None
        if previous and previous.status is TaskStatus.FAILED:
            # A success replaces a failure. One of the two reports was wrong: the failure is kept as evidence.
            try:
                # The delivery that reported the failure is counted already.
                self._append_evidence(previous.task, evidence_of(previous), is_delivery=False)
            except StoreUnavailableError as exc:  # the report itself is written: the caller logs the missing evidence
                evidence_error = exc
        return Recorded(ReportOutcome.APPLIED, previous.status if previous else None, evidence_error)

    def _note_hint(self, report: TaskReport) -> Recorded:
        """Writes the time of a hint and its original image, unless the task has a result.

        A callback's hint starts a poll. The returned previous status is None: DynamoDB does not return attributes that
        the write does not change.
        """
        if report.reported_by is Reporter.POLL:
            return self._note_original(report)
        update = UpdateExpression()
        # `updatedAt` of a known task stays, so that an execution that was started since then counts as polling for it.
        set_required(update, report.provider, report.task_id, TaskStatus.PENDING, report.reported_at)
        update.set_once("status", TaskStatus.PENDING.value)
        if report.ref:
            update.set_once("ref", report.ref)
        update.set("hintedAt", iso(report.reported_at))
        update.add("deliveries", 1)
        has_no_result = update.at_most("rank", TaskStatus.TIMED_OUT.rank)
        is_new = _is_no_repetition(update, report)
        if report.images:
            # Not replaced if the item has images: they may have been downloaded already.
            update.set_once("images", [document(image) for image in report.images])
            is_new = f"(attribute_not_exists(#images) OR {is_new})"
        condition = f"({_HAS_NO_RANK} OR {has_no_result}) AND {is_new} AND {_has_few_deliveries(update)}"
        written = self._table.update(report.task, update, condition=condition)
        if not written.is_applied:
            return Recorded(ReportOutcome.DUPLICATE, parse_item(written.attributes).status)
        return Recorded(ReportOutcome.APPLIED, None)

    def _note_original(self, report: TaskReport) -> Recorded:
        """Writes the original image of a poll's report that has no result image, if the task has no images.

        `updatedAt` stays, because the execution continues to poll for the task.
        """
        update = UpdateExpression()
        update.set("images", [document(image) for image in report.images])
        update.set_once("hintedAt", iso(report.reported_at))
        update.set("confirmedAt", iso(report.reported_at))  # the provider itself reported the URL: any host is allowed
        has_no_result = update.at_most("rank", TaskStatus.TIMED_OUT.rank)
        condition = f"attribute_exists(task) AND attribute_not_exists(#images) AND ({_HAS_NO_RANK} OR {has_no_result})"
        is_applied = self._table.update(report.task, update, condition=condition).is_applied
        return Recorded(ReportOutcome.APPLIED if is_applied else ReportOutcome.DUPLICATE, None)

    def _note_repetition(self, report: TaskReport) -> None:
        """Writes the time of a repeated callback of an UNCONFIRMED task: this starts a poll that may confirm it."""
        update = UpdateExpression()
        update.set("hintedAt", iso(report.reported_at))
        update.add("deliveries", 1)
        is_unconfirmed = update.equals("status", TaskStatus.UNCONFIRMED.value)
        condition = f"{is_unconfirmed} AND {_is_no_repetition(update, report)} AND {_has_few_deliveries(update)}"
        self._table.update(report.task, update, condition=condition)

    def _add_reference(self, report: TaskReport) -> None:
        update = UpdateExpression()
        update.set_once("ref", report.ref)
        self._table.update(report.task, update, condition="attribute_exists(task)")

    def _keep_if_contradicting(self, report: TaskReport, stored: Task) -> ReportOutcome:
        if not stored.contradicts(report):
            return ReportOutcome.DUPLICATE
        evidence = _evidence(report)
        is_known = _without_time(evidence) in map(_without_time, stored.conflicts)
        if not is_known and len(stored.conflicts) < MAX_CONFLICTS:
            self._append_evidence(stored.task, evidence, is_delivery=report.reported_by is Reporter.CALLBACK)
        return ReportOutcome.CONFLICT

    def _append_evidence(self, task: str, evidence: Conflict, *, is_delivery: bool) -> None:
        update = UpdateExpression()
        update.append("conflicts", document(evidence))
        if is_delivery:
            update.add("deliveries", 1)
        self._table.update(task, update, condition=_HAS_ROOM_FOR_EVIDENCE)


def update_by_report(report: TaskReport, known_request: GenerationRequest | None) -> UpdateExpression:
    """Builds the update that replaces a task's status and result with those of a report."""
    update = UpdateExpression()
    update.set("provider", report.provider)
    update.set("taskId", report.task_id)
    set_status(update, report.status, report.reported_at)
    set_arrival(update, report.reported_at)
    if report.ref:
        update.set_once("ref", report.ref)
    if report.status is TaskStatus.PENDING:
        if report.reported_by is Reporter.POLL:  # not for callbacks: anyone with the callback token can invent tasks
            update.set_once("registeredAt", iso(report.reported_at))
    else:
        update.set("reportedBy", report.reported_by.value)
        update.set("reportedAt", iso(report.reported_at))
    # The confirmation is that of the replaced result: a success after a confirmed failure is unconfirmed.
    update.remove("confirmedAt")
    complete_request(update, report.request, known_request)
    if report.provider_record:
        update.set("providerRecord", document(report.provider_record))
    if report.images:
        update.set("images", [document(image) for image in report.images])
        # These count the tries of the replaced images.
        update.remove("archiveTries")
        update.remove("negativeTries")
    elif report.status is not TaskStatus.TIMED_OUT:  # a TIMED_OUT task may have the original of a hint
        update.remove("images")
    if report.skipped:
        update.set("skipped", [document(output) for output in report.skipped])
    if report.failure:
        update.set("failure", document(report.failure))
    else:
        update.remove("failure")
    # The delivery of an UNCONFIRMED task is counted already, when its callback was recorded as SUCCEEDED.
    if report.reported_by is Reporter.CALLBACK and report.status is not TaskStatus.UNCONFIRMED:
        update.add("deliveries", 1)
    return update


def _is_no_repetition(update: UpdateExpression, report: TaskReport) -> str:
    """Returns the condition that no callback has started a poll within HINTS_AT_LEAST_APART."""
    earlier = update.at_most("hintedAt", iso(report.reported_at - HINTS_AT_LEAST_APART))
    return f"(attribute_not_exists(#hintedAt) OR {earlier})"


def _has_few_deliveries(update: UpdateExpression) -> str:
    """Returns the condition that the task has so few deliveries that another callback may start a poll."""
    return f"(attribute_not_exists(#deliveries) OR {update.at_most('deliveries', MAX_DELIVERIES_BEFORE_A_HINT)})"


def _may_replace_result(update: UpdateExpression) -> str:
    """Returns the condition under which a callback may replace a result of a lower rank.

    If the provider reports a failure and a callback a success, the provider's next answer contradicts the callback: the
    callback's result becomes evidence and the task FAILED again. The condition limits how often forged callbacks can
    cause this work: until the evidence is full.
    """
    has_room = update.equals(f"conflicts[{MAX_CONFLICTS - 1}]", None)
    has_not_failed = update.at_most("rank", TaskStatus.TIMED_OUT.rank)
    is_of_callback = update.equals("reportedBy", Reporter.CALLBACK.value)
    is_unconfirmed = update.equals("confirmedAt", None)
    return f"({has_room} OR {has_not_failed} OR ({is_of_callback} AND {is_unconfirmed}))"


def evidence_of(task: Task) -> Conflict:
    """Returns a task's result as evidence, to be stored when another result replaces it."""
    return Conflict(
        reported_by=task.reported_by or Reporter.CALLBACK,
        reported_at=task.reported_time or datetime.fromtimestamp(0, UTC),
        status=task.status,
        urls=_urls(task.images),
        failure=task.failure,
    )


def _evidence(report: TaskReport) -> Conflict:
    return Conflict(
        reported_by=report.reported_by,
        reported_at=report.reported_at,
        status=report.status,
        urls=_urls(report.images),
        failure=report.failure,
    )


def _urls(images: Sequence[Image]) -> tuple[str, ...]:
    return tuple(image.url[:MAX_URL_LENGTH_IN_CONFLICT] for image in images[:MAX_URLS_PER_CONFLICT])


def _without_time(conflict: Conflict) -> dict[str, Any]:
    return conflict.model_dump(exclude={"reported_at"})


def _previous_task(task: str, old_attributes: Any) -> Task | None:
    """Builds the task from its previous attributes; None if there was no item or a malformed one."""
    with suppress(StoreUnavailableError):
        return parse_item({**old_attributes, "task": {"S": task}})
    return None
