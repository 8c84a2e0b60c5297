"""Runs small races in moto, and tests that they detect a table whose writes all succeed."""

from dataclasses import replace
from typing import Any

import pytest

from catchlight.tasks.table import TasksTable, UpdateResult
from local.template.expand import Template, load_template
from tests.integration.conftest import REPOSITORY, TABLE_NAME, a_store, an_account
from tests.searches.races.races import Result, run

KEYS, WRITERS = 25, 16


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(REPOSITORY / "template.yaml", {})


def results(template: Template, keys: int) -> list[Result]:
    with an_account():
        return list(run(TABLE_NAME, a_store(template).client, keys=keys, writers=WRITERS))


def test_every_race_has_one_winner(template: Template) -> None:
    for result in results(template, KEYS):
        assert result == Result(result.name, KEYS, WRITERS, KEYS, KEYS)
        assert result.has_passed


def test_a_table_that_accepts_all_writes_is_detected(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    update = TasksTable.update

    def report_as_applied(self: TasksTable, *arguments: Any, **conditions: Any) -> UpdateResult:
        return replace(update(self, *arguments, **conditions), is_applied=True)

    monkeypatch.setattr(TasksTable, "update", report_as_applied)

    renewals = next(result for result in results(template, 5) if result.name == "renewal")

    assert renewals.with_one_winner == 0
    assert not renewals.has_passed
