"""Runs a soak test of 150 tasks with all kinds of faults. `make soak` runs thousands of tasks."""

from pathlib import Path

import pytest

from local.artefact import Artefact
from tests.searches.soak.aws_faults import Fault
from tests.searches.soak.report import Report, Soak
from tests.searches.soak.run import run
from tests.searches.soak.table import table

# Longer intervals than in `make soak`, for fewer polls.
PARAMETERS = {
    "FirstPollAfterSeconds": "240",
    "PollIntervalSeconds": "240",
    "SlowPollIntervalSeconds": "240",
    "GiveUpAfterSeconds": "900",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None) -> Report:
    return run(
        Soak(
            tasks=150,
            seed=20,
            state_dir=tmp_path_factory.mktemp("soak"),
            time_scale=0.006,
            in_flight=150,
            parameters=PARAMETERS,
            max_seconds=300,
            artefact=artefact,
        )
    )


def test_no_guarantee_is_violated(report: Report) -> None:
    assert list(map(str, report.violations)) == []


def test_faults_were_frequent(report: Report) -> None:
    assert report.faulty_share > 0.2
    assert sum(report.faults.values()) / report.calls > 0.05
    assert {fault for _, fault in report.faults} >= {Fault.THROTTLE, Fault.ERROR, Fault.ERROR_AFTER, Fault.CUT_AFTER}
    assert {service for service, _ in report.faults} >= {"dynamodb", "s3", "sqs"}
    assert sum(report.kills.values()) > 0
    assert report.acknowledged > 100
    assert report.objects > 100
    assert {"ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"} <= report.outcomes.keys()
    assert {"callback", "poll"} == report.resolved_by.keys()


def test_each_event_is_recorded_with_the_process_and_the_call_that_sent_it(report: Report) -> None:
    runs = {run.sandbox for run in report.history.runs}

    assert report.history.events
    assert all(event.sandbox in runs and event.call for event in report.history.events)


def test_the_table_has_all_counts(report: Report) -> None:
    rows = dict(zip(table(report).columns[0].cells, table(report).columns[1].cells, strict=True))

    assert rows["Tasks after one redrive"] == "150"
    assert rows["Lost"] == rows["Duplicated"] == rows["All violations"] == "0"


def test_the_functions_log_files_are_in_the_state_folder(report: Report) -> None:
    assert (Path(report.soak.state_dir) / "logs" / "ArchiveImagesFunction.log").exists()
