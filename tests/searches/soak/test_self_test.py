"""Tests that the checker reports each planted fault with its task and guarantee, and no violation of other tasks."""

import pytest

from tests.searches.soak.evidence import check_evidence
from tests.searches.soak.planted_faults import FAULTS
from tests.searches.soak.self_test import Detection, detections
from tests.searches.soak.valid_evidence import valid_evidence

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


def test_a_message_that_archive_images_moved_to_the_dead_letters_is_no_violation() -> None:
    name = "The message of an archived task becomes a dead letter together with the message of an oversized task"
    fault = next(fault for fault in FAULTS if fault.name == name)
    evidence = valid_evidence()
    evidence.history.moved_to_dead_letters.add(fault.plant(evidence))

    assert check_evidence(evidence).violations == []
