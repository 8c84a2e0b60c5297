"""Republishes task events that EventBridge did not accept, by invoking the stack's function PublishEvents."""

import json
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

from botocore.config import Config

from catchlight.client.stack import Stack
from catchlight.events import DETAIL_TYPES
from catchlight.models import Model
from catchlight_cli.repair.dead_letters import DeadLetter, DeadLetterQueue
from catchlight_cli.repair.stream_positions import StreamPositions, new_status_of, task_of

QUEUE = "PublishDeadLetters"
# Visibility timeout: a message becomes visible again after this time if the command ends before it gives it back.
_HOLD_SECONDS = 900
# The function retries for up to five minutes while EventBridge is unavailable. No retry of the invocation: it would
# publish the events twice.
_INVOKE_CONFIG = Config(read_timeout=310, retries={"total_max_attempts": 1})


class Outcome(StrEnum):
    """The outcome for one dead letter."""

    TOLD = "told"  # published, and the message deleted; with the other outcomes it stays
    WAITING = "waiting"  # readable, not published: a dry run
    REFUSED = "refused"  # not published again: the function's log says why
    FORGOTTEN = "forgotten"  # the stream no longer has its records, which it keeps for 24 hours
    UNREADABLE = "unreadable"  # the message holds no stream positions


class Told(Model):
    """A dead letter: the tasks whose events it refers to, and the outcome."""

    tasks: tuple[str, ...] = ()
    outcome: Outcome
    sent_at: datetime


def tell(stack: Stack, *, limit: int, dry_run: bool) -> Iterator[Told]:
    """Sends the stream records of each dead letter to PublishEvents again; repeated events have the same `eventId`."""
    box = DeadLetterQueue(stack.client("sqs"), stack.resource(QUEUE))
    held: list[DeadLetter] = []
    try:
        for dead_letter in box.take(limit=limit, hold_seconds=_HOLD_SECONDS):
            held.append(dead_letter)
            told = _tell(stack, dead_letter, dry_run=dry_run)
            if told.outcome is Outcome.TOLD:
                box.remove([dead_letter])  # if it is not deleted, its events are published again next time
                held.remove(dead_letter)
            yield told
    finally:
        box.give_back(held)


def _tell(stack: Stack, dead_letter: DeadLetter, *, dry_run: bool) -> Told:
    positions = StreamPositions.of(dead_letter)
    if positions is None:
        return Told(outcome=Outcome.UNREADABLE, sent_at=dead_letter.sent_at)
    records = positions.records(stack.client("dynamodbstreams"))
    if records is None:
        return Told(outcome=Outcome.FORGOTTEN, sent_at=dead_letter.sent_at)
    tasks = tuple(dict.fromkeys(task_of(record) for record in records if new_status_of(record) in DETAIL_TYPES))
    if dry_run:
        return Told(tasks=tasks, outcome=Outcome.WAITING, sent_at=dead_letter.sent_at)
    outcome = Outcome.TOLD if _is_taken(stack, records) else Outcome.REFUSED
    return Told(tasks=tasks, outcome=outcome, sent_at=dead_letter.sent_at)


def _is_taken(stack: Stack, records: list[dict[str, Any]]) -> bool:
    # The event format of Lambda. No event source filter applies here: the function itself skips records that are not
    # the end of a task.
    payload = json.dumps({"Records": records}, default=datetime.timestamp)
    functions = stack.client("lambda", _INVOKE_CONFIG)
    answer = json.load(
        functions.invoke(FunctionName=stack.resource("PublishEventsFunction"), Payload=payload)["Payload"]
    )
    # The list must exist and be empty: the payload of a function error has no such member.
    return isinstance(answer, dict) and answer.get("batchItemFailures") == []
