"""Alarms: complete, on metrics that exist, early enough, and explained."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from catchlight.providers import PROVIDERS
from tests.unit.template.emitted_metrics import emitted_metrics
from tests.unit.template.expanded import (
    FUNCTIONS,
    QUEUES,
    RAW,
    REPOSITORY,
    RESOURCES,
    STATE_MACHINES,
    STREAM_SOURCES,
    deployed,
    of_type,
)
from tests.unit.template.expanded import referred as referred_to

ALARMS = of_type("AWS::CloudWatch::Alarm")
SHORTEST_URL_LIFETIME_SECONDS = min(
    lifetime.total_seconds() for provider in PROVIDERS.values() for lifetime in provider.url_lifetimes.values()
)
# The documented metrics of these services, by namespace and dimension.
AWS_METRICS = {
    ("AWS/ApiGateway", "ApiId"): {"4xx", "5xx", "Count", "Latency"},
    ("AWS/Lambda", "FunctionName"): {
        "DestinationDeliveryFailures",
        "Duration",
        "Errors",
        "Invocations",
        "IteratorAge",
        "Throttles",
    },
    ("AWS/SQS", "QueueName"): {"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"},
    ("AWS/States", "StateMachineArn"): {"ExecutionsAborted", "ExecutionsFailed", "ExecutionsTimedOut"},
}
TREATMENTS_OF_MISSING_DATA = {"missing", "ignore", "breaching", "notBreaching"}


@dataclass(frozen=True)
class Watched:
    """One metric of one resource, or of the stack."""

    namespace: str
    name: str
    dimensions: dict[str, Any]
    statistic: str
    period_seconds: int


def expression_of(metric: dict[str, Any]) -> str:
    """Returns an expression, with the names of the parameters in it."""
    expression = metric["Expression"]
    return str(expression["Fn::Sub"] if isinstance(expression, dict) else expression)


def watched_by(alarm: dict[str, Any]) -> Iterator[Watched]:
    """Yields the metrics that an alarm watches, directly or in its expression."""
    stats = [
        {**found["MetricStat"]["Metric"], **found["MetricStat"]}
        for found in alarm.get("Metrics", [])
        if "MetricStat" in found
    ] or [{**alarm, "Stat": alarm.get("Statistic", alarm.get("ExtendedStatistic"))}]
    for stat in stats:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in stat["Dimensions"]}
        yield Watched(stat["Namespace"], stat["MetricName"], dimensions, stat["Stat"], stat["Period"])


def watching(name: str) -> dict[str, dict[str, Any]]:
    """Returns the alarms on this metric, by the resource that they watch."""
    return {
        referred_to(next(iter(watched.dimensions.values()))): alarm
        for alarm in ALARMS.values()
        for watched in watched_by(alarm)
        if watched.name == name
    }


def test_there_are_at_least_14_alarms() -> None:
    assert len(ALARMS) >= 14


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_notifies_the_topic_when_it_starts_and_when_it_ends(name: str) -> None:
    with_topic = deployed(AlarmTopicArn="arn:aws:sns:us-east-1:123456789012:operators")[name]

    by_email = deployed(AlarmEmail="operators@example.com")[name]
    for actions in ("AlarmActions", "OKActions"):
        assert with_topic[actions] == ["arn:aws:sns:us-east-1:123456789012:operators"]
        assert by_email[actions] == ["AlarmTopic"]
        assert deployed()[name][actions] == []


def test_an_address_subscribes_to_a_topic_of_the_stack() -> None:
    assert "AlarmTopic" not in deployed()
    assert deployed(AlarmEmail="operators@example.com")["AlarmTopic"]["Subscription"] == [
        {"Protocol": "email", "Endpoint": "operators@example.com"}
    ]


@pytest.mark.parametrize(
    ("address", "is_one"),
    [("", True), ("a.b+c@mail.example.com", True), ("operators", False), ("a@b", False), ("a b@c.example", False)],
)
def test_an_alarm_address_is_an_address(address: str, is_one: bool) -> None:
    pattern = RAW["Parameters"]["AlarmEmail"]["AllowedPattern"]

    assert bool(re.fullmatch(pattern, address)) is is_one


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_what_it_means_and_what_to_do_next(name: str) -> None:
    meaning, separator, action = ALARMS[name]["AlarmDescription"].partition(" Next: ")

    assert separator
    assert len(meaning) > 40
    assert meaning.endswith(".")
    assert len(action) > 15
    assert action.endswith(".")
    assert len(ALARMS[name]["AlarmDescription"]) <= 1024  # CloudWatch's limit


@pytest.mark.parametrize("name", ALARMS)
def test_the_treatment_of_missing_data_has_a_reason(name: str) -> None:
    # The template gives the reason in a comment on the same line.
    (block,) = re.findall(rf"^  {name}:\n(?:(?:    .*)?\n)+", (REPOSITORY / "template.yaml").read_text(), re.MULTILINE)

    assert ALARMS[name]["TreatMissingData"] in TREATMENTS_OF_MISSING_DATA
    assert re.search(r"^ +TreatMissingData: \w+ # .{10,}$", block, re.MULTILINE)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_watches_metrics_that_exist(name: str) -> None:
    emitted = emitted_metrics()

    for watched in watched_by(ALARMS[name]):
        if watched.namespace == RAW["Globals"]["Function"]["Environment"]["Variables"]["POWERTOOLS_METRICS_NAMESPACE"]:
            # Every metric is published with the dimension `service` alone, and once more with its other dimension.
            assert watched.dimensions.pop("service") == {"Ref": "AWS::StackName"}
            assert watched.dimensions.keys() <= emitted[watched.name]
        else:
            ((dimension, value),) = watched.dimensions.items()
            assert watched.name in AWS_METRICS[watched.namespace, dimension]
            assert referred_to(value) in RESOURCES


@pytest.mark.parametrize("name", [name for name, alarm in ALARMS.items() if "Metrics" in alarm])
def test_an_expression_uses_all_its_metrics_in_one_period(name: str) -> None:
    metrics = ALARMS[name]["Metrics"]
    expressions = " ".join(expression_of(found) for found in metrics if "Expression" in found)

    assert [found["Id"] for found in metrics if found.get("ReturnData", True)] == [metrics[0]["Id"]]
    assert len({watched.period_seconds for watched in watched_by(ALARMS[name])}) == 1
    for found in metrics[1:]:
        assert "METRICS()" in expressions or re.search(rf"\b{found['Id']}\b", expressions)
    assert len(metrics) <= 10  # CloudWatch's limit


def test_every_queue_that_has_to_be_empty_is_watched() -> None:
    sources = {"ArchiveQueue", "PollQueue", "WebhookQueue"}

    assert watching("ApproximateNumberOfMessagesVisible").keys() == QUEUES.keys() - sources
    assert watching("ApproximateAgeOfOldestMessage").keys() == sources
    for alarm in watching("ApproximateNumberOfMessagesVisible").values():
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)


@pytest.mark.parametrize(
    ("metric", "left_out"),
    [
        ("Errors", set()),
        ("Throttles", set()),
        # ServeTasksApi: a request with `wait` may take nearly all of its timeout.
        # SendWebhooks: it waits up to 15 of its 45 s for the receiver, and an invocation that times out is an error.
        ("Duration", {"ServeTasksApiFunction", "SendWebhooksFunction"}),
    ],
)
def test_every_function_is_watched(metric: str, left_out: set[str]) -> None:
    assert watching(metric).keys() == FUNCTIONS.keys() - left_out


def test_the_duration_alarm_has_the_timeout_of_each_function() -> None:
    alarm = ALARMS["FunctionDurationAlarm"]
    expression = alarm["Metrics"][0]["Expression"]
    divisors = {name: int(value) for name, value in re.findall(r"FILL\((\w+), 0\) / (\d+)", expression)}
    functions = {found["Id"]: found["MetricStat"]["Metric"]["Dimensions"][0]["Value"] for found in alarm["Metrics"][1:]}

    assert divisors == {name: FUNCTIONS[referred_to(value)]["Timeout"] * 1000 for name, value in functions.items()}
    assert alarm["Threshold"] < 100


def test_every_stream_is_watched() -> None:
    consumers = {referred_to(source["FunctionName"]) for source in STREAM_SOURCES.values()}

    assert watching("IteratorAge").keys() == consumers
    assert watching("DestinationDeliveryFailures").keys() == consumers


@pytest.mark.parametrize("metric", ["ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"])
def test_every_state_machine_is_watched(metric: str) -> None:
    assert watching(metric).keys() == STATE_MACHINES.keys()


def test_the_latency_alarm_is_at_half_of_the_callback_functions_timeout_or_below() -> None:
    alarm = ALARMS["CallbackLatencyAlarm"]

    assert alarm["ExtendedStatistic"] == "p99"
    assert alarm["Threshold"] <= FUNCTIONS["ReceiveCallbackFunction"]["Timeout"] * 1000 / 2


@pytest.mark.parametrize("name", ["ArchiveQueueAgeAlarm", "IteratorAgeAlarm"])
def test_a_backlog_is_noticed_within_a_third_of_the_shortest_url_lifetime(name: str) -> None:
    alarm = ALARMS[name]
    threshold = alarm["Threshold"] / (1000 if alarm["MetricName"] == "IteratorAge" else 1)
    noticed_after = threshold + alarm["Period"] * alarm["EvaluationPeriods"]

    assert noticed_after <= SHORTEST_URL_LIFETIME_SECONDS / 3


def test_the_expiry_alarm_is_at_half_of_the_shortest_url_lifetime() -> None:
    alarm = ALARMS["UrlSecondsToExpiryAlarm"]

    assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Minimum", "LessThanThreshold")
    assert alarm["Threshold"] == SHORTEST_URL_LIFETIME_SECONDS / 2


def test_the_callback_miss_alarm_needs_some_results() -> None:
    alarm = ALARMS["CallbackMissesAlarm"]

    assert alarm["Threshold"] == {"Ref": "CallbackMissAlarmPercent"}
    assert {watched.name for watched in watched_by(alarm)} == {"ResolvedByPoll", "ResolvedByCallback"}
    assert re.match(
        r"IF\(polled \+ called >= \d+, 100 \* polled / \(polled \+ called\), 0\)$", alarm["Metrics"][0]["Expression"]
    )


def test_the_credentials_alarm_counts_unauthorized_callbacks() -> None:
    (watched,) = watched_by(ALARMS["InvalidCredentialsAlarm"])

    assert (watched.name, watched.dimensions["reason"]) == ("CallbacksRefused", "unauthorized")


def test_essential_monitoring_keeps_the_alarms_that_report_a_loss() -> None:
    """Every queue whose messages are work that stopped, every metric of lost images and tasks, and the hourly run."""
    created = {name: alarm for name, alarm in ALARMS.items() if name in deployed(Monitoring="Essential")}
    watched = {metric.name for alarm in created.values() for metric in watched_by(alarm)}
    queues = {
        referred_to(metric.dimensions["QueueName"])
        for alarm in created.values()
        for metric in watched_by(alarm)
        if metric.namespace == "AWS/SQS"
    }

    assert queues == {"ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters", "WebhookDeadLetters"}
    assert watched >= {"5xx", "RejectedDeliveries", "ImagesExpired", "TasksTimedOut", "TasksUnconfirmed"}
    assert watched >= {
        "StuckPending",
        "StuckArchiving",
        "UnconfirmedFailures",
        "OldestPendingSeconds",
        "ProviderRefused",
    }
    assert len(created) < len(ALARMS) / 2


def test_only_alarms_and_the_dashboard_depend_on_monitoring() -> None:
    full, essential = deployed(), deployed(Monitoring="Essential")

    assert essential == {name: properties for name, properties in full.items() if name in essential}
    assert full.keys() - essential.keys() <= {*ALARMS, "Dashboard"}
    assert "Dashboard" not in essential
