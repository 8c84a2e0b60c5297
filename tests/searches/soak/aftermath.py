"""Checks what has become of tasks by the end of the faults, before anything is repaired.

false failures are counted     ReconcileTasks counts the failures that no service has confirmed, and an alarm watches
killed tries are reported      a task that kills each run is named in the log and becomes a dead letter
no neighbour is taken along    a task that shares its runs is archived soon, and its message is no dead letter
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.template.expand import Template
from tests.searches.soak.checks import Violation
from tests.searches.soak.ending import Standing
from tests.searches.soak.history import History, TaskRecord
from tests.searches.soak.plans import TaskPlan

FALSE_FAILURES, KILLED_TRIES, NEIGHBOURS = (
    "false failures are counted",
    "killed tries are reported",
    "no neighbour is taken along",
)
UNCONFIRMED_FAILURES = "UnconfirmedFailures"
# A neighbour is killed in its first two tries, and in the third if the lethal task comes first. The marks of killed
# tries do not count for a minute, three tries, if the clock of another function runs ahead. Repeated messages, and runs
# that other faults end before they do anything, made it 12 on a busy machine. One that is tied to the lethal task for
# ever is also found by its dead letter.
MAX_SHARED_RUNS = 30
_NAMES_SUSPECT = "an earlier try of this task was killed"


@dataclass(frozen=True)
class Aftermath:
    """What is left when the faults are over, before the hourly run."""

    standing: Standing
    counted: int  # unconfirmed failures, by ReconcileTasks
    suspects: frozenset[str]  # tasks that the log of ArchiveImages names as killed

    def false_failures(self) -> list[str]:
        """Returns the tasks that are FAILED only by a callback."""
        return [task for task, item in self.standing.items.items() if _is_unconfirmed_failure(item)]


def check_aftermath(
    plans: Sequence[TaskPlan], aftermath: Aftermath, history: History, template: Template
) -> Iterator[Violation]:
    """Checks everything."""
    yield from _check_false_failures(aftermath, template)
    lethal = {plan.task for plan in plans if plan.is_lethal}
    for task in sorted(lethal - aftermath.suspects):
        yield Violation(KILLED_TRIES, task, "no log line names it")
    for task in sorted(lethal - aftermath.standing.dead.keys()):
        yield Violation(KILLED_TRIES, task, "it is no dead letter")
    shared = runs_shared(lethal, history)
    for task, count in sorted(shared.items()):
        item = aftermath.standing.items.get(task)
        if count > MAX_SHARED_RUNS:
            yield Violation(NEIGHBOURS, task, f"it was in {count} runs of a lethal task")
        if task in aftermath.standing.dead and item and item.status != "SUCCEEDED":
            yield Violation(NEIGHBOURS, task, f"it is {item.status}, and its message is a dead letter")


def _check_false_failures(aftermath: Aftermath, template: Template) -> Iterator[Violation]:
    waiting = aftermath.false_failures()
    if aftermath.counted < len(waiting):
        yield Violation(FALSE_FAILURES, UNCONFIRMED_FAILURES, f"{aftermath.counted} of {len(waiting)} are counted")
    alarms = template.of_type("AWS::CloudWatch::Alarm")
    if UNCONFIRMED_FAILURES not in {template.resources[name]["Properties"].get("MetricName") for name in alarms}:
        yield Violation(FALSE_FAILURES, UNCONFIRMED_FAILURES, "no alarm watches them")


def _is_unconfirmed_failure(item: TaskRecord) -> bool:
    return item.status == "FAILED" and item.reported_by == "callback" and not item.is_confirmed


def runs_shared(lethal: set[str], history: History) -> Counter[str]:
    """Counts the runs in which other tasks were together with a lethal one, by task."""
    begun = {handling.begun for handling in history.handlings if handling.task in lethal}
    return Counter(
        handling.task for handling in history.handlings if handling.begun in begun and handling.task not in lethal
    )


def read_suspects(logs: Path) -> frozenset[str]:
    """Returns the tasks that the log of ArchiveImages names as killed."""
    return frozenset(
        record["task"]
        for record in _log_records(logs, "ArchiveImagesFunction")
        if str(record.get("message", "")).startswith(_NAMES_SUSPECT)
    )


def read_counted(logs: Path) -> int:
    """Returns the most unconfirmed failures that a run of ReconcileTasks has counted.

    The runs of the schedule, before and after the one that runs as hours later, count fewer.
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
    # `*.log.1` has earlier lines than `*.log`.
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
