"""PublishEvents: tells other programs of tasks that have reached their end, by EventBridge.

The table's stream drives it, beside DispatchChanges: an event follows from a write that has happened, and ARCHIVED is
written after the last object, so nobody hears of an image before its bytes are there. At least once: what is read again
is told again, with the same `eventId`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import BotoCoreError, ClientError

from catchlight.aws.clients import AwsClients
from catchlight.events import SOURCE, TaskEvent, arrives
from catchlight.models import is_task_key, split_task_key
from catchlight.observability.failures import count_failure, report_failure, reports_failures, stream_task, stream_tasks
from catchlight.observability.metrics import Unit, metrics_by
from catchlight.settings import PublishEventsSettings

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

# PutEvents takes no more, and 256 KB: ten details of the greatest length are 200 KB.
MAX_EVENTS_PER_CALL = 10
# What passes by itself is waited for: the event source's tries are few, because they are meant for a record that can
# never be told of, and an outage of minutes would use them up. With them EventBridge may be out for half an hour.
PAUSES_SECONDS = (1, 2, 4, 8, 15)
PASSING = frozenset({"ThrottlingException", "InternalFailure", "InternalException"})
# The three tries of a last call that nobody answers take 7 s.
RESERVED_SECONDS = 10

logger = Logger()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record of the stream that has a task arrive at a status to tell of."""

    task: str
    item: Mapping[str, Any]  # as DynamoDB spells it
    written_at: datetime  # to the second
    sequence_number: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stream record that could not be read."""

    task: str | None
    sequence_number: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as PutEvents takes it, and its task."""

    task: str
    event: "PutEventsRequestEntryTypeDef"


class Dependencies:
    """Settings and clients, made when the first batch needs them."""

    def __init__(self) -> None:
        self.settings = PublishEventsSettings.from_environment()
        self.events = AwsClients().events()


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, stream_tasks)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a batch of the stream; answers with the first record that was not told of, if any.

    The stream is read again from that record on, so what EventBridge took of the same call behind it is told twice.
    """
    arrivals = list(read_arrivals(event["Records"]))
    ends_by = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    entries = list(make_entries(arrivals))
    published = put_events(entries, ends_by=ends_by)
    for provider, count in Counter(split_task_key(entry.task)[0] for entry in entries[:published]).items():
        with metrics_by(provider=provider) as metrics:
            metrics.add_metric("EventsPublished", Unit.COUNT, count)
    logger.info("events published", records=len(event["Records"]), arrivals=len(arrivals), published=published)
    first_failed = arrivals[published : published + 1]
    for arrival in first_failed:
        logger.error("not told of, the stream will be read again from here", task=arrival.task)
    return {"batchItemFailures": [{"itemIdentifier": arrival.sequence_number} for arrival in first_failed]}


def read_arrivals(records: Iterable[dict[str, Any]]) -> Iterator[Arrival | Unreadable]:
    """The arrivals among stream records, in their order. The event source's filter lets few others through."""
    for record in records:
        try:
            arrival = read_arrival(record)
        except Exception as exc:  # noqa: BLE001 - reported, and read again alone: what lies before it is published
            number, task = record["dynamodb"]["SequenceNumber"], stream_task(record)
            report_failure(
                logger, "stream record not read, it will be read again", exc, task=task, sequence_number=number
            )
            yield Unreadable(task, number)
        else:
            if arrival:
                yield arrival


def read_arrival(record: dict[str, Any]) -> Arrival | None:
    """The arrival that a stream record is about, if it is one to tell of."""
    change = record["dynamodb"]
    new = change.get("NewImage", {})
    old_status = change.get("OldImage", {}).get("status", {}).get("S")
    if not arrives(new.get("status", {}).get("S"), old_status):
        return None
    task = change["Keys"]["task"]["S"]
    if not is_task_key(task):
        # Trying again would change nothing: somebody put an item that is no task.
        logger.error("not a task key, expected provider#taskId: no event is published", task=task)
        count_failure("InvalidTaskKey")
        return None
    written_at = datetime.fromtimestamp(change["ApproximateCreationDateTime"], UTC)
    return Arrival(task, new, written_at, change["SequenceNumber"])


def make_entries(arrivals: Iterable[Arrival | Unreadable]) -> Iterator[Entry]:
    """An entry for each arrival, in their order, until the first of which no event can be made."""
    for arrival in arrivals:
        if isinstance(arrival, Unreadable):
            return
        try:
            event = TaskEvent.of(arrival.item, written_at=arrival.written_at)
            detail = event.detail()
        except Exception as exc:  # noqa: BLE001 - reported, and what lies before it is published
            # Tried again in vain and put aside then, where it is noticed: skipped, it would be lost in silence.
            report_failure(
                logger,
                "no event can be made of the item, repair it by hand",
                exc,
                task=arrival.task,
                # The exception's own text stands at the end of a long traceback.
                reason=str(exc),
            )
            return
        yield Entry(
            arrival.task,
            {
                "EventBusName": dependencies().settings.event_bus,
                "Source": SOURCE,
                "DetailType": event.detail_type,
                "Detail": detail,
                "Time": datetime.fromisoformat(event.changed_at),
            },
        )


def put_events(entries: Sequence[Entry], *, ends_by: float) -> int:
    """Puts entries onto the bus in their order, and those again, while there is time, that it cannot take just now.

    Returns how many were taken before the first that was not. `ends_by` is of the monotonic clock.
    """
    taken = pauses = 0
    while taken < len(entries):
        batch = entries[taken : taken + MAX_EVENTS_PER_CALL]
        count, may_pass = put_call(batch)
        taken += count
        if count:
            pauses = 0
        if count == len(batch):
            continue
        pause = PAUSES_SECONDS[min(pauses, len(PAUSES_SECONDS) - 1)]
        if not may_pass or time.monotonic() + pause > ends_by:
            break
        time.sleep(pause)
        pauses += 1
    return taken


def put_call(entries: Sequence[Entry]) -> tuple[int, bool]:
    """One call: how many entries were taken before the first that was not, and whether that may be taken later."""
    try:
        answer = dependencies().events.put_events(Entries=[entry.event for entry in entries])
    except Exception as exc:  # noqa: BLE001 - reported, and what was published before it must not be published again
        tasks = [entry.task for entry in entries]
        report_failure(
            logger, "EventBridge did not take a call, it is made again while there is time", exc, tasks=tasks
        )
        # Out of order, out of capacity, or denied to this function: no entry is to blame.
        return 0, isinstance(exc, ClientError | BotoCoreError)
    for number, (entry, result) in enumerate(zip(entries, answer["Entries"], strict=True)):
        if "ErrorCode" in result:
            code = result["ErrorCode"]
            logger.error("EventBridge did not take an event, it will be put again", task=entry.task, code=code)
            count_failure(code)
            return number, code in PASSING
    return len(entries), False
