"""Judges a soak test: all checks, on everything that a run has left."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local.template.expand import Template
from tests.searches.soak.aftermath import Aftermath, check_aftermath
from tests.searches.soak.checks import Violation, check_history
from tests.searches.soak.ending import (
    Contents,
    Standing,
    alarms_missing,
    check_bucket,
    check_items,
    check_requests,
    check_tasks,
)
from tests.searches.soak.history import History
from tests.searches.soak.images import image_truths
from tests.searches.soak.plans import TaskPlan


@dataclass
class Evidence:
    """Everything that a run leaves for the checks."""

    plans: Sequence[TaskPlan]
    history: History
    aftermath: Aftermath  # when the faults are over
    before: Standing  # after the hourly run
    after: Standing  # after a redrive
    contents: Contents
    image_requests: Mapping[str, int]  # by path
    template: Template
    errors: Sequence[str] = ()  # of the simulation itself
    redrive_problem: str | None = None


@dataclass(frozen=True)
class Verdict:
    """All violations, and the number of tasks by outcome, before and after the redrive."""

    violations: list[Violation]
    outcomes_before: Counter[str]
    outcomes: Counter[str]


def judge(evidence: Evidence) -> Verdict:
    """Checks everything."""
    plans, history, after = evidence.plans, evidence.history, evidence.after
    images = image_truths(plans)
    stuck, outcomes_before = check_tasks(plans, evidence.before, history, is_repaired=False)
    unrepaired, outcomes = check_tasks(plans, after, history, is_repaired=True)
    missing = alarms_missing(evidence.template)
    violations = [
        *stuck,
        *unrepaired,
        *check_items(plans, after, images),
        *check_bucket(after, evidence.contents, history, images),
        *check_aftermath(plans, evidence.aftermath, history, evidence.template),
        *check_requests(evidence.image_requests),
        *check_history(history, {path: image.sha256 for path, image in images.items()}),
        *(Violation("dead letters raise an alarm", queue, "no alarm watches it") for queue in missing),
        *(Violation("the soak itself works", "", error) for error in evidence.errors),
    ]
    if evidence.redrive_problem:
        violations.append(Violation("what is left can be redriven", "", evidence.redrive_problem))
    return Verdict(violations, outcomes_before, outcomes)
