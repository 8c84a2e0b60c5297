"""Tests the soak's checker: plants each known fault into the evidence of a faultless run, and reads the verdict.

python -m tests.searches.soak.self_test
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from local.environment import ignore_user_settings

if __name__ == "__main__":  # before boto3 or moto is imported
    ignore_user_settings()

from rich.console import Console

from tests.searches.soak.checks import Violation
from tests.searches.soak.finished_world import finished_world
from tests.searches.soak.planted_faults import FAULTS, PlantedFault
from tests.searches.soak.verdict import judge


@dataclass(frozen=True, slots=True)
class Detection:
    """What the checker reports of one planted fault."""

    fault: PlantedFault
    task: str  # or the queue that has the fault
    violations: list[Violation]

    @property
    def report(self) -> Violation | None:
        """The violation that names the fault's promise and its task; None if the checker has missed it."""
        wanted = (self.fault.promise, self.task)
        return next((found for found in self.violations if (found.promise, found.task) == wanted), None)


def detections() -> Iterator[Detection]:
    """Yields what the checker reports of each planted fault; of the evidence without a fault it must report nothing.

    Raises:
        AssertionError: the evidence without a fault has violations.
    """
    faultless = finished_world()
    violations = judge(faultless).violations
    assert not violations, list(map(str, violations))
    for fault in FAULTS:
        evidence = replace(faultless, history=faultless.history.copy())
        task = fault.plant(evidence)
        yield Detection(fault, task, judge(evidence).violations)


def main() -> int:
    """Prints what the checker reports of each fault; returns 0 if it reports all of them."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    missed = 0
    for number, detection in enumerate(detections(), start=1):
        missed += detection.report is None
        console.print(f"{number:2}  {detection.fault.name}")
        console.print(f"    {detection.report or 'MISSED'}", style="red" if detection.report is None else "green")
    console.print(f"{len(FAULTS) - missed} of {len(FAULTS)} planted faults were reported.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
