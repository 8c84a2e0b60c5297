"""Metrics as CloudWatch reads them from the log."""

import json
import time
from typing import Any

import pytest
from aws_lambda_powertools.metrics import MetricUnit

from catchlight.observability.metrics import metrics_by


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_metric_is_published_for_the_service_and_for_its_dimension(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by(provider="acedata") as counted:
        counted.add_metric("Images", MetricUnit.Count, 1)
        counted.add_metric("Images", MetricUnit.Count, 2)
        counted.add_metric("Took", MetricUnit.Seconds, 0.5)
        counted.add_metric("Size", MetricUnit.Bytes, 7)

    (line,) = written(capsys)
    assert line["_aws"].pop("Timestamp") == pytest.approx(time.time() * 1000, abs=60_000)
    assert line == {
        "_aws": {
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


def test_a_metric_without_a_dimension_is_published_for_the_service_only(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by() as counted:
        counted.add_metric("Images", MetricUnit.Count, 1)

    (line,) = written(capsys)
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]


def test_nested_blocks_do_not_share_their_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by(provider="acedata") as outer:
        outer.add_metric("Images", MetricUnit.Count, 1)
        with metrics_by(reason="TimeoutError") as inner:
            inner.add_metric("ProcessingErrors", MetricUnit.Count, 1)

    first, second = written(capsys)
    assert (first["ProcessingErrors"], "Images" in first, "provider" in first) == ([1.0], False, False)
    assert (second["Images"], "ProcessingErrors" in second, "reason" in second) == ([1.0], False, False)


def test_a_line_is_written_with_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[str] = []
    monkeypatch.setattr("sys.stdout.write", writes.append)

    with metrics_by() as counted:
        counted.add_metric("Images", MetricUnit.Count, 1)

    (line,) = writes
    assert line.endswith("}\n")


def test_without_metrics_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by(provider="acedata"):
        pass

    assert written(capsys) == []


def test_metrics_from_before_an_error_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    def count_and_fail() -> None:
        with metrics_by() as counted:
            counted.add_metric("Images", MetricUnit.Count, 1)
            raise KeyError

    with pytest.raises(KeyError):
        count_and_fail()

    assert len(written(capsys)) == 1
