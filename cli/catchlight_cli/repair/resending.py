"""Sends task events again that EventBridge or the receiver of webhooks did not accept.

The stack's function PublishEvents publishes the events again; webhooks are moved back to their queue.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import datetime
from enum import StrEnum
from typing import Any

from catchlight.client.stack import Stack
from catchlight.errors import InvalidMessageError
from catchlight.events import DETAIL_TYPES
from catchlight.models import Model, utc_now
from catchlight.recovery.dead_letters import DeadLetter, DeadLetterQueue
from catchlight.recovery.event_publication import INVOKE_CONFIG, publish
from catchlight.recovery.stream_positions import StreamPositions, new_status_of, task_of
from catchlight.webhooks.sender import read_webhook

QUEUE = "PublishDeadLetters"
WEBHOOK_QUEUE = "WebhookDeadLetters"  # exists only in a stack that sends webhooks
# PublishEvents retries for almost five minutes before it fails: many messages, one after the other, would take hours.
_THREADS = 8
# If EventBridge is unavailable, every message fails: after this number of failures, the others are not tried.
_MAX_FAILURES_WITHOUT_SUCCESS = _THREADS
# If the command ends before it releases a message, the message becomes visible again after this time.
_VISIBILITY_TIMEOUT_SECONDS = 900


class ResendOutcome(StrEnum):
    """The outcome for one dead letter. Only a message whose events were published or queued is deleted."""

    PUBLISHED = "published"
    QUEUED = "queued"  # its webhook will be sent again
    READY = "ready"  # dry run: the events can be published, or the webhook can be queued
    FAILED = "failed"  # PublishEvents did not publish all events; its log has the reason
    SKIPPED = "skipped"  # not tried, because other messages failed and none was published
    EXPIRED = "expired"  # the stream no longer has the records, which it keeps for 24 hours
    UNREADABLE = "unreadable"  # the message contains neither stream positions nor a task event


class ResentMessage(Model):
    """The outcome for one dead letter, and the tasks whose events it refers to."""

    tasks: tuple[str, ...] = ()
    outcome: ResendOutcome
    sent_at: datetime


def resend(stack: Stack, *, limit: int, dry_run: bool) -> Iterator[ResentMessage]:
    """Passes the stream records of each dead letter to PublishEvents; repeated events have the same `eventId`.

    Eight messages are processed at a time. If eight have failed and none has succeeded, the remaining ones are skipped.
    """
    queue = DeadLetterQueue(stack.client("sqs"), stack.resource(QUEUE))
    kept: list[DeadLetter] = []
    outcomes: list[ResendOutcome] = []  # of all threads

    def process(dead_letter: DeadLetter) -> ResentMessage:
        failures = outcomes.count(ResendOutcome.FAILED)
        if failures >= _MAX_FAILURES_WITHOUT_SUCCESS and ResendOutcome.PUBLISHED not in outcomes:
            return ResentMessage(outcome=ResendOutcome.SKIPPED, sent_at=dead_letter.sent_at)
        message = _resend(stack, dead_letter, dry_run=dry_run)
        outcomes.append(message.outcome)
        return message

    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="resend")
    try:
        futures: dict[Future[ResentMessage], DeadLetter] = {}
        for dead_letter in queue.receive(limit=limit, visibility_timeout=_VISIBILITY_TIMEOUT_SECONDS):
            kept.append(dead_letter)
            futures[pool.submit(process, dead_letter)] = dead_letter
        for future in as_completed(futures):
            message = future.result()
            if message.outcome is ResendOutcome.PUBLISHED:
                # If SQS does not delete the message, the next run publishes its events again.
                queue.delete([futures[future]])
                kept.remove(futures[future])
            yield message
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        queue.release(kept)


def resend_webhooks(stack: Stack, *, limit: int, dry_run: bool) -> Iterator[ResentMessage]:
    """Moves each dead letter of webhooks back to WebhookQueue: its schedule of retries begins again.

    Yields nothing for a stack that sends no webhooks. A repeated webhook has the same id.
    """
    if WEBHOOK_QUEUE not in stack.resources:
        return
    sqs = stack.client("sqs")
    dead_letters = DeadLetterQueue(sqs, stack.resource(WEBHOOK_QUEUE))
    kept: list[DeadLetter] = []
    try:
        for dead_letter in dead_letters.receive(limit=limit, visibility_timeout=_VISIBILITY_TIMEOUT_SECONDS):
            kept.append(dead_letter)
            try:
                tasks = (read_webhook(dead_letter.text).task,)
            except InvalidMessageError:
                yield ResentMessage(outcome=ResendOutcome.UNREADABLE, sent_at=dead_letter.sent_at)
                continue
            if not dry_run:
                sqs.send_message(QueueUrl=stack.resource("WebhookQueue"), MessageBody=dead_letter.text)
                # If SQS does not delete the message, the next run queues its webhook again.
                dead_letters.delete([dead_letter])
                kept.remove(dead_letter)
            outcome = ResendOutcome.READY if dry_run else ResendOutcome.QUEUED
            yield ResentMessage(tasks=tasks, outcome=outcome, sent_at=dead_letter.sent_at)
    finally:
        dead_letters.release(kept)


def log_of_publish_events(stack: Stack) -> str:
    """Returns the name of PublishEvents's log, which contains the reason why events were not published."""
    if stack.logs:
        return str(stack.logs / "PublishEventsFunction.log")
    # Older templates define no log group: its name is then the one that Lambda chooses.
    return stack.resources.get("PublishEventsLogGroup") or f"/aws/lambda/{stack.resource('PublishEventsFunction')}"


def publish_event_of_task(stack: Stack, task: str) -> bool:
    """Passes a task to PublishEvents as a stream record of its current item. Returns whether its event was published.

    The event has the same `eventId` as the first event of this status, unless the item has changed since.
    """
    key = {"task": {"S": task}}
    item = stack.client("dynamodb").get_item(TableName=stack.table, Key=key, ConsistentRead=True).get("Item", {})
    change = {"Keys": key, "NewImage": item, "SequenceNumber": "1", "ApproximateCreationDateTime": utc_now()}
    return _publish(stack, [{"eventName": "MODIFY", "eventSource": "aws:dynamodb", "dynamodb": change}])


def _resend(stack: Stack, dead_letter: DeadLetter, *, dry_run: bool) -> ResentMessage:
    positions = StreamPositions.of(dead_letter)
    if positions is None:
        return ResentMessage(outcome=ResendOutcome.UNREADABLE, sent_at=dead_letter.sent_at)
    records = positions.records(stack.client("dynamodbstreams"))
    if records is None:
        return ResentMessage(outcome=ResendOutcome.EXPIRED, sent_at=dead_letter.sent_at)
    tasks = tuple(dict.fromkeys(task_of(record) for record in records if new_status_of(record) in DETAIL_TYPES))
    if dry_run:
        return ResentMessage(tasks=tasks, outcome=ResendOutcome.READY, sent_at=dead_letter.sent_at)
    outcome = ResendOutcome.PUBLISHED if _publish(stack, records) else ResendOutcome.FAILED
    return ResentMessage(tasks=tasks, outcome=outcome, sent_at=dead_letter.sent_at)


def _publish(stack: Stack, records: list[dict[str, Any]]) -> bool:
    return publish(stack.client("lambda", INVOKE_CONFIG), stack.resource("PublishEventsFunction"), records)
