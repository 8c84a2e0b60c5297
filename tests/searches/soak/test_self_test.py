"""The checker reports each planted fault with its task and guarantee, and no violation of other tasks."""

import pytest

from tests.searches.soak.planted_faults import FAULTS
from tests.searches.soak.self_test import Detection, detections

# Faults that affect all tasks.
OF_ALL_TASKS = {"No event is published", "Each event is published twice, by a run that did not fail"}


@pytest.fixture(scope="module")
def found() -> dict[str, Detection]:
    return {detection.fault.name: detection for detection in detections()}


def test_at_least_20_faults_have_unique_names() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
def test_a_planted_fault_is_reported_with_its_task(found: dict[str, Detection], name: str) -> None:
    detection = found[name]

    assert detection.report is not None, list(map(str, detection.violations))
    if name not in OF_ALL_TASKS:
        assert {violation.task for violation in detection.violations} <= {detection.task, "rejected/"}
