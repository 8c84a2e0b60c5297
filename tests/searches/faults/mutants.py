"""Defines bugs that the exploration must find: each removes one mechanism that the pipeline depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.client import BaseClient

from catchlight.archiving.archiver import ArchiveRun, ImageArchive
from catchlight.archiving.confirmation import CallbackConfirmation
from catchlight.aws.dynamodb import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.models import Reporter, Task, TaskReport
from catchlight.tasks import confirmations
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.reports import Recorded, ReportOutcome, Reports, update_by_report
from functions.dispatch_changes import app as dispatch_changes
from functions.receive_callback import app as receive_callback
from functions.start_polling import app as start_polling
from tests.searches.faults.account import Call
from tests.searches.faults.checks import Harm
from tests.searches.faults.invocations import CRASHES, Fault


@dataclass(frozen=True, slots=True)
class Mutant:
    """A removed mechanism, and the scenario and kind of damage in which this must show."""

    name: str
    apply: Callable[[pytest.MonkeyPatch], None]
    scenario: str
    harm: Harm
    faults: tuple[Fault, ...] = ()  # the mutant shows only together with one of these faults


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


def _answered_though_not_written(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(receive_callback, "defer", lambda *_: {"statusCode": 200})


def _unqueued_is_forgotten(patches: pytest.MonkeyPatch) -> None:
    queue = dispatch_changes.queue

    def forget(*arguments: Any) -> tuple[dispatch_changes.Change, ...]:
        queue(*arguments)
        return ()

    patches.setattr(dispatch_changes, "queue", forget)


def _unstarted_is_forgotten(patches: pytest.MonkeyPatch) -> None:
    start = start_polling.start

    def forget(*arguments: Any) -> bool:
        start(*arguments)
        return True

    patches.setattr(start_polling, "start", forget)


def _unsaved_is_consumed(patches: pytest.MonkeyPatch) -> None:
    archive = ImageArchive.archive

    def swallow(self: ImageArchive, *arguments: Any, **how: Any) -> ArchiveRun | None:
        try:
            return archive(self, *arguments, **how)
        except StoreUnavailableError:
            return None

    patches.setattr(ImageArchive, "archive", swallow)


def _unconfirmed_reports_are_believed(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(CallbackConfirmation, "ask", lambda self, task: None)


def _an_unconfirmed_report_passes_for_a_correction(patches: pytest.MonkeyPatch) -> None:
    """Reads a task again after its correction, and takes what it reads for the provider's answer.

    The code did this until the exploration found it: the task can be unconfirmed again by then.
    """
    correct = Confirmations.correct

    def correct_and_read(self: Confirmations, task: Task, answer: TaskReport) -> Task | None:
        found = self._table.get(task.task) if correct(self, task, answer) else None
        return found and found.model_copy(update={"reported_by": Reporter.POLL})

    patches.setattr(Confirmations, "correct", correct_and_read)


def _confirmed_reports_are_corrected(patches: pytest.MonkeyPatch) -> None:
    """Corrects reports that were already confirmed.

    The code did this until the exploration found it, when two runs archive a task and its URLs have been signed again.
    """

    def is_still_unconfirmed(task: Task, update: UpdateExpression) -> str:
        return update.equals("status", task.status.value)

    patches.setattr(confirmations, "_is_still_unconfirmed", is_still_unconfirmed)


_REFUSED = (Fault.REFUSED,)

MUTANTS = (
    Mutant("callbacks overwrite what is known", reports_overwrite, "success and a late failure", Harm.LOST),
    Mutant("polls overwrite what is known", _polls_overwrite, "callback and poll say success", Harm.DOUBLE),
    Mutant("objects are overwritten", _objects_are_overwritten, "not registered", Harm.DOUBLE, CRASHES),
    Mutant("answered 200, not written", _answered_though_not_written, "not registered", Harm.LOST, _REFUSED),
    Mutant("what SQS refused is forgotten", _unqueued_is_forgotten, "not registered", Harm.LOST, _REFUSED),
    Mutant("what was not started is forgotten", _unstarted_is_forgotten, "the callback is lost", Harm.LOST, _REFUSED),
    Mutant("what was not saved is consumed", _unsaved_is_consumed, "not registered", Harm.LOST, _REFUSED),
    Mutant("unconfirmed reports are believed", _unconfirmed_reports_are_believed, "false images", Harm.WRONG),
    Mutant(
        "an unconfirmed report passes for a correction",
        _an_unconfirmed_report_passes_for_a_correction,
        "a false success, again",
        Harm.WRONG,
    ),
    Mutant(
        "confirmed reports are corrected",
        _confirmed_reports_are_corrected,
        "a URL dies, there is a fresh one",
        Harm.DOUBLE,
        CRASHES,
    ),
)
