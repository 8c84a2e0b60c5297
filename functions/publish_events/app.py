"""PublishEvents: publishes an event on EventBridge for each task that has reached a final status.

It reads the table's stream, like DispatchChanges: an event is published only after the table write it reports. ARCHIVED
is written after the last object, so all images exist in the bucket when the event is published. Delivery is at least
once: a record that is read again is published again with the same `eventId`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import BotoCoreError, ClientError

from catchlight.aws.batches import MAX_EVENTS_PER_CALL, batch_item_failures
from catchlight.aws.clients import AwsClients
from catchlight.aws.outages import OutageWait
from catchlight.events import SOURCE, TaskEvent, is_published
from catchlight.models import is_task_key, split_task_key
from catchlight.observability.failures import count_failure, report_failure, reports_failures, stream_task, stream_tasks
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.settings import PublishEventsSettings

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

# After these errors the function waits and retries. The event source itself makes few tries, because they are meant for
# records that can never be published; an outage of minutes would use them up. With the waits, the function publishes
# all events after an outage of EventBridge of up to half an hour.
TEMPORARY_ERROR_CODES = frozenset({"ThrottlingException", "InternalFailure", "InternalException"})
# The last call makes up to three tries, which take 7 s without a response.
RESERVED_SECONDS = 10

logger = Logger(json_serializer=log_line)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry for PutEvents, with its task and the number of its stream record."""

    task: str
    sequence_number: str
    event: "PutEventsRequestEntryTypeDef"


class Dependencies:
    """Creates settings and clients on first use."""

    def __init__(self) -> None:
        self.settings = PublishEventsSettings.from_environment()
        self.events = AwsClients().events()


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, stream_tasks)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Publishes the events of a batch of stream records.

    Returns the first unpublished record, if any, as `batchItemFailures`. Lambda reads the stream again from that record
    on, so later entries that the same call accepted are published twice.
    """
    dependencies()  # missing settings fail the batch here, and are not reported as a failed call of EventBridge
    entries, unusable = read_entries(event["Records"])
    wait = OutageWait(ends_by=time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS)
    published = put_events(entries, wait)
    for provider, count in Counter(split_task_key(entry.task)[0] for entry in entries[:published]).items():
        with metrics_by(provider=provider) as metrics:
            metrics.add_metric("EventsPublished", MetricUnit.Count, count)
    logger.info("events published", records=len(event["Records"]), arrivals=len(entries), published=published)
    first_failed = unusable
    if published < len(entries):
        first_failed = entries[published].sequence_number
        logger.error("event not published, the stream will be read again from here", task=entries[published].task)
    return batch_item_failures([first_failed] if first_failed else [])


def read_entries(records: Iterable[dict[str, Any]]) -> tuple[list[Entry], str | None]:
    """Converts stream records to entries, in their order, until a record cannot be converted.

    Also returns the number of the record that cannot be converted; None if all can. Records that need no event have no
    entry; the event source's filter excludes most of them.
    """
    entries: list[Entry] = []
    for record in records:
        try:
            entry = read_entry(record)
        except Exception as exc:  # noqa: BLE001 - reported, and the events of the records before it are published
            # The record is not skipped, because its event would be lost without an alarm. After the event source's
            # retries Lambda puts the record's position into the dead-letter queue, which has an alarm.
            number, task = record["dynamodb"]["SequenceNumber"], stream_task(record)
            message = "no event can be made of the stream record, it will be read again; `reason` says what is wrong"
            # A separate field, because the exception's text is at the end of a long traceback.
            report_failure(logger, message, exc, task=task, sequence_number=number, reason=str(exc))
            return entries, number
        if entry:
            entries.append(entry)
    return entries, None


def read_entry(record: dict[str, Any]) -> Entry | None:
    """Returns the entry of a stream record; None if no event is published for the record.

    Raises:
        TaskEventError: the item was edited by hand and has to be repaired.
        Exception: the record has another format.
    """
    change = record["dynamodb"]
    new = change.get("NewImage", {})
    old_status = change.get("OldImage", {}).get("status", {}).get("S")
    if not is_published(new.get("status", {}).get("S"), old_status):
        return None
    task = change["Keys"]["task"]["S"]
    if not is_task_key(task):
        # A retry would not help: an item with an invalid key was written by hand.
        logger.error("not a task key, expected provider#taskId: no event is published", task=task)
        count_failure("InvalidTaskKey")
        return None
    event = TaskEvent.of(new, written_at=datetime.fromtimestamp(change["ApproximateCreationDateTime"], UTC))
    return Entry(
        task,
        change["SequenceNumber"],
        {
            "Source": SOURCE,
            "DetailType": event.detail_type,
            "Detail": event.detail(),
            "Time": datetime.fromisoformat(event.changed_at),
        },
    )


def put_events(entries: Sequence[Entry], wait: OutageWait) -> int:
    """Puts entries onto the bus in their order, and retries after temporary errors while there is time.

    Returns how many entries EventBridge accepted before the first rejected one.
    """
    accepted = 0
    while accepted < len(entries):
        batch = entries[accepted : accepted + MAX_EVENTS_PER_CALL]
        count, is_temporary = put_call(batch)
        accepted += count
        if count:
            wait.restart()
        if count < len(batch) and not (is_temporary and wait.pause()):
            break
    return accepted


def put_call(entries: Sequence[Entry]) -> tuple[int, bool]:
    """Calls PutEvents once.

    Returns how many entries EventBridge accepted before the first rejected one, and whether its error is temporary.
    """
    try:
        bus = dependencies().settings.event_bus
        answer = dependencies().events.put_events(Entries=[{"EventBusName": bus, **entry.event} for entry in entries])
    except Exception as exc:  # noqa: BLE001 - reported; entries that were published before must not be published again
        tasks = [entry.task for entry in entries]
        report_failure(logger, "EventBridge did not accept a call, it is retried while there is time", exc, tasks=tasks)
        # These errors are an outage, throttling, or missing permissions of this function: no entry has caused them.
        return 0, isinstance(exc, ClientError | BotoCoreError)
    for number, (entry, result) in enumerate(zip(entries, answer["Entries"], strict=True)):
        if "ErrorCode" in result:
            code = result["ErrorCode"]
            logger.error("EventBridge did not accept an event, it will be put again", task=entry.task, code=code)
            count_failure(code)
            return number, code in TEMPORARY_ERROR_CODES
    return len(entries), False
