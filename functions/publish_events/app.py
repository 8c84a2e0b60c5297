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

from image_tasks.aws_clients import AwsClients
from image_tasks.errors import TaskEventError
from image_tasks.metrics import Unit, metrics_by
from image_tasks.models import is_task_key, split_task_key
from image_tasks.settings import PublishEventsSettings
from image_tasks.task_events import SOURCE, TaskEvent, arrives

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


class Dependencies:
    """Settings and clients, made when the first batch needs them."""

    def __init__(self) -> None:
        self.settings = PublishEventsSettings.from_environment()
        self.events = AwsClients().events()


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a batch of the stream; answers with the first record that was not told of, if any.

    The stream is read again from that record on, so what EventBridge took of the same call behind it is told twice.
    """
    arrivals = list(read_arrivals(event["Records"]))
    ends_by = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    published = put_events(list(make_entries(arrivals)), ends_by=ends_by)
    for provider, count in Counter(split_task_key(arrival.task)[0] for arrival in arrivals[:published]).items():
        with metrics_by(provider=provider) as metrics:
            metrics.add_metric("EventsPublished", Unit.COUNT, count)
    logger.info("events published", records=len(event["Records"]), arrivals=len(arrivals), published=published)
    first_failed = arrivals[published : published + 1]
    for arrival in first_failed:
        logger.error("not told of, the stream will be read again from here", task=arrival.task)
    return {"batchItemFailures": [{"itemIdentifier": arrival.sequence_number} for arrival in first_failed]}


def read_arrivals(records: Iterable[dict[str, Any]]) -> Iterator[Arrival]:
    """The arrivals among stream records, in their order. The event source's filter lets few others through."""
    for record in records:
        change = record["dynamodb"]
        new = change.get("NewImage", {})
        old_status = change.get("OldImage", {}).get("status", {}).get("S")
        if not arrives(new.get("status", {}).get("S"), old_status):
            continue
        task = change["Keys"]["task"]["S"]
        if not is_task_key(task):
            # Trying again would change nothing: somebody put an item that is no task.
            logger.error("not a task key, expected provider#taskId", task=task)
            continue
        written_at = datetime.fromtimestamp(change["ApproximateCreationDateTime"], UTC)
        yield Arrival(task, new, written_at, change["SequenceNumber"])


def make_entries(arrivals: Iterable[Arrival]) -> Iterator["PutEventsRequestEntryTypeDef"]:
    """An entry for each arrival, in their order, until the first of which no event can be made."""
    for arrival in arrivals:
        try:
            event = TaskEvent.of(arrival.item, written_at=arrival.written_at)
            detail = event.detail()
        except TaskEventError as exc:
            # Tried again in vain and put aside then, where it is noticed: skipped, it would be lost in silence.
            logger.error("no event can be made of the item, repair it by hand", task=arrival.task, reason=str(exc))
            return
        yield {
            "EventBusName": dependencies().settings.event_bus,
            "Source": SOURCE,
            "DetailType": event.detail_type,
            "Detail": detail,
            "Time": datetime.fromisoformat(event.changed_at),
        }


def put_events(entries: Sequence["PutEventsRequestEntryTypeDef"], *, ends_by: float) -> int:
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


def put_call(entries: Sequence["PutEventsRequestEntryTypeDef"]) -> tuple[int, bool]:
    """One call: how many entries were taken before the first that was not, and whether that may be taken later."""
    try:
        answer = dependencies().events.put_events(Entries=entries)
    except (ClientError, BotoCoreError):
        # Out of order, out of capacity, or denied to this function: no entry is to blame.
        logger.exception("EventBridge did not take a call")
        return 0, True
    for number, result in enumerate(answer["Entries"]):
        if "ErrorCode" in result:
            logger.error("EventBridge did not take an event", code=result["ErrorCode"])
            return number, result["ErrorCode"] in PASSING
    return len(entries), False
