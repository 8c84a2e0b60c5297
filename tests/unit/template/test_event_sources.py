"""Event sources: what is retried after a failure, how often, and which queue receives what still fails."""

import pytest

from catchlight.aws.batches import MAX_EVENTS_PER_CALL, MAX_MESSAGES_PER_CALL
from catchlight.images import fetcher
from catchlight.models import MAX_TASKS_PER_EXECUTION
from catchlight.providers import PROVIDERS
from catchlight.recovery.reconcile import STARTING_TAKES_AT_MOST
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

FOURTEEN_DAYS = 14 * 86_400  # the most that SQS keeps
MOST_RECEIVES = 1000  # that SQS counts
MAX_READERS_OF_A_SHARD = 2  # DynamoDB's
NEW_ACCOUNTS_CONCURRENCY = 10  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ARCHIVE_SOURCE = QUEUE_SOURCES["ArchiveImagesFunctionArchiveQueue"]
START_SOURCE = QUEUE_SOURCES["StartPollingFunctionPollQueue"]


def test_a_message_is_not_received_twice_while_it_is_archived() -> None:
    queue, function = QUEUES["ArchiveQueue"], FUNCTIONS["ArchiveImagesFunction"]

    # Less than the six times that AWS advises: what a throttled or killed run left is tried again within a minute.
    assert 3 * function["Timeout"] <= queue["VisibilityTimeout"] <= 60


def test_a_message_that_fails_too_often_is_put_aside() -> None:
    queue, aside = QUEUES["ArchiveQueue"], QUEUES["ArchiveDeadLetters"]

    # Throttled receives count: the function, not the queue, knows when a message is dead.
    assert queue["RedrivePolicy"]["maxReceiveCount"] == MOST_RECEIVES
    # A queue deletes what is older, although the URLs of results may still live.
    assert queue["MessageRetentionPeriod"] == aside["MessageRetentionPeriod"] == FOURTEEN_DAYS
    assert "RedrivePolicy" not in aside


def test_polling_that_is_not_started_is_tried_again_while_the_first_urls_live_and_then_put_aside() -> None:
    queue, aside, function = QUEUES["PollQueue"], QUEUES["PollDeadLetters"], FUNCTIONS["StartPollingFunction"]
    window, shortest = (
        START_SOURCE["MaximumBatchingWindowInSeconds"],
        min(min(found.url_lifetimes.values()) for found in PROVIDERS.values()),
    )
    tries = queue["RedrivePolicy"]["maxReceiveCount"]

    # AWS recommends this.
    assert queue["VisibilityTimeout"] == 6 * function["Timeout"] + window
    assert (tries - 1) * queue["VisibilityTimeout"] > shortest.total_seconds()
    # With the default delay, and after one failed try, most of the first URL's time is left.
    parameter = RAW["Parameters"]["FirstPollAfterSeconds"]
    assert parameter["Default"] + window + queue["VisibilityTimeout"] < shortest.total_seconds() / 2
    # The hourly run starts a task only after the last try.
    latest = parameter["MaxValue"] + tries * queue["VisibilityTimeout"]
    assert latest < STARTING_TAKES_AT_MOST.total_seconds()
    assert aside["MessageRetentionPeriod"] == FOURTEEN_DAYS
    assert "RedrivePolicy" not in aside


def test_a_batch_of_first_polls_is_one_execution_and_its_delay_one_of_sqs() -> None:
    assert START_SOURCE["BatchSize"] == MAX_TASKS_PER_EXECUTION
    assert RAW["Parameters"]["FirstPollAfterSeconds"]["MaxValue"] == 900  # SQS's maximum


def test_a_message_that_cannot_be_archived_is_put_into_a_watched_queue() -> None:
    assert referred_to(QUEUES["ArchiveQueue"]["RedrivePolicy"]["deadLetterTargetArn"]) == "ArchiveDeadLetters"


def test_a_batch_of_messages_has_a_thread_each() -> None:
    assert ARCHIVE_SOURCE["BatchSize"] == archive_images.MAX_MESSAGES


def test_archiving_begins_at_once_and_leaves_others_their_concurrency() -> None:
    assert "MaximumBatchingWindowInSeconds" not in ARCHIVE_SOURCE
    assert ARCHIVE_SOURCE["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "ArchiveConcurrency"}}


def test_a_new_accounts_concurrency_leaves_room_for_callbacks() -> None:
    """Ten concurrent executions: at most half of them archive, and each shard of the stream has one per reader."""
    assert 0 < RAW["Parameters"]["ArchiveConcurrency"]["Default"] <= NEW_ACCOUNTS_CONCURRENCY / 2
    # Lambda's minimum.
    assert START_SOURCE["ScalingConfig"] == {"MaximumConcurrency": 2}
    # No more than the default of one, and a provisioned poller or concurrency would be taken from the others, too.
    assert not [name for name in STREAM_SOURCES if "ParallelizationFactor" in STREAM_SOURCES[name]]
    assert RAW["Parameters"]["ReservedConcurrency"]["Default"] == 0


@pytest.mark.parametrize("name", EVENT_SOURCES)
def test_what_comes_in_batches_fails_one_by_one(name: str) -> None:
    assert EVENT_SOURCES[name]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize("name", STREAM_SOURCES)
def test_a_record_that_cannot_be_handled_does_not_block_its_shard(name: str) -> None:
    source = STREAM_SOURCES[name]

    assert source["BisectBatchOnFunctionError"] is True
    assert source["MaximumRetryAttempts"] > 0
    assert 0 < source["MaximumRecordAgeInSeconds"] <= 86_400  # as long as the stream has it
    aside = QUEUES[referred_to(source["DestinationConfig"]["OnFailure"]["Destination"])]
    assert aside["MessageRetentionPeriod"] == FOURTEEN_DAYS


@pytest.mark.parametrize("queue", ["ArchiveQueue", "PollQueue"])
def test_messages_outlast_five_minutes_without_functions(queue: str) -> None:
    """Throttled receives count, too: each takes a visibility timeout."""
    apart, receives = QUEUES[queue]["VisibilityTimeout"], QUEUES[queue]["RedrivePolicy"]["maxReceiveCount"]

    assert apart * receives > 300 * 2
    # After the outage, the next receive comes while half of an original's ten minutes is left.
    assert 300 + apart < 600 * 3 / 4


def test_archive_messages_outlast_half_a_day_without_functions() -> None:
    """Results live for days. A receive that Lambda throttles takes a visibility timeout."""
    queue = QUEUES["ArchiveQueue"]

    assert queue["VisibilityTimeout"] * queue["RedrivePolicy"]["maxReceiveCount"] > 12 * 3600


@pytest.mark.parametrize("name", STREAM_SOURCES)
def test_no_change_is_lost_while_the_stream_is_connected(name: str) -> None:
    assert STREAM_SOURCES[name]["StartingPosition"] == "TRIM_HORIZON"
    assert RESOURCES["TasksTable"]["Properties"]["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"


def test_the_stream_has_no_more_readers_than_it_bears() -> None:
    assert len(STREAM_SOURCES) <= MAX_READERS_OF_A_SHARD


def test_each_reader_puts_aside_what_it_could_not_handle_in_a_queue_of_its_own() -> None:
    aside = {referred_to(source["DestinationConfig"]["OnFailure"]["Destination"]) for source in STREAM_SOURCES.values()}

    assert len(aside) == len(STREAM_SOURCES)


@pytest.mark.parametrize("name", STREAM_SOURCES)
def test_changes_wait_a_second_at_most_to_be_gathered(name: str) -> None:
    assert STREAM_SOURCES[name]["MaximumBatchingWindowInSeconds"] <= 1


@pytest.mark.parametrize(
    ("function", "changes_per_call"),
    [
        ("DispatchChangesFunction", MAX_MESSAGES_PER_CALL),
        ("PublishEventsFunction", MAX_EVENTS_PER_CALL),
    ],
)
def test_a_batch_of_changes_fits_into_its_functions_time(function: str, changes_per_call: int) -> None:
    (source,) = (found for found in STREAM_SOURCES.values() if referred_to(found["FunctionName"]) == function)

    assert source["BatchSize"] / changes_per_call <= FUNCTIONS[function]["Timeout"]


def test_events_are_switched_off_at_their_source() -> None:
    (name,) = (
        name for name, found in STREAM_SOURCES.items() if referred_to(found["FunctionName"]) == "PublishEventsFunction"
    )

    assert deployed()[name]["Enabled"] is True
    assert deployed(TaskEvents="Disabled", WebhookUrl="")[name]["Enabled"] is False


def test_a_confirmation_an_image_and_its_storage_fit_into_the_archivers_time() -> None:
    timeout = FUNCTIONS["ArchiveImagesFunction"]["Timeout"]

    assert timeout > 2 * fetcher.FETCH_DEADLINE_SECONDS
    assert timeout > archive_images.CONFIRMATION_TIMEOUT_SECONDS + 1.5 * fetcher.FETCH_DEADLINE_SECONDS
