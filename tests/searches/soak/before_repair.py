"""Checks the state of the stack after the faults, before ReconcileTasks and the redrive command repair it.

unconfirmed failures are counted           ReconcileTasks counts failures that only callbacks reported, for an alarm
oversized tasks are reported               the log names each task whose runs are killed; its message is a dead letter
other tasks of killed runs are archived    they share few runs with an oversized task, and their messages are consumed
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.template.expand import Template
from tests.searches.soak.checks import Violation
from tests.searches.soak.final_state import Snapshot
from tests.searches.soak.history import History, TaskRecord
from tests.searches.soak.plans import TaskPlan

FAILURES_COUNTED, OVERSIZED_REPORTED, OTHERS_ARCHIVED = (
    "unconfirmed failures are counted",
    "oversized tasks are reported",
    "other tasks of killed runs are archived",
)
UNCONFIRMED_FAILURES = "UnconfirmedFailures"
# Maximum number of runs that a task shares with an oversized task. Two or three tries are killed before ArchiveImages
# separates the tasks; clock differences add three, repeated messages and other faults some more: 12 were observed on a
# busy machine. A task that is never separated also violates the guarantee by its dead letter.
MAX_SHARED_RUNS = 30
_KILLED_TRY_MESSAGE = "an earlier try of this task was killed"


@dataclass(frozen=True)
class StateBeforeRepair:
    """The state of the stack after the faults, before ReconcileTasks runs with its clock set forward."""

    snapshot: Snapshot
    counted_failures: int  # number of unconfirmed failures in the log of ReconcileTasks
    logged_as_killed: frozenset[str]  # tasks with a killed try, from the log of ArchiveImages

    def unconfirmed_failures(self) -> list[str]:
        """Returns the tasks whose failure only a callback has reported."""
        return [task for task, item in self.snapshot.items.items() if _is_unconfirmed_failure(item)]


def check_before_repair(
    plans: Sequence[TaskPlan], before_repair: StateBeforeRepair, history: History, template: Template
) -> Iterator[Violation]:
    """Runs all checks of this module."""
    yield from _check_unconfirmed_failures(before_repair, template)
    oversized = {plan.task for plan in plans if plan.is_oversized}
    for task in sorted(oversized - before_repair.logged_as_killed):
        yield Violation(OVERSIZED_REPORTED, task, "the log of ArchiveImages does not name it")
    for task in sorted(oversized - before_repair.snapshot.dead_letters.keys()):
        yield Violation(OVERSIZED_REPORTED, task, "its message is not a dead letter")
    shared = shared_runs(oversized, history)
    for task, count in sorted(shared.items()):
        item = before_repair.snapshot.items.get(task)
        if count > MAX_SHARED_RUNS:
            yield Violation(OTHERS_ARCHIVED, task, f"it was in {count} runs of an oversized task")
        # ArchiveImages itself moves a message to the dead letters if retries cannot succeed any more. That is not an
        # effect of an oversized task in the same runs.
        is_affected = task in before_repair.snapshot.dead_letters and task not in history.moved_to_dead_letters
        if is_affected and item and item.status != "SUCCEEDED":
            yield Violation(OTHERS_ARCHIVED, task, f"it is {item.status}, and its message is a dead letter")


def _check_unconfirmed_failures(before_repair: StateBeforeRepair, template: Template) -> Iterator[Violation]:
    unconfirmed = before_repair.unconfirmed_failures()
    if before_repair.counted_failures < len(unconfirmed):
        yield Violation(
            FAILURES_COUNTED,
            UNCONFIRMED_FAILURES,
            f"{before_repair.counted_failures} of {len(unconfirmed)} are counted",
        )
    alarms = template.of_type("AWS::CloudWatch::Alarm")
    if UNCONFIRMED_FAILURES not in {template.resources[name]["Properties"].get("MetricName") for name in alarms}:
        yield Violation(FAILURES_COUNTED, UNCONFIRMED_FAILURES, "the template has no alarm for them")


def _is_unconfirmed_failure(item: TaskRecord) -> bool:
    return item.status == "FAILED" and item.reported_by == "callback" and not item.is_confirmed


def shared_runs(oversized: set[str], history: History) -> Counter[str]:
    """Returns, by task, the number of runs that also handled an oversized task."""
    begun = {handling.begun for handling in history.handlings if handling.task in oversized}
    return Counter(
        handling.task for handling in history.handlings if handling.begun in begun and handling.task not in oversized
    )


def read_tasks_logged_as_killed(logs: Path) -> frozenset[str]:
    """Returns the tasks that the log of ArchiveImages names because an earlier try was killed."""
    return frozenset(
        record["task"]
        for record in _log_records(logs, "ArchiveImagesFunction")
        if str(record.get("message", "")).startswith(_KILLED_TRY_MESSAGE)
    )


def read_counted_failures(logs: Path) -> int:
    """Returns the largest number of unconfirmed failures that a run of ReconcileTasks has logged.

    The scheduled runs, whose clock is not set forward, count fewer.
    """
    return max(
        (
            int(record["unconfirmed"])
            for record in _log_records(logs, "ReconcileTasksFunction")
            if record.get("message") == "tasks counted"
        ),
        default=0,
    )


def _log_records(logs: Path, function: str) -> Iterator[dict[str, Any]]:
    # `*.log.1` contains the earlier lines of a rotated `*.log`.
    for path in (logs / f"{function}.log.1", logs / f"{function}.log"):
        if not path.exists():
            continue
        with path.open(errors="replace") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record
