"""When each alarm goes off: docs/operating.md has the same conditions as the template."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.template.expanded import REPOSITORY
from tests.unit.template.expanded import referred as referred_to
from tests.unit.template.test_alarms import ALARMS, Watched, expression_of, watched_by

PAGE = (REPOSITORY / "docs/operating.md").read_text()
COMPARISONS = {"GreaterThanThreshold": ">", "GreaterThanOrEqualToThreshold": "≥", "LessThanThreshold": "<"}
MISSING_DATA = {"notBreaching": "not breaching", "breaching": "breaching"}


def words_of(metric: Watched) -> str:
    """Returns a metric as `sum of AWS/Lambda Errors (PollTasksFunction)`, without the dimension `service`."""
    statistic = {"SampleCount": "sample count"}.get(metric.statistic, metric.statistic.lower())
    about = [
        value if isinstance(value, str) else referred_to(value)
        for name, value in metric.dimensions.items()
        if name != "service"
    ]
    return f"{statistic} of {metric.namespace} {metric.name}" + (f" ({', '.join(about)})" if about else "")


def names_in(alarm: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each id in an alarm's expression with its meaning: another expression, or a metric."""
    watched = watched_by(alarm)
    for found in alarm["Metrics"]:
        yield found["Id"], f"`{expression_of(found)}`" if "Expression" in found else words_of(next(watched))


def watched_value(alarm: dict[str, Any]) -> str:
    """Returns the value that is compared with the threshold."""
    if "Metrics" not in alarm:
        return words_of(*watched_by(alarm))
    (_, value), *names = names_in(alarm)
    return f"{value} of " + ", ".join(f"{name} = {meaning}" for name, meaning in names)


def row_of(name: str) -> str:
    """Returns the row of an alarm in the table."""
    alarm = ALARMS[name]
    threshold = alarm["Threshold"]
    limit = f"`{referred_to(threshold)}`" if isinstance(threshold, dict) else f"{threshold:,}"
    periods, (seconds,) = alarm["EvaluationPeriods"], {metric.period_seconds for metric in watched_by(alarm)}
    needed = alarm.get("DatapointsToAlarm", periods)
    span = f"{seconds // 60} min" if periods == 1 else f"{needed} of {periods} × {seconds // 60} min"  # noqa: RUF001
    cells = (watched_value(alarm), f"{COMPARISONS[alarm['ComparisonOperator']]} {limit}", span)
    return f"| {name} | " + " | ".join((*cells, MISSING_DATA[alarm["TreatMissingData"]])) + " |"


@pytest.mark.parametrize("name", ALARMS)
def test_the_page_says_when_an_alarm_goes_off(name: str) -> None:
    (row,) = re.findall(rf"^\| {name} \|.*$", PAGE, re.MULTILINE)

    assert row == row_of(name), f"write into docs/operating.md: {row_of(name)}"


@pytest.mark.parametrize("name", ALARMS)
def test_a_period_is_whole_minutes(name: str) -> None:
    assert not [metric.name for metric in watched_by(ALARMS[name]) if metric.period_seconds % 60]


def test_missing_data_is_breaching_only_for_the_metric_of_the_hourly_run() -> None:
    """The hourly run writes its metrics in every run; all other metrics are written only when something happens."""
    going_off = [name for name, alarm in ALARMS.items() if alarm["TreatMissingData"] == "breaching"]

    assert going_off == ["ReconcilingStoppedAlarm"]
    (metric,) = watched_by(ALARMS["ReconcilingStoppedAlarm"])
    assert (metric.name, metric.statistic) == ("OldestPendingSeconds", "SampleCount")
    assert metric.period_seconds == 3600  # one run each


def test_alarms_have_settings_that_cloudwatch_accepts() -> None:
    """CloudWatch refuses a metric beside an expression, more datapoints than periods, and more than a day in all."""
    for alarm in ALARMS.values():
        assert ("Metrics" in alarm) != ("MetricName" in alarm)
        assert 0 < alarm.get("DatapointsToAlarm", 1) <= alarm["EvaluationPeriods"]
        assert alarm["EvaluationPeriods"] * max(found.period_seconds for found in watched_by(alarm)) <= 86_400
