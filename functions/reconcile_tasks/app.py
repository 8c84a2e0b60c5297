"""ReconcileTasks: finds tasks whose processing has stopped, once an hour, and restarts polling or archiving.

It finds the tasks by their status, and by messages in the dead-letter queues of DispatchChanges, PublishEvents and
StartPolling. It deletes a message after it has started the work that the message is about. Messages that it cannot
process stay in their queue, whose alarm stays on.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cache, partial
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from catchlight.aws.batches import batches
from catchlight.aws.clients import AwsClients
from catchlight.dispatch import MAX_TASKS_PER_EXECUTION, Dispatcher
from catchlight.errors import StoreUnavailableError
from catchlight.models import is_task_key, parse_time, split_task_key, utc_now
from catchlight.observability.failures import count_failure, report_failure, reports_failures
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.recovery.dead_letters import DeadLetter, DeadLetterQueue
from catchlight.recovery.event_publication import publish
from catchlight.recovery.reconcile import Reconciliation, Repaired
from catchlight.recovery.stream_positions import StreamPositions, task_of
from catchlight.settings import ReconcileTasksSettings
from catchlight.tasks.restarts import POLLING_SLACK
from catchlight.tasks.task import Task

# Per queue and run. The next runs process the remaining messages.
MAX_DEAD_LETTERS = 1000
# Messages that are received and not deleted become visible again after this time. Most batches are processed within it.
# A longer time would end the alarm of a queue whose messages stay, because it counts visible messages only.
VISIBILITY_TIMEOUT_SECONDS = 15
# An invocation of PublishEvents takes a second. During an outage of EventBridge it would take five minutes: this call
# then times out, and the next run tries again.
PUBLISHING_TIMEOUT = Config(connect_timeout=1, read_timeout=60, retries={"total_max_attempts": 1})

# No batch is started with less of the function's time left: a batch is one execution and 50 writes, 8 at once, of at
# most 9 s. An invocation of PublishEvents takes at most a minute.
RESERVED_SECONDS = 70

logger = Logger(json_serializer=log_line)


class Dependencies:
    """Creates settings and clients on first use."""

    def __init__(self) -> None:
        self.settings = settings = ReconcileTasksSettings.from_environment()
        clients = AwsClients()
        self.longest_polling = timedelta(seconds=settings.give_up_after_seconds) + POLLING_SLACK
        sqs = clients.sqs()
        self.dispatch_dead_letters = DeadLetterQueue(sqs, settings.dispatch_dead_letters_url)
        self.poll_dead_letters = DeadLetterQueue(sqs, settings.poll_dead_letters_url)
        self.publish_dead_letters = DeadLetterQueue(sqs, settings.publish_dead_letters_url)
        # Created on first use: few runs find dead letters of streams, and creating a client takes a tenth of a second.
        self.streams = cache(clients.dynamodb_streams)
        self.functions = cache(lambda: clients.functions(PUBLISHING_TIMEOUT))
        dispatcher = Dispatcher(
            sqs,
            clients.step_functions(),
            archive_queue_url=settings.archive_queue_url,
            state_machine=settings.poll_tasks_state_machine,
        )
        self.reconciliation = Reconciliation(settings.tasks_table, clients.dynamodb(), dispatcher, now=utc_now)


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, lambda _: {})
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Counts the tasks that wait too long, and restarts their polling or archiving in batches until the time is up.

    Raises:
        Exception: the first failure. Lambda then retries the run, which skips tasks that were restarted already.
    """
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    reconciliation, longest_polling = dependencies().reconciliation, dependencies().longest_polling
    reconciliation.unreadable.clear()
    pending, archiving = reconciliation.pending_too_long(longest_polling), reconciliation.archiving_too_long()
    unconfirmed = reconciliation.unconfirmed_failures()
    # Written even if the counts are zero: missing data sets off an alarm, because it means that no run completes.
    with metrics_by() as metrics:
        metrics.add_metric("StuckPending", MetricUnit.Count, pending)
        metrics.add_metric("StuckArchiving", MetricUnit.Count, archiving)
        metrics.add_metric("UnconfirmedFailures", MetricUnit.Count, unconfirmed)
        metrics.add_metric("OldestPendingSeconds", MetricUnit.Seconds, age_seconds(reconciliation.oldest_pending()))
    logger.info("tasks counted", pending_too_long=pending, archiving_too_long=archiving, unconfirmed=unconfirmed)
    failures: list[Exception] = []
    restarted = repair("PollingRestarted", reconciliation.restart_polling(longest_polling), deadline, failures)
    confirming = repair("PollingRestarted", reconciliation.poll_unconfirmed(longest_polling), deadline, failures)
    repeated = repair("ArchivingRepeated", reconciliation.repeat_archiving(), deadline, failures)
    for queue in (dependencies().dispatch_dead_letters, dependencies().poll_dead_letters):
        redrive(queue, partial(restart, failures=failures), deadline, failures)
    if dependencies().settings.publish_events_function:
        redrive(dependencies().publish_dead_letters, partial(republish, deadline=deadline), deadline, failures)
    for task, reason in reconciliation.unreadable.items():
        logger.error("malformed item, its processing is not restarted: repair it by hand", task=task, reason=reason)
        count_failure("UnreadableItem")
    if failures:
        # Each failure is logged already. Raising makes Lambda count the error and retry the run.
        raise failures[0]
    return {"pollingRestarted": restarted + confirming, "archivingRepeated": repeated}


def redrive(
    queue: DeadLetterQueue,
    repeat: Callable[[Sequence[DeadLetter]], Iterable[DeadLetter]],
    deadline: float,
    failures: list[Exception],
) -> None:
    """Calls `repeat` with the messages of a dead-letter queue, in batches, and deletes those that it returns.

    `repeat` repeats the work of the messages, and returns the messages whose work is done. Errors are added to
    `failures`. A message that is redriven twice does no harm.
    """
    received = queue.receive(limit=MAX_DEAD_LETTERS, visibility_timeout=VISIBILITY_TIMEOUT_SECONDS)
    found, deleted = 0, 0
    try:
        # Each batch is received when the one before is processed: its messages are invisible for a short time only.
        for dead_letters in batches(received, MAX_TASKS_PER_EXECUTION):
            done = list(repeat(dead_letters))
            found, deleted = found + len(dead_letters), deleted + len(done) - len(queue.delete(done))
            if time.monotonic() > deadline:
                break
    except Exception as exc:  # noqa: BLE001 - reported, and the tasks of the run are processed already
        report_failure(logger, "dead letters not redriven, the next run tries again", exc, queue=queue.url)
        failures.append(exc)
    if found:
        logger.warning("dead letters redriven", queue=queue.url, messages=found, deleted=deleted)


def restart(dead_letters: Sequence[DeadLetter], failures: list[Exception]) -> list[DeadLetter]:
    """Starts polling or archiving of the tasks of messages, if they need it. Returns the messages that are done.

    Not done are messages without a task, with stream records that have expired, or with a task whose item is malformed.
    """
    reconciliation, longest_polling = dependencies().reconciliation, dependencies().longest_polling
    tasks = {dead_letter.id: read_tasks(dead_letter) for dead_letter in dead_letters}
    found = reconciliation.read_tasks({task for named in tasks.values() for task in named or ()})
    polling = list(reconciliation.start_polling_of(found, longest_polling))
    archiving = list(reconciliation.start_archiving_of(found))
    repair("PollingRestarted", polling, math.inf, failures)
    repair("ArchivingRepeated", archiving, math.inf, failures)
    undone = {task for batch in (*polling, *archiving) if batch.error for task in batch.tasks}
    undone |= reconciliation.unreadable.keys()
    return [
        dead_letter
        for dead_letter in dead_letters
        if (named := tasks[dead_letter.id]) is not None and undone.isdisjoint(named)
    ]


def read_tasks(dead_letter: DeadLetter) -> list[str] | None:
    """Returns the tasks of a message; None if they are unknown, or could not be read."""
    if dead_letter.task:
        # A message whose own `task` is not a task key stays for an operator. Keys in stream records need not be task
        # keys: the table contains other items, too.
        return [dead_letter.task] if is_task_key(dead_letter.task) else None
    try:
        records = read_records(dead_letter)
    except Exception as exc:  # noqa: BLE001 - reported, and the other messages are redriven
        report_failure(logger, "stream records not read, the next run tries again", exc, message_id=dead_letter.id)
        return None
    return None if records is None else list(dict.fromkeys(map(task_of, records)))


def read_records(dead_letter: DeadLetter) -> list[dict[str, Any]] | None:
    """Reads the stream records of a message; None if it has no positions, or the stream no longer has the records."""
    positions = StreamPositions.of(dead_letter)
    return positions.records(dependencies().streams()) if positions else None


def republish(dead_letters: Sequence[DeadLetter], deadline: float) -> Iterator[DeadLetter]:
    """Passes the stream records of messages to PublishEvents, and yields the messages whose events were published.

    After the first failed call no further message is tried: EventBridge is probably out.
    """
    for dead_letter in dead_letters:
        try:
            records = read_records(dead_letter)
            is_published = records and publish(
                dependencies().functions(), dependencies().settings.publish_events_function, records
            )
        except Exception as exc:  # noqa: BLE001 - reported, and the messages before it are deleted
            report_failure(logger, "events not published, the next run tries again", exc, message_id=dead_letter.id)
            return
        if is_published:
            yield dead_letter
        if time.monotonic() > deadline:
            return


def age_seconds(task: Task | None) -> float:
    """Returns the seconds since a task was registered or, without that time, last changed; 0 without a valid time."""
    since = parse_time(task.registered_at or task.updated_at) if task else None
    return max(0.0, (utc_now() - since).total_seconds()) if since else 0.0


def repair(metric: str, batches: Iterable[Repaired], deadline: float, failures: list[Exception]) -> int:
    """Restarts tasks batch by batch until the deadline, and counts and logs each batch.

    `batches` restarts a batch when it is advanced. Returns the number of restarted tasks. Errors are added to
    `failures` instead of raised, so that archiving is restarted even if polling cannot be.
    """
    repaired = 0
    try:
        for batch in batches:
            if batch.error:
                report_failure(
                    logger,
                    "processing not restarted, the next run tries again",
                    batch.error,
                    repair=metric,
                    tasks=batch.tasks,
                )
                failures.append(batch.error)
            else:
                for provider, tasks in Counter(split_task_key(task)[0] for task in batch.tasks).items():
                    with metrics_by(provider=provider) as metrics:
                        metrics.add_metric(metric, MetricUnit.Count, tasks)
                logger.warning("processing restarted", repair=metric, tasks=batch.tasks)
                repaired += len(batch.tasks)
            if time.monotonic() > deadline:
                logger.warning("no time is left, the next run continues", repair=metric, repaired=repaired)
                break
    except StoreUnavailableError as exc:
        report_failure(logger, "tasks could not be read, the next run continues", exc, repair=metric, repaired=repaired)
        failures.append(exc)
    return repaired
