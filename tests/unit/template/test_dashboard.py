"""The dashboard: it shows every metric, every alarm and every function, and names no provider."""

import json
import re
from typing import Any

import pytest

from catchlight.providers import PROVIDERS
from tests.unit.template.emitted_metrics import emitted_metrics
from tests.unit.template.expanded import FUNCTIONS, QUEUES, RESOURCES, STATE_MACHINES, deployed, of_type
from tests.unit.template.test_alarms import ALARMS, AWS_METRICS, watched_by

BODY = json.loads(deployed()["Dashboard"]["DashboardBody"])
TEXT = json.dumps(BODY)
GRAPHS = {widget["properties"]["title"]: widget for widget in BODY["widgets"] if widget["type"] == "metric"}
SEARCHES = re.findall(
    r"""SEARCH\('\{([^}]*)\} service="(\w+)" MetricName="(\w+)"', '(\w+)', (\d+)\)""", TEXT.replace('\\"', '"')
)


def metrics_of(widget: dict[str, Any]) -> list[list[str]]:
    """Returns a graph's metrics as namespace, name, dimension, value, ..., with short forms expanded."""
    found: list[list[str]] = []
    for row in widget["properties"]["metrics"]:
        words = [word for word in row if isinstance(word, str)]
        if words and words[0] == "...":
            words = found[-1][: len(found[-1]) - len(words) + 1] + words[1:]
        if words:
            found.append([found[-1][place] if word == "." else word for place, word in enumerate(words)])
    return found


def test_widgets_fill_the_grid_without_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for widget in BODY["widgets"]:
        covered = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not covered & cells
        cells |= covered

    assert len(cells) == 24 * (1 + max(y for _, y in cells))


def test_the_name_contains_stack_and_region() -> None:
    assert deployed()["Dashboard"]["DashboardName"] == "catchlight-us-east-1"


def test_all_alarms_are_at_the_top() -> None:
    top = BODY["widgets"][0]

    assert (top["type"], top["x"], top["y"]) == ("alarm", 0, 0)
    assert sorted(top["properties"]["alarms"]) == sorted(f"{name}.Arn" for name in ALARMS)


def test_the_callback_miss_rate_follows_the_alarms() -> None:
    number, over_time = (widget["properties"] for widget in BODY["widgets"][1:3])

    assert number["view"] == "singleValue"
    assert over_time["view"] == "timeSeries"
    for graph in (number, over_time):
        assert "Callback miss rate" in graph["title"]
        assert {words[1] for words in metrics_of({"properties": graph})} == {"ResolvedByPoll", "ResolvedByCallback"}
        assert "100 *" in graph["metrics"][0][0]["expression"]


@pytest.mark.parametrize("title", GRAPHS)
def test_a_graph_shows_metrics_that_exist(title: str) -> None:
    properties = GRAPHS[title]["properties"]

    assert properties["region"] == "us-east-1"
    for namespace, name, *dimensions in metrics_of(GRAPHS[title]):
        if namespace == "Catchlight":
            assert name in emitted_metrics()
            assert dimensions == ["service", "catchlight"]
        elif namespace == "AWS/DynamoDB":
            assert name in {"WriteThrottleEvents", "ReadThrottleEvents"}
        else:
            assert name in AWS_METRICS[namespace, dimensions[0]]
            assert dimensions[1].removesuffix(".QueueName") in RESOURCES


def test_throttled_writes_are_shown_for_each_index() -> None:
    """The table's own metric does not include its indexes, and an index is throttled before the table is."""
    indexes = {index["IndexName"] for index in RESOURCES["TasksTable"]["Properties"]["GlobalSecondaryIndexes"]}
    shown = {
        words[-1]
        for widget in GRAPHS.values()
        for words in metrics_of(widget)
        if words[:3] == ["AWS/DynamoDB", "WriteThrottleEvents", "TableName"]
        and words[4:5] == ["GlobalSecondaryIndexName"]
    }

    assert shown == indexes


@pytest.mark.parametrize("title", GRAPHS)
def test_an_expression_names_metrics_of_its_graph(title: str) -> None:
    rows = GRAPHS[title]["properties"]["metrics"]
    ids = {options["id"] for *_, options in rows if isinstance(options, dict) and "id" in options}
    expressions = [
        options["expression"] for *_, options in rows if isinstance(options, dict) and "expression" in options
    ]

    for expression in expressions:
        if "SEARCH" not in expression:
            assert set(re.findall(r"\b[a-z]\w*\b", expression)) <= ids


@pytest.mark.parametrize(("schema", "service", "metric", "statistic", "period"), SEARCHES)
def test_a_search_finds_a_metric_by_a_dimension_that_it_has(
    schema: str, service: str, metric: str, statistic: str, period: str
) -> None:
    namespace, *dimensions = schema.split(",")

    assert (namespace, service, statistic) == ("Catchlight", "catchlight", "Sum")
    assert set(dimensions) - {"service"} <= emitted_metrics()[metric]
    assert len(dimensions) == 2
    assert int(period) >= 60


def test_every_search_is_parsed_by_these_tests() -> None:
    assert len(SEARCHES) == TEXT.count("SEARCH(") >= 5


def test_no_provider_is_named_in_dashboard_and_alarms() -> None:
    for provider in PROVIDERS:
        assert provider not in TEXT
        assert provider not in json.dumps(of_type("AWS::CloudWatch::Alarm"))


def test_every_metric_that_functions_write_is_shown_or_watched() -> None:
    shown = {words[1] for widget in GRAPHS.values() for words in metrics_of(widget)} | {found[2] for found in SEARCHES}
    watched = {found.name for alarm in ALARMS.values() for found in watched_by(alarm)}

    assert emitted_metrics().keys() - shown - watched == set()


@pytest.mark.parametrize("metric", ["Errors", "Throttles", "Duration"])
def test_every_function_is_shown(metric: str) -> None:
    shown = {words[3] for widget in GRAPHS.values() for words in metrics_of(widget) if words[1] == metric}

    assert shown == FUNCTIONS.keys()


def test_every_queue_and_state_machine_is_shown() -> None:
    shown = {words[3].removesuffix(".QueueName") for widget in GRAPHS.values() for words in metrics_of(widget)}

    assert shown >= QUEUES.keys() | STATE_MACHINES.keys()


def test_durations_are_shown_as_percentages_of_the_timeouts() -> None:
    (graph,) = (widget for title, widget in GRAPHS.items() if "timeout" in title)
    expressions = [row[0]["expression"] for row in graph["properties"]["metrics"] if isinstance(row[0], dict)]
    ids = {
        row[-1]["id"]: words[3]
        for row, words in zip(
            [row for row in graph["properties"]["metrics"] if isinstance(row[0], str)], metrics_of(graph), strict=True
        )
    }

    assert sorted(expressions) == sorted(
        f"100 * {name} / {FUNCTIONS[function]['Timeout'] * 1000}" for name, function in ids.items()
    )


def test_horizontal_lines_are_at_the_thresholds_of_alarms() -> None:
    lines = {
        title: {line["value"] for line in widget["properties"].get("annotations", {}).get("horizontal", [])}
        for title, widget in GRAPHS.items()
    }
    drawn = set().union(*lines.values())

    assert drawn == {
        ALARMS["CallbackLatencyAlarm"]["Threshold"],
        ALARMS["FunctionDurationAlarm"]["Threshold"],
        ALARMS["UrlSecondsToExpiryAlarm"]["Threshold"],
        ALARMS["ArchiveQueueAgeAlarm"]["Threshold"],
        ALARMS["IteratorAgeAlarm"]["Threshold"] / 1000,
        ALARMS["EventsIteratorAgeAlarm"]["Threshold"] / 1000,
        ALARMS["WebhookQueueAgeAlarm"]["Threshold"],
        10,  # CallbackMissAlarmPercent
    }
