"""Defines mutants that the exploration must detect: each removes one mechanism of the functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.client import BaseClient

from catchlight.archiving.archiver import ArchiveRun, ImageArchive
from catchlight.archiving.confirmation import CallbackConfirmation
from catchlight.aws.dynamodb import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.models import Reporter, TaskReport
from catchlight.tasks import confirmations
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.reports import Recorded, ReportOutcome, Reports, update_by_report
from catchlight.tasks.task import Task
from functions.dispatch_changes import app as dispatch_changes
from functions.receive_callback import app as receive_callback
from functions.start_polling import app as start_polling
from tests.searches.faults.account import Call
from tests.searches.faults.checks import Harm
from tests.searches.faults.invocations import CRASHES, Fault


@dataclass(frozen=True, slots=True)
class Mutant:
    """A removed mechanism, and the scenario and the kind of violation that must detect it."""

    name: str
    apply: Callable[[pytest.MonkeyPatch], None]
    scenario: str
    harm: Harm
    faults: tuple[Fault, ...] = ()  # faults without which the mutant causes no violation


_ALWAYS = "attribute_exists(task) OR attribute_not_exists(task)"
_record = Reports.record


def _record_unconditionally(reports: Reports, report: TaskReport, **_: Any) -> Recorded:
    reports._table.update(report.task, update_by_report(report, None), condition=_ALWAYS)
    return Recorded(ReportOutcome.APPLIED, None)


def reports_overwrite(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(Reports, "record", _record_unconditionally)


def _polls_overwrite(patches: pytest.MonkeyPatch) -> None:
    def record(reports: Reports, report: TaskReport, **known: Any) -> Recorded:
        is_poll = report.reported_by is Reporter.POLL
        return _record_unconditionally(reports, report) if is_poll else _record(reports, report, **known)

    patches.setattr(Reports, "record", record)


def _objects_are_overwritten(patches: pytest.MonkeyPatch) -> None:
    of = Call.of

    def without_condition(client: BaseClient, operation: str, parameters: dict[str, Any], make: Any) -> Call:
        kept = {name: value for name, value in parameters.items() if name != "IfNoneMatch"}
        return of(client, operation, kept, make)

    patches.setattr(Call, "of", without_condition)


def _unwritten_callbacks_are_acknowledged(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(receive_callback, "defer", lambda *_: {"statusCode": 200})


def _unqueued_messages_are_dropped(patches: pytest.MonkeyPatch) -> None:
    queue = dispatch_changes.queue

    def drop(*arguments: Any) -> tuple[dispatch_changes.Change, ...]:
        queue(*arguments)
        return ()

    patches.setattr(dispatch_changes, "queue", drop)


def _unstarted_executions_are_dropped(patches: pytest.MonkeyPatch) -> None:
    start = start_polling.start

    def drop(*arguments: Any) -> bool:
        start(*arguments)
        return True

    patches.setattr(start_polling, "start", drop)


def _failed_archiving_is_consumed(patches: pytest.MonkeyPatch) -> None:
    archive = ImageArchive.archive

    def swallow(self: ImageArchive, *arguments: Any, **how: Any) -> ArchiveRun | None:
        try:
            return archive(self, *arguments, **how)
        except StoreUnavailableError:
            return None

    patches.setattr(ImageArchive, "archive", swallow)


def _reports_are_not_confirmed(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(CallbackConfirmation, "request_status", lambda self, task: None)


def _reread_task_is_used_as_correction(patches: pytest.MonkeyPatch) -> None:
    """Reads the task again after its correction, and uses the read item as the provider's answer.

    This was a bug until the exploration found it: a new callback can make the task unconfirmed before the read.
    """
    correct = Confirmations.correct

    def correct_and_read(self: Confirmations, task: Task, answer: TaskReport) -> Task | None:
        found = self._table.get(task.task) if correct(self, task, answer) else None
        return found and found.model_copy(update={"reported_by": Reporter.POLL})

    patches.setattr(Confirmations, "correct", correct_and_read)


def _confirmed_reports_are_corrected(patches: pytest.MonkeyPatch) -> None:
    """Corrects reports that are already confirmed.

    This was a bug until the exploration found it: two runs archive a task whose URLs were signed again.
    """

    def is_still_unconfirmed(task: Task, update: UpdateExpression) -> str:
        return update.equals("status", task.status.value)

    patches.setattr(confirmations, "_is_still_unconfirmed", is_still_unconfirmed)


_REFUSED = (Fault.REFUSED,)

MUTANTS = (
    Mutant("callbacks overwrite the item", reports_overwrite, "success and a late failure", Harm.LOST),
    Mutant("polls overwrite the item", _polls_overwrite, "callback and poll report success", Harm.DUPLICATED),
    Mutant("objects are overwritten", _objects_are_overwritten, "not registered", Harm.DUPLICATED, CRASHES),
    Mutant(
        "unwritten callbacks are acknowledged",
        _unwritten_callbacks_are_acknowledged,
        "not registered",
        Harm.LOST,
        _REFUSED,
    ),
    Mutant(
        "messages that SQS refused are dropped", _unqueued_messages_are_dropped, "not registered", Harm.LOST, _REFUSED
    ),
    Mutant(
        "executions that were not started are dropped",
        _unstarted_executions_are_dropped,
        "the callback is lost",
        Harm.LOST,
        _REFUSED,
    ),
    Mutant(
        "messages are consumed after failed archiving",
        _failed_archiving_is_consumed,
        "not registered",
        Harm.LOST,
        _REFUSED,
    ),
    Mutant("reports are not confirmed", _reports_are_not_confirmed, "false images", Harm.WRONG),
    Mutant(
        "a task is read again after its correction",
        _reread_task_is_used_as_correction,
        "a false success, twice",
        Harm.WRONG,
    ),
    Mutant(
        "confirmed reports are corrected",
        _confirmed_reports_are_corrected,
        "a URL expires, a fresh one exists",
        Harm.DUPLICATED,
        CRASHES,
    ),
)
