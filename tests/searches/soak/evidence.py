"""Defines the evidence of a soak test, which is everything that a run records, and runs all checks on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local.template.expand import Template
from tests.searches.soak.before_repair import StateBeforeRepair, check_before_repair
from tests.searches.soak.checks import Violation, check_history
from tests.searches.soak.final_state import (
    BucketContents,
    Snapshot,
    check_bucket,
    check_items,
    check_requests,
    check_tasks,
    queues_without_alarm,
)
from tests.searches.soak.history import History
from tests.searches.soak.images import expected_images
from tests.searches.soak.plans import TaskPlan


@dataclass
class Evidence:
    """The plans of a run, its recorded history, and the state of the stack at three times."""

    plans: Sequence[TaskPlan]
    history: History
    before_repair: StateBeforeRepair  # after the faults, before ReconcileTasks
    before_redrive: Snapshot  # after ReconcileTasks
    after_redrive: Snapshot
    contents: BucketContents
    image_requests: Mapping[str, int]  # by path
    template: Template
    errors: Sequence[str] = ()  # tracebacks of the simulation
    redrive_problem: str | None = None


@dataclass(frozen=True)
class CheckResult:
    """All violations, and the number of tasks by outcome, before and after the redrive."""

    violations: list[Violation]
    outcomes_before: Counter[str]
    outcomes: Counter[str]


def check_evidence(evidence: Evidence) -> CheckResult:
    """Runs all checks."""
    plans, history, after = evidence.plans, evidence.history, evidence.after_redrive
    images = expected_images(plans)
    violations_before, outcomes_before = check_tasks(plans, evidence.before_redrive, history, is_repaired=False)
    violations_after, outcomes = check_tasks(plans, after, history, is_repaired=True)
    without_alarm = queues_without_alarm(evidence.template)
    violations = [
        *violations_before,
        *violations_after,
        *check_items(plans, after, images),
        *check_bucket(after, evidence.contents, history, images),
        *check_before_repair(plans, evidence.before_repair, history, evidence.template),
        *check_requests(evidence.image_requests),
        *check_history(history, {path: image.sha256 for path, image in images.items()}),
        *(
            Violation("every dead-letter queue has an alarm", queue, "the template has no alarm for it")
            for queue in without_alarm
        ),
        *(Violation("the simulation has no errors", "", error) for error in evidence.errors),
    ]
    if evidence.redrive_problem:
        violations.append(Violation("the redrive command succeeds", "", evidence.redrive_problem))
    return CheckResult(violations, outcomes_before, outcomes)
