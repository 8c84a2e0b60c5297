"""ReconcileTasks: finds tasks whose processing has stopped, once an hour, and restarts polling or archiving."""

import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.aws.clients import AwsClients
from catchlight.dispatch import Dispatcher
from catchlight.errors import StoreUnavailableError
from catchlight.models import Task, split_task_key, utc_now
from catchlight.observability.failures import count_failure, report_failure, reports_failures
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.recovery.dead_letters import DeadLetterQueue
from catchlight.recovery.reconcile import POLLING_SLACK, Reconciliation, Repaired
from catchlight.settings import ReconcileTasksSettings

# Until then, a run has found the tasks of a change that was not dispatched by their status: an hour after the change.
DEAD_LETTERS_KEPT = timedelta(hours=2)
# Per run. Messages that are left are deleted by the next runs.
MAX_DEAD_LETTERS = 1000
# Messages that are received and not deleted come back after this time. It is short, so that their alarm stays on.
VISIBILITY_TIMEOUT_SECONDS = 5

# No further batch is started with less time left: a batch is one execution and 50 writes, 8 at once, of at most 9 s.
RESERVED_SECONDS = 70

logger = Logger(json_serializer=log_line)


class Dependencies:
    """Creates settings and clients on first use."""

    def __init__(self) -> None:
        settings = ReconcileTasksSettings.from_environment()
        clients = AwsClients()
        self.longest_polling = timedelta(seconds=settings.give_up_after_seconds) + POLLING_SLACK
        sqs = clients.sqs()
        self.dead_letters = DeadLetterQueue(sqs, settings.dispatch_dead_letters_url)
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
    """Counts tasks that wait too long, then restarts their polling or archiving in batches until the time is up.

    Raises:
        Exception: the first failure; Lambda then retries the run, which skips the tasks restarted already.
    """
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    reconciliation, longest_polling = dependencies().reconciliation, dependencies().longest_polling
    reconciliation.unreadable.clear()
    pending, archiving = reconciliation.pending_too_long(longest_polling), reconciliation.archiving_too_long()
    unconfirmed = reconciliation.unconfirmed_failures()
    # Also written if the counts are zero: an alarm reports missing data, which means that this function does not run.
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
    delete_dead_letters(failures)
    for task, reason in reconciliation.unreadable.items():
        logger.error("malformed item, its processing is not restarted: repair it by hand", task=task, reason=reason)
        count_failure("UnreadableItem")
    if failures:
        # Each failure is logged already. Raising makes Lambda count the error and retry the run.
        raise failures[0]
    return {"pollingRestarted": restarted + confirming, "archivingRepeated": repeated}


def delete_dead_letters(failures: list[Exception]) -> None:
    """Deletes old messages about changes that were not dispatched. Errors are added to `failures`.

    A task whose polling or archiving has not started is found by its status, whether its message exists or not.
    """
    before = utc_now() - DEAD_LETTERS_KEPT
    queue = dependencies().dead_letters
    try:
        received = list(queue.receive(limit=MAX_DEAD_LETTERS, visibility_timeout=VISIBILITY_TIMEOUT_SECONDS))
        old = [letter for letter in received if letter.sent_at < before]
        left = queue.delete(old)
    except Exception as exc:  # noqa: BLE001 - reported, and the tasks of the run are processed already
        report_failure(logger, "dead letters not deleted, the next run tries again", exc)
        failures.append(exc)
    else:
        if old:
            logger.warning("dead letters deleted", messages=len(old) - len(left), tasks=[letter.task for letter in old])


def age_seconds(task: Task | None) -> float:
    """Returns the seconds since a task was registered or, without that time, last changed; 0 without a valid time."""
    try:
        since = datetime.fromisoformat((task.registered_at or task.updated_at or "") if task else "")
        return max(0.0, (utc_now() - since).total_seconds())
    except (ValueError, TypeError):  # items written by hand: no time, or one without a time zone
        return 0.0


def repair(metric: str, batches: Iterable[Repaired], deadline: float, failures: list[Exception]) -> int:
    """Restarts tasks batch by batch until the deadline, and counts and logs each batch.

    Returns the number of restarted tasks. Errors are added to `failures` instead of raised, so that a failure of
    polling restarts does not prevent archiving restarts.
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
