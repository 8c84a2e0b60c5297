"""Ends of tasks that nobody could be told of, told again by the stack's own function."""

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
# Others see a letter again after this long, should the command die before it gives it back.
_HOLD_SECONDS = 900
# The function itself waits for a bus that is out, five minutes at most. Asked twice it would tell twice.
_INVOKE_CONFIG = Config(read_timeout=310, retries={"total_max_attempts": 1})


class Outcome(StrEnum):
    """What became of a letter."""

    TOLD = "told"  # and the letter removed; all others stay
    WAITING = "waiting"  # of a dry run
    REFUSED = "refused"  # as before: the function's log says why
    FORGOTTEN = "forgotten"  # the stream has records for 24 hours
    UNREADABLE = "unreadable"  # it holds no positions


class Told(Model):
    """A letter: whose ends it is about, and what became of it."""

    tasks: tuple[str, ...] = ()
    outcome: Outcome
    sent_at: datetime


def tell(stack: Stack, *, limit: int, dry_run: bool) -> Iterator[Told]:
    """Hands the records of each letter to PublishEvents once more; what was told of before keeps its `eventId`."""
    box = DeadLetterQueue(stack.client("sqs"), stack.resource(QUEUE))
    held: list[DeadLetter] = []
    try:
        for dead_letter in box.take(limit=limit, hold_seconds=_HOLD_SECONDS):
            held.append(dead_letter)
            told = _tell(stack, dead_letter, dry_run=dry_run)
            if told.outcome is Outcome.TOLD:
                box.remove([dead_letter])  # should it stay, it is told of once more
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
    # As Lambda spells them. What is no end of a task the function skips, as the event source's filter does otherwise.
    payload = json.dumps({"Records": records}, default=datetime.timestamp)
    functions = stack.client("lambda", _INVOKE_CONFIG)
    answer = json.load(
        functions.invoke(FunctionName=stack.resource("PublishEventsFunction"), Payload=payload)["Payload"]
    )
    # Not "none is named as failed": an error has no such member.
    return isinstance(answer, dict) and answer.get("batchItemFailures") == []
