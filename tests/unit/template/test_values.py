"""Values in the template: compared with the values that they depend on, or else with literals."""

import re
from typing import Any

import pytest

from catchlight.aws.outages import PAUSES_SECONDS
from catchlight.images.stream import MAX_IMAGE_BYTES
from functions.archive_images.app import MAX_CONCURRENT_IMAGES
from functions.dispatch_changes import app as dispatch_changes
from tests.unit.template.expanded import (
    FUNCTIONS,
    QUEUE_SOURCES,
    RAW,
    REPOSITORY,
    RESOURCES,
    STREAM_SOURCES,
    deployed,
    of_type,
)
from tests.unit.template.expanded import referred as referred_to

STREAM_KEEPS_SECONDS = 86_400  # DynamoDB's
MIB = 1024 * 1024
# Seconds and MB. Memory was chosen by measurements: tests/benchmarks, docs/performance.md. Other tests check what must
# fit into a timeout. The timeouts are listed here as well, because the alarm, the dashboard and callers depend on them.
TIMEOUTS_AND_MEMORY = {
    "ReceiveCallbackFunction": (10, 512),
    "ServeTasksApiFunction": (29, 512),
    "DispatchChangesFunction": (300, 512),
    "StartPollingFunction": (10, 512),
    "PollTasksFunction": (60, 512),
    "ArchiveImagesFunction": (20, 1024),
    "PublishEventsFunction": (300, 512),
    "ReconcileTasksFunction": (180, 512),
    "SendWebhooksFunction": (45, 512),
}
# By event source: batch size, batching window in seconds, maximum number of retries.
BATCHES = {
    "DispatchChangesFunctionTasksTableStream": (100, 1, 360),
    "PublishEventsFunctionTasksTableStream": (100, 1, 5),
    "ArchiveImagesFunctionArchiveQueue": (5, None, None),
    "StartPollingFunctionPollQueue": (50, 10, None),
    "SendWebhooksFunctionWebhookQueue": (10, None, None),
}


def test_timeouts_and_memory_have_these_values() -> None:
    found = {name: (function["Timeout"], function["MemorySize"]) for name, function in FUNCTIONS.items()}

    assert found == TIMEOUTS_AND_MEMORY


def test_batches_have_these_values() -> None:
    keys = ("BatchSize", "MaximumBatchingWindowInSeconds", "MaximumRetryAttempts")
    sources = STREAM_SOURCES | QUEUE_SOURCES

    assert {name: tuple(map(source.get, keys)) for name, source in sources.items()} == BATCHES


def test_the_largest_images_that_are_fetched_at_once_fit_into_ephemeral_storage() -> None:
    needed = MAX_CONCURRENT_IMAGES * MAX_IMAGE_BYTES / MIB
    size = FUNCTIONS["ArchiveImagesFunction"]["EphemeralStorage"]["Size"]

    # A quarter more for files of the runtime. A larger storage would cost money and stay unused.
    assert needed * 1.25 <= size <= needed * 1.5
    assert not [name for name in FUNCTIONS if "EphemeralStorage" in FUNCTIONS[name]][1:]


def test_a_change_is_retried_as_long_as_the_stream_keeps_it() -> None:
    ages = {referred_to(found["FunctionName"]): found["MaximumRecordAgeInSeconds"] for found in STREAM_SOURCES.values()}

    assert ages == dict.fromkeys(["DispatchChangesFunction", "PublishEventsFunction"], STREAM_KEEPS_SECONDS)


def test_the_dispatcher_retries_for_as_long_as_the_stream_keeps_its_records() -> None:
    (source,) = (found for name, found in STREAM_SOURCES.items() if name.startswith("DispatchChanges"))
    waited = FUNCTIONS["DispatchChangesFunction"]["Timeout"] - dispatch_changes.RESERVED_SECONDS - max(PAUSES_SECONDS)

    assert source["MaximumRetryAttempts"] * waited >= STREAM_KEEPS_SECONDS


def test_publishing_events_is_retried_for_half_an_hour() -> None:
    """In each attempt of the event source, the function retries until its timeout is near."""
    (source,) = (found for name, found in STREAM_SOURCES.items() if name.startswith("PublishEvents"))
    attempts = 1 + source["MaximumRetryAttempts"]

    assert attempts * FUNCTIONS["PublishEventsFunction"]["Timeout"] == 1800
    assert max(PAUSES_SECONDS) < FUNCTIONS["PublishEventsFunction"]["Timeout"] / 2


@pytest.mark.parametrize("name", of_type("AWS::S3::Bucket"))
def test_a_bucket_has_these_lifecycle_rules(name: str) -> None:
    rules = {rule["Id"]: rule for rule in RESOURCES[name]["Properties"]["LifecycleConfiguration"]["Rules"]}

    assert sorted(rules) == ["AcceptedDeliveries", "Images", "Quarantine", "RejectedDeliveries", "UnfinishedUploads"]
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}
    assert rules["RejectedDeliveries"]["ExpirationInDays"] == {"Ref": "RejectedRetentionDays"}
    assert rules["Quarantine"]["ExpirationInDays"] == {"Ref": "QuarantineRetentionDays"}


def test_a_parameter_has_the_default_and_the_bounds_that_the_readme_gives() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    table = readme.partition("## Configure")[2].partition("\n## ")[0]
    rows = {
        name: tuple(map(str.strip, cells)) for name, *cells in re.findall(r"^\| `(\w+)` \|(.*?)\|(.*?)\|", table, re.M)
    }

    assert rows == {name: (str(found["Default"]), bounds_of(found)) for name, found in RAW["Parameters"].items()}


def bounds_of(parameter: dict[str, Any]) -> str:
    """Returns a parameter's range (`1 to 3600`) or its values; an empty text if it has a pattern."""
    if "MinValue" in parameter:
        return f"{parameter['MinValue']} to {parameter['MaxValue']}"
    return ", ".join(str(value) for value in parameter.get("AllowedValues", []))


@pytest.mark.parametrize("name", RAW["Parameters"])
def test_a_parameter_is_text_or_a_number(name: str) -> None:
    parameter = RAW["Parameters"][name]

    assert parameter["Type"] == ("Number" if isinstance(parameter["Default"], int) else "String")
    assert ("MinValue" in parameter) == ("MaxValue" in parameter)


def test_a_parameter_changes_the_properties_that_depend_on_it() -> None:
    """For each condition, with a value that makes it true and one that makes it false."""
    off = deployed(WebhookUrl="")
    on = deployed(
        WebhookUrl="",
        AccessLogBucket="our-logs", ReservedConcurrency="50", ImageRetentionDays="9", TaskRetentionDays="9",
        AlarmTopicArn="arn:aws:sns:us-east-1:123456789012:operators", Tracing="Disabled", TaskEvents="Disabled",
    )  # fmt: skip

    assert differing(off, on, "ImagesBucket") == {"LifecycleConfiguration", "LoggingConfiguration"}
    assert differing(off, on, "TasksTable") == {"TimeToLiveSpecification"}
    assert differing(off, on, "PollTasksStateMachine") == {"TracingConfiguration"}
    assert differing(off, on, "PublishEventsFunctionTasksTableStream") == {"Enabled"}
    for name in FUNCTIONS.keys() & on.keys():
        assert "ReservedConcurrentExecutions" in differing(off, on, name)
    for name in of_type("AWS::CloudWatch::Alarm").keys() & on.keys():
        assert differing(off, on, name) == {"AlarmActions", "OKActions"}


def differing(one: dict[str, Any], other: dict[str, Any], name: str) -> set[str]:
    """Returns the properties of a resource in which two deployments differ."""
    keys = one[name].keys() | other[name].keys()
    return {key for key in keys if one[name].get(key) != other[name].get(key)}
