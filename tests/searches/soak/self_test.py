"""Tests the checker of the soak test: plants each fault into valid evidence; the checker must report it.

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
from tests.searches.soak.evidence import check_evidence
from tests.searches.soak.planted_faults import FAULTS, PlantedFault
from tests.searches.soak.valid_evidence import valid_evidence


@dataclass(frozen=True, slots=True)
class Detection:
    """The violations that the checker reports for one planted fault."""

    fault: PlantedFault
    task: str  # the task, queue or metric with the fault
    violations: list[Violation]

    @property
    def report(self) -> Violation | None:
        """The violation with the fault's guarantee and task; None if the checker does not report it."""
        wanted = (self.fault.guarantee, self.task)
        return next((found for found in self.violations if (found.guarantee, found.task) == wanted), None)


def detections() -> Iterator[Detection]:
    """Yields the checker's violations for each planted fault.

    Raises:
        AssertionError: the checker reports violations for the evidence without a planted fault.
    """
    valid = valid_evidence()
    violations = check_evidence(valid).violations
    assert not violations, list(map(str, violations))
    for fault in FAULTS:
        evidence = replace(valid, history=valid.history.copy())
        task = fault.plant(evidence)
        yield Detection(fault, task, check_evidence(evidence).violations)


def main() -> int:
    """Prints one violation for each planted fault; returns 0 if the checker reports all faults."""
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
