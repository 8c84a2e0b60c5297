"""Event sources: retries after failures, and the dead-letter queues of messages and records that still fail."""

import pytest

from catchlight.aws.batches import MAX_EVENTS_PER_CALL, MAX_MESSAGES_PER_CALL
from catchlight.dispatch import MAX_TASKS_PER_EXECUTION
from catchlight.images import fetcher
from catchlight.providers import PROVIDERS
from catchlight.recovery.reconcile import MAX_STARTING_TIME
from functions.archive_images import app as archive_images
from tests.unit.template.expanded import (
    EVENT_SOURCES,
    FUNCTIONS,
    QUEUE_SOURCES,
    QUEUES,
    RAW,
    RESOURCES,
    STREAM_SOURCES,
    deployed,
)
from tests.unit.template.expanded import referred as referred_to

FOURTEEN_DAYS = 14 * 86_400  # the maximum retention of SQS
MAX_RECEIVE_COUNT = 1000  # of SQS
MAX_READERS_OF_A_SHARD = 2  # documented by DynamoDB
NEW_ACCOUNTS_CONCURRENCY = 10  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ARCHIVE_SOURCE = QUEUE_SOURCES["ArchiveImagesFunctionArchiveQueue"]
START_SOURCE = QUEUE_SOURCES["StartPollingFunctionPollQueue"]


def test_a_message_is_not_received_twice_while_it_is_archived() -> None:
    queue, function = QUEUES["ArchiveQueue"], FUNCTIONS["ArchiveImagesFunction"]

    # Less than the six times that AWS recommends: messages of a throttled or killed run are retried within a minute.
    assert 3 * function["Timeout"] <= queue["VisibilityTimeout"] <= 60


def test_the_archive_queue_moves_messages_to_dead_letters_only_after_1000_receives() -> None:
    queue, dead_letters = QUEUES["ArchiveQueue"], QUEUES["ArchiveDeadLetters"]

    # Throttled receives count too, so the function and not the queue decides when a message has failed for good.
    assert queue["RedrivePolicy"]["maxReceiveCount"] == MAX_RECEIVE_COUNT
    # A queue deletes older messages, although the URLs of results may still be valid.
    assert queue["MessageRetentionPeriod"] == dead_letters["MessageRetentionPeriod"] == FOURTEEN_DAYS
    assert "RedrivePolicy" not in dead_letters


def test_the_start_of_polling_is_retried_for_longer_than_the_shortest_url_lifetime() -> None:
    queue, dead_letters, function = QUEUES["PollQueue"], QUEUES["PollDeadLetters"], FUNCTIONS["StartPollingFunction"]
    window, shortest = (
        START_SOURCE["MaximumBatchingWindowInSeconds"],
        min(min(found.url_lifetimes.values()) for found in PROVIDERS.values()),
    )
    max_receives = queue["RedrivePolicy"]["maxReceiveCount"]

    # AWS recommends this.
    assert queue["VisibilityTimeout"] == 6 * function["Timeout"] + window
    assert (max_receives - 1) * queue["VisibilityTimeout"] > shortest.total_seconds()
    # With the default delay, and after one failed attempt, more than half of the shortest lifetime is left.
    parameter = RAW["Parameters"]["FirstPollAfterSeconds"]
    assert parameter["Default"] + window + queue["VisibilityTimeout"] < shortest.total_seconds() / 2
    # The hourly run starts polling for a task only after the last attempt.
    latest = parameter["MaxValue"] + max_receives * queue["VisibilityTimeout"]
    assert latest < MAX_STARTING_TIME.total_seconds()
    assert dead_letters["MessageRetentionPeriod"] == FOURTEEN_DAYS
    assert "RedrivePolicy" not in dead_letters


def test_a_batch_of_first_polls_and_its_delay_are_within_the_limits() -> None:
    assert START_SOURCE["BatchSize"] == MAX_TASKS_PER_EXECUTION
    assert RAW["Parameters"]["FirstPollAfterSeconds"]["MaxValue"] == 900  # SQS's maximum


def test_archive_messages_are_moved_to_archive_dead_letters() -> None:
    assert referred_to(QUEUES["ArchiveQueue"]["RedrivePolicy"]["deadLetterTargetArn"]) == "ArchiveDeadLetters"


def test_a_batch_has_as_many_messages_as_the_archiver_has_threads() -> None:
    assert ARCHIVE_SOURCE["BatchSize"] == archive_images.MAX_MESSAGES


def test_archiving_starts_without_a_batching_window_and_has_limited_concurrency() -> None:
    assert "MaximumBatchingWindowInSeconds" not in ARCHIVE_SOURCE
    assert ARCHIVE_SOURCE["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "ArchiveConcurrency"}}


def test_the_defaults_leave_concurrency_of_a_new_account_to_callbacks() -> None:
    """Of ten concurrent executions, at most half archive. Each reader of the stream needs one per shard."""
    assert 0 < RAW["Parameters"]["ArchiveConcurrency"]["Default"] <= NEW_ACCOUNTS_CONCURRENCY / 2
    # Lambda's minimum.
    assert START_SOURCE["ScalingConfig"] == {"MaximumConcurrency": 2}
    # By default, a shard has one invocation at a time. Reserved concurrency would be taken from the other functions.
    assert not [name for name in STREAM_SOURCES if "ParallelizationFactor" in STREAM_SOURCES[name]]
    assert RAW["Parameters"]["ReservedConcurrency"]["Default"] == 0


@pytest.mark.parametrize("name", EVENT_SOURCES)
def test_failures_are_reported_for_each_item_of_a_batch(name: str) -> None:
    assert EVENT_SOURCES[name]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize("name", STREAM_SOURCES)
def test_a_record_that_cannot_be_processed_does_not_block_its_shard(name: str) -> None:
    source = STREAM_SOURCES[name]

    assert source["BisectBatchOnFunctionError"] is True
    assert source["MaximumRetryAttempts"] > 0
    assert 0 < source["MaximumRecordAgeInSeconds"] <= 86_400  # the stream keeps records for a day
    dead_letters = QUEUES[referred_to(source["DestinationConfig"]["OnFailure"]["Destination"])]
    assert dead_letters["MessageRetentionPeriod"] == FOURTEEN_DAYS


@pytest.mark.parametrize("queue", ["ArchiveQueue", "PollQueue"])
def test_messages_survive_an_outage_of_lambda_for_five_minutes(queue: str) -> None:
    """A throttled receive counts too, and makes the message invisible for a visibility timeout."""
    visibility_timeout, receives = QUEUES[queue]["VisibilityTimeout"], QUEUES[queue]["RedrivePolicy"]["maxReceiveCount"]

    assert visibility_timeout * receives > 300 * 2
    # After the outage, the message is received while more than a quarter of an original's ten minutes is left.
    assert 300 + visibility_timeout < 600 * 3 / 4


def test_archive_messages_survive_an_outage_of_lambda_for_half_a_day() -> None:
    """URLs of results are valid for days. Each throttled receive makes a message invisible for a visibility timeout."""
    queue = QUEUES["ArchiveQueue"]

    assert queue["VisibilityTimeout"] * queue["RedrivePolicy"]["maxReceiveCount"] > 12 * 3600


@pytest.mark.parametrize("name", STREAM_SOURCES)
def test_no_change_is_lost_while_the_stream_is_connected(name: str) -> None:
    assert STREAM_SOURCES[name]["StartingPosition"] == "TRIM_HORIZON"
    assert RESOURCES["TasksTable"]["Properties"]["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"


def test_the_stream_has_no_more_readers_than_dynamodb_allows() -> None:
    assert len(STREAM_SOURCES) <= MAX_READERS_OF_A_SHARD


def test_each_reader_of_the_stream_has_its_own_dead_letter_queue() -> None:
    dead_letters = {
        referred_to(source["DestinationConfig"]["OnFailure"]["Destination"]) for source in STREAM_SOURCES.values()
    }

    assert len(dead_letters) == len(STREAM_SOURCES)


@pytest.mark.parametrize("name", STREAM_SOURCES)
def test_the_batching_window_of_the_stream_is_at_most_a_second(name: str) -> None:
    assert STREAM_SOURCES[name]["MaximumBatchingWindowInSeconds"] <= 1


@pytest.mark.parametrize(
    ("function", "changes_per_call"),
    [
        ("DispatchChangesFunction", MAX_MESSAGES_PER_CALL),
        ("PublishEventsFunction", MAX_EVENTS_PER_CALL),
    ],
)
def test_a_batch_of_changes_fits_into_its_functions_timeout(function: str, changes_per_call: int) -> None:
    (source,) = (found for found in STREAM_SOURCES.values() if referred_to(found["FunctionName"]) == function)

    assert source["BatchSize"] / changes_per_call <= FUNCTIONS[function]["Timeout"]


def test_disabled_events_disable_their_event_source() -> None:
    (name,) = (
        name for name, found in STREAM_SOURCES.items() if referred_to(found["FunctionName"]) == "PublishEventsFunction"
    )

    assert deployed()[name]["Enabled"] is True
    assert deployed(TaskEvents="Disabled", WebhookUrl="")[name]["Enabled"] is False


def test_a_confirmation_a_download_and_an_upload_fit_into_the_archivers_timeout() -> None:
    timeout = FUNCTIONS["ArchiveImagesFunction"]["Timeout"]

    assert timeout > 2 * fetcher.FETCH_DEADLINE_SECONDS
    assert timeout > archive_images.CONFIRMATION_TIMEOUT_SECONDS + 1.5 * fetcher.FETCH_DEADLINE_SECONDS
