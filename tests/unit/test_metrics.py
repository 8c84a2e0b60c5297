"""Metrics as CloudWatch reads them from the log."""

import json
from typing import Any

import pytest

from catchlight.observability.metrics import Metrics, Unit, metrics_by


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catchlight.observability.metrics.time.time", lambda: 1_769_860_800.1236)


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_metric_counts_under_the_service_and_with_its_dimension(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by(provider="acedata") as counted:
        counted.add_metric("Images", Unit.COUNT, 1)
        counted.add_metric("Images", Unit.COUNT, 2)
        counted.add_metric("Took", Unit.SECONDS, 0.5)
        counted.add_metric("Size", Unit.BYTES, 7)

    assert written(capsys) == [
        {
            "_aws": {
                "Timestamp": 1_769_860_800_124,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "Catchlight",
                        "Dimensions": [["service"], ["service", "provider"]],
                        "Metrics": [
                            {"Name": "Images", "Unit": "Count"},
                            {"Name": "Took", "Unit": "Seconds"},
                            {"Name": "Size", "Unit": "Bytes"},
                        ],
                    }
                ],
            },
            "service": "catchlight",
            "provider": "acedata",
            "Images": [1.0, 2.0],
            "Took": [0.5],
            "Size": [7.0],
        }
    ]


def test_without_a_dimension_it_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by() as counted:
        counted.add_metric("Images", Unit.COUNT, 1)

    (line,) = written(capsys)
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]


def test_where_nothing_was_counted_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by(provider="acedata"):
        pass

    assert Metrics().line({}) is None
    assert written(capsys) == []


def test_what_was_counted_before_a_fault_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    def count_and_fail() -> None:
        with metrics_by() as counted:
            counted.add_metric("Images", Unit.COUNT, 1)
            raise KeyError

    with pytest.raises(KeyError):
        count_and_fail()

    assert len(written(capsys)) == 1
