"""A small soak, with every fault there is: `make soak` plays thousands of tasks, this one some of them."""

from pathlib import Path

import pytest

from local.artefact import Artefact
from tests.searches.soak.aws_faults import Fault
from tests.searches.soak.report import Report, Soak
from tests.searches.soak.run import run
from tests.searches.soak.table import table

# As in a large one, but that nothing is waited for that is not needed.
SCALE = {
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
            parameters=SCALE,
            max_seconds=300,
            artefact=artefact,
        )
    )


def test_every_promise_is_kept(report: Report) -> None:
    assert list(map(str, report.violations)) == []


def test_faults_were_frequent(report: Report) -> None:
    assert report.treated_share > 0.2
    assert sum(report.faults.values()) / report.calls > 0.05
    assert {fault for _, fault in report.faults} >= {Fault.THROTTLE, Fault.ERROR, Fault.ERROR_AFTER, Fault.CUT_AFTER}
    assert {service for service, _ in report.faults} >= {"dynamodb", "s3", "sqs"}
    assert sum(report.kills.values()) > 0
    assert report.acknowledged > 100
    assert report.objects > 100
    assert {"ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"} <= report.outcomes.keys()
    assert {"callback", "poll"} == report.resolved_by.keys()


def test_it_ends_in_a_table(report: Report) -> None:
    rows = dict(zip(table(report).columns[0].cells, table(report).columns[1].cells, strict=True))

    assert rows["Tasks, after one redrive"] == "150"
    assert rows["Lost"] == rows["Double"] == rows["Violations in all"] == "0"


def test_logs_are_where_they_are_looked_for(report: Report) -> None:
    assert (Path(report.soak.state_dir) / "logs" / "ArchiveImagesFunction.log").exists()
