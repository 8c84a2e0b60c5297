"""Confirms or corrects results of callbacks by comparing them with the provider's answer to a status request.

Anyone who has the callback token can send a callback, and a provider's signature covers only the task id and the time.
Therefore the result of a callback is unconfirmed until a status request with the user's API key returns the same
result.
"""

from dataclasses import dataclass
from datetime import datetime

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import Failure, GenerationRequest, ProviderRecord, Reporter, TaskReport, TaskStatus, iso
from catchlight.tasks.reports import MAX_CONFLICTS, evidence_of, update_by_report
from catchlight.tasks.table import TasksTable, complete_request, document, parse_item, set_status
from catchlight.tasks.task import Task


@dataclass(frozen=True, slots=True)
class ConfirmationResult:
    """A task after its unconfirmed result was compared with the provider's answer."""

    task: Task
    is_contradicted: bool = False  # the provider reports another result: the callback's result is kept as evidence
    was_status_requested: bool = False  # a status request was sent: the URLs are the provider's current ones
    known_request: GenerationRequest | None = None  # as in the item; `task.request` also has the provider's parameters


class Confirmations:
    """Writes to tasks whose results come from unconfirmed callbacks.

    Every method raises StoreUnavailableError when a call to DynamoDB fails.
    """

    def __init__(self, table: TasksTable) -> None:
        self._table = table

    def settle(self, task: Task, answer: TaskReport) -> ConfirmationResult | None:
        """Confirms or corrects a task by its provider's answer. Returns None if the task has changed since it was read.

        The confirmation of a success is not written here: `TaskImages.save` writes it together with the images, which
        saves a write per task.
        """
        reported = task.as_reported()
        if not reported.is_confirmed_by(answer):
            corrected = self.correct(task, answer)
            is_contradicted = reported.is_contradicted_by(answer)
            return ConfirmationResult(corrected, is_contradicted, was_status_requested=True) if corrected else None
        if task.status is not TaskStatus.SUCCEEDED and not self.confirm(task, answer):
            return None
        # The provider's record has more parameters of the request than the callback, and the seeds.
        request = task.request.completed_by(answer.request) if task.request else answer.request
        record = _updated_record(task, answer)
        confirmed = reported.model_copy(
            update={"confirmed_at": iso(answer.reported_at), "request": request, "provider_record": record}
        )
        return ConfirmationResult(confirmed, was_status_requested=True, known_request=task.request)

    def confirm(self, task: Task, answer: TaskReport) -> bool:
        """Marks a callback's result as confirmed by the provider.

        An UNCONFIRMED task becomes SUCCEEDED: the change of status in the table's stream starts archiving. Returns
        False, without writing, if the task has changed since it was read.
        """
        update = UpdateExpression()
        if task.status is TaskStatus.UNCONFIRMED:
            _set_succeeded(update, answer.reported_at)
            self._table.set_delete_after(update, TaskStatus.SUCCEEDED, answer.reported_at)
        else:
            update.set("updatedAt", iso(answer.reported_at))
        update.set("confirmedAt", iso(answer.reported_at))
        complete_request(update, answer.request, task.request)
        if record := _updated_record(task, answer):
            update.set("providerRecord", document(record))
        return self._table.update(task.task, update, condition=_is_still_unconfirmed(task, update)).is_applied

    def mark_unconfirmed(self, task: Task, failure: Failure, *, is_unknown: bool = False, now: datetime) -> Task | None:
        """Makes a SUCCEEDED task UNCONFIRMED. Returns None, without writing, if it has changed since it was read.

        `is_unknown`: also does what `note_not_found` does.
        """
        status = TaskStatus.UNCONFIRMED
        update = UpdateExpression()
        set_status(update, status, now)
        update.set("failure", document(failure))
        if is_unknown:
            update.set("notFoundAt", iso(now))
        self._table.set_delete_after(update, status, now)
        if not self._table.update(task.task, update, condition=_is_still_unconfirmed(task, update)).is_applied:
            return None
        return task.model_copy(update={"status": status, "rank": status.rank, "failure": failure})

    def note_not_found(self, task: Task, *, now: datetime) -> None:
        """Records that the provider does not know an unregistered task, or cannot be queried, so that polling ends."""
        update = UpdateExpression()
        update.set("notFoundAt", iso(now))
        self._table.update(task.task, update, condition="attribute_exists(task)")

    def accept(self, task: Task, *, now: datetime) -> bool:
        """Makes an UNCONFIRMED task SUCCEEDED, because an operator accepts its result.

        The change of status in the table's stream starts archiving. Returns False, without writing, if the task has
        changed since it was read.
        """
        update = UpdateExpression()
        _set_succeeded(update, now)
        update.set("acceptedAt", iso(now))
        self._table.set_delete_after(update, TaskStatus.SUCCEEDED, now)
        return self._table.update(task.task, update, condition=_is_still_unconfirmed(task, update)).is_applied

    def correct(self, task: Task, answer: TaskReport) -> Task | None:
        """Replaces an unconfirmed callback's result by that of the provider's answer.

        If the answer contradicts the callback's result, that result is kept as evidence. Unlike a report, a correction
        may move a task to a lower rank. Returns the corrected task; None, without writing, if it has changed since it
        was read.
        """
        update = update_by_report(answer, task.request)
        self._table.set_delete_after(update, answer.status, answer.reported_at)
        if not answer.skipped:
            update.remove("skipped")
        if answer.status is TaskStatus.PENDING:
            update.remove("reportedBy")
            update.remove("reportedAt")
        if not answer.provider_record:
            update.remove("providerRecord")
        reported = task.as_reported()
        if reported.is_contradicted_by(answer) and len(task.conflicts) < MAX_CONFLICTS:
            update.append("conflicts", document(evidence_of(reported)))
        written = self._table.update(
            task.task, update, condition=_is_still_unconfirmed(task, update), returns="ALL_NEW"
        )
        return parse_item(written.attributes) if written.is_applied else None


def _set_succeeded(update: UpdateExpression, now: datetime) -> None:
    """Changes the status of an UNCONFIRMED task to SUCCEEDED."""
    set_status(update, TaskStatus.SUCCEEDED, now)
    update.remove("failure")


def _updated_record(task: Task, answer: TaskReport) -> ProviderRecord | None:
    return task.provider_record.updated_by(answer.provider_record) if task.provider_record else answer.provider_record


def _is_still_unconfirmed(task: Task, update: UpdateExpression) -> str:
    """Returns the condition that neither a new report nor a correction has changed the task since it was read."""
    return " AND ".join(
        (
            update.equals("status", task.status.value),
            update.equals("reportedBy", Reporter.CALLBACK.value),
            update.equals("reportedAt", task.reported_at),
            # Another invocation may have confirmed the task and archived some of its images.
            update.equals("confirmedAt", None),
            update.equals("acceptedAt", None),
        )
    )
