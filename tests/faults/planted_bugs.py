"""Defines bugs that the exploration must find: each removes one mechanism that the pipeline depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.client import BaseClient

from catchlight.archiving.archiver import ArchiveRun, ImageArchive
from catchlight.archiving.confirmation import Confirmation, ConfirmationResult
from catchlight.aws.update_expression import UpdateExpression
from catchlight.errors import StoreUnavailableError
from catchlight.models import Reporter, Task, TaskReport
from catchlight.tasks import table as table_module
from catchlight.tasks.table import Outcome, Recorded, TasksTable
from functions.dispatch_changes import app as dispatch_changes
from functions.receive_callback import app as receive_callback
from tests.faults.account import Call
from tests.faults.checks import Harm
from tests.faults.invocations import CRASHES, Fault


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A removed mechanism, and the scenario and kind of damage in which this must show."""

    name: str
    plant: Callable[[pytest.MonkeyPatch], None]
    scenario: str
    harm: Harm
    faults: tuple[Fault, ...] = ()  # the bug shows only together with one of these faults


_ALWAYS = "attribute_exists(task) OR attribute_not_exists(task)"
_record = TasksTable.record


def _record_unconditionally(table: TasksTable, report: TaskReport, **_: Any) -> Recorded:
    table._update_if(report.task, _ALWAYS, table_module._news(report, None))
    return Recorded(Outcome.APPLIED, None)


def news_overwrites(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(TasksTable, "record", _record_unconditionally)


def _polls_overwrite(patches: pytest.MonkeyPatch) -> None:
    def record(table: TasksTable, report: TaskReport, **known: Any) -> Recorded:
        is_poll = report.reported_by is Reporter.POLL
        return _record_unconditionally(table, report) if is_poll else _record(table, report, **known)

    patches.setattr(TasksTable, "record", record)


def _objects_are_overwritten(patches: pytest.MonkeyPatch) -> None:
    of = Call.of

    def without_condition(client: BaseClient, operation: str, parameters: dict[str, Any], make: Any) -> Call:
        kept = {name: value for name, value in parameters.items() if name != "IfNoneMatch"}
        return of(client, operation, kept, make)

    patches.setattr(Call, "of", without_condition)


def _answered_though_not_written(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(receive_callback, "defer", lambda *_: {"statusCode": 200})


def _unqueued_is_forgotten(patches: pytest.MonkeyPatch) -> None:
    queue = dispatch_changes.queue_archiving

    def forget(changes: Any) -> set[dispatch_changes.Change]:
        queue(changes)
        return set()

    patches.setattr(dispatch_changes, "queue_archiving", forget)


def _unsaved_is_consumed(patches: pytest.MonkeyPatch) -> None:
    archive = ImageArchive.archive

    def swallow(self: ImageArchive, *arguments: Any, **how: Any) -> ArchiveRun | None:
        try:
            return archive(self, *arguments, **how)
        except StoreUnavailableError:
            return None

    patches.setattr(ImageArchive, "archive", swallow)


def _claims_are_believed(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(Confirmation, "check", lambda self, task, *, is_last_try: ConfirmationResult(task))


def _a_claim_passes_for_a_correction(patches: pytest.MonkeyPatch) -> None:
    """Treats an unconfirmed report as a correction.

    The code did this until the exploration found it: the item read after a correction can be unconfirmed again.
    """
    check = Confirmation.check

    def read_blindly(self: Confirmation, task: Task, *, is_last_try: bool) -> ConfirmationResult:
        get = self._table.get
        with pytest.MonkeyPatch.context() as reading:
            reading.setattr(self._table, "get", lambda key: _as_if_polled(get(key)))
            return check(self, task, is_last_try=is_last_try)

    patches.setattr(Confirmation, "check", read_blindly)


def _as_if_polled(task: Task | None) -> Task | None:
    return task and task.model_copy(update={"reported_by": Reporter.POLL})


def _confirmed_claims_are_corrected(patches: pytest.MonkeyPatch) -> None:
    """Corrects reports that were already confirmed.

    The code did this until the exploration found it, when two runs archive a task and its URLs have been signed again.
    """

    def is_still_claimed(claimed: Task, update: UpdateExpression) -> str:
        return update.equals("status", claimed.status.value)

    patches.setattr(table_module, "_is_still_claimed", is_still_claimed)


_REFUSED = (Fault.REFUSED,)

PLANTED_BUGS = (
    PlantedBug("news overwrites what is known", news_overwrites, "success and a late failure", Harm.LOST),
    PlantedBug("polls overwrite what is known", _polls_overwrite, "callback and poll say success", Harm.DOUBLE),
    PlantedBug("objects are overwritten", _objects_are_overwritten, "nobody registered it", Harm.DOUBLE, CRASHES),
    PlantedBug("answered 200, not written", _answered_though_not_written, "nobody registered it", Harm.LOST, _REFUSED),
    PlantedBug("what SQS refused is forgotten", _unqueued_is_forgotten, "nobody registered it", Harm.LOST, _REFUSED),
    PlantedBug("what was not saved is consumed", _unsaved_is_consumed, "nobody registered it", Harm.LOST, _REFUSED),
    PlantedBug("claims are believed", _claims_are_believed, "false images", Harm.WRONG),
    PlantedBug(
        "a claim passes for a correction", _a_claim_passes_for_a_correction, "a false success, again", Harm.WRONG
    ),
    PlantedBug(
        "confirmed claims are corrected",
        _confirmed_claims_are_corrected,
        "a URL dies, there is a fresh one",
        Harm.DOUBLE,
        CRASHES,
    ),
)
