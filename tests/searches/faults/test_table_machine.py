"""Compares the tasks table with its model, and tests that the comparison detects mutants of the table."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import TaskStatus
from catchlight.tasks import confirmations, images, reports, restarts
from catchlight.tasks.table import TasksTable, UpdateResult
from tests.integration.conftest import Store
from tests.searches.faults.mutants import reports_overwrite
from tests.searches.faults.table_machine import WITH_FAULT, check_table

EXAMPLES = 60  # `make faults` tries more


def test_the_table_matches_its_model(store: Store) -> None:
    steps = check_table(store, examples=EXAMPLES, phases=[Phase.generate])

    # No step of the machine results in UNCONFIRMED; the archiver's tests cover this status.
    assert steps.keys() >= set(TaskStatus) - {TaskStatus.UNCONFIRMED}
    assert steps[WITH_FAULT] > EXAMPLES


def _correct_confirmed_reports(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(confirmations, "_is_still_unconfirmed", lambda task, update: "attribute_exists(task)")


def _ignore_stale_reads(patches: pytest.MonkeyPatch) -> None:
    for module in (images, restarts):
        patches.setattr(module, "is_as_read", lambda task, update: "attribute_exists(task)")


def _do_not_limit_conflicts(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(reports, "_HAS_ROOM_FOR_EVIDENCE", "attribute_exists(task)")
    for module in (reports, confirmations):
        patches.setattr(module, "MAX_CONFLICTS", 100)


def _save_images_by_rank_only(patches: pytest.MonkeyPatch) -> None:
    update_item = TasksTable.update

    def by_rank_only(
        table: TasksTable, task: str, update: UpdateExpression, *, condition: str, **more: Any
    ) -> UpdateResult:
        rank, _, of_images = condition.partition(" AND #images[")
        if of_images:
            condition = f"{rank} AND (attribute_exists(task) OR #images[{of_images})"
        return update_item(table, task, update, condition=condition, **more)

    patches.setattr(TasksTable, "update", by_rank_only)


@pytest.mark.parametrize(
    "mutate",
    [
        reports_overwrite,
        _correct_confirmed_reports,
        _ignore_stale_reads,
        _do_not_limit_conflicts,
        _save_images_by_rank_only,
    ],
)
def test_a_mutant_is_detected(
    store: Store, mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)

    with pytest.raises(AssertionError):
        check_table(store, examples=EXAMPLES, phases=[Phase.generate])
