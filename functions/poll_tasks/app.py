"""PollTasks: runs one polling round for the state machine and returns the tasks that are still running."""

import time
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.aws.clients import AwsClients
from catchlight.aws.secrets import RotatingSecret
from catchlight.dispatch import PollState
from catchlight.errors import ProviderError, ProviderRefusedError, SettingsError
from catchlight.models import TaskReport, TaskStatus, split_task_key, utc_now
from catchlight.observability.failures import count_failure, report_failure, reports_failures
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.polling.poll_round import Polling, PollRound
from catchlight.polling.provider_client import ProviderClient
from catchlight.recovery.deliveries import DeliveryStore, StoredDelivery
from catchlight.settings import PollTasksSettings
from catchlight.tasks.reports import ReportOutcome
from catchlight.tasks.table import TasksTable

# No request is sent with less of the function's time left: a running request may take 10 s, then its reports are
# written.
RESERVED_SECONDS = 20

logger = Logger(json_serializer=log_line)


class Dependencies:
    """Creates settings, secrets, the table and the HTTP client on first use."""

    def __init__(self) -> None:
        settings = PollTasksSettings.from_environment()
        clients = AwsClients()
        secret = RotatingSecret(settings.provider_keys_secret, clients.secrets_manager())
        table = TasksTable(
            settings.tasks_table,
            clients.dynamodb(),
            retention=settings.task_retention_days,
        )
        self.polling = Polling(
            settings,
            table,
            ProviderClient(settings.provider_base_urls),
            secret.provider_keys,
            keep_unreadable=keep_unreadable,
            now=utc_now,
        )
        # Created on first use: only unreadable answers need S3, and creating a client takes a tenth of a second.
        self.rejected_deliveries = cache(lambda: DeliveryStore(clients.s3(), settings.images_bucket))


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, lambda event: {"tasks": event["tasks"]})
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Runs one polling round: reads a `PollState` from the event and returns the next one.

    Raises:
        StoreUnavailableError: tasks or API keys could not be read. The state machine retries the invocation.
    """
    state = PollState.model_validate(event)
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    round_ = dependencies().polling.poll(state, deadline=deadline)
    log(round_)
    count(round_)
    return round_.next_state.model_dump(mode="json", by_alias=True, exclude_none=True)


def keep_unreadable(report: TaskReport) -> None:
    """Stores a report's answer in which no image URL could be read. It has the format of a stored delivery.

    Raises:
        StoreUnavailableError: S3 did not accept it; the next round tries again.
    """
    reason, body = report.failure.message if report.failure else "", (report.unreadable or "").encode()
    rejected_deliveries = dependencies().rejected_deliveries()
    key = rejected_deliveries.keep(StoredDelivery(report.provider, report.reported_at, reason, {}, body))
    logger.error("an answer to a poll could not be read and was stored", task=report.task, key=key, reason=reason)
    with metrics_by() as metrics:
        metrics.add_metric("RejectedDeliveries", MetricUnit.Count, 1)


def log(round_: PollRound) -> None:
    """Logs the round's results of each provider and each task."""
    for provider_id, answers in round_.answers.items():
        tasks = round_.unanswered.get(provider_id, [])
        for error in answers.errors:
            if isinstance(error, ProviderError):
                kind, detail = type(error).__name__, str(error)
                logger.warning("status request failed", provider=provider_id, tasks=tasks, error=kind, detail=detail)
            else:
                message = "status request failed, the next round repeats it"
                if isinstance(error, SettingsError):
                    message = "provider not polled until its key is corrected"
                report_failure(logger, message, error, provider=provider_id, tasks=tasks)
        if tasks and not answers.errors:
            # The deadline had passed before the requests were sent.
            logger.warning("no time was left to request the status of tasks", provider=provider_id, tasks=tasks)
        for remark in sorted({report.remark for report in answers.reports if report.remark}):
            remarked = [report.task for report in answers.reports if report.remark == remark]
            logger.warning("unusual answer to a poll", provider=provider_id, tasks=remarked, detail=remark)
    for report, recorded in round_.recorded:
        logger.info("polled", task=report.task, status=report.status, outcome=recorded.outcome)
        if recorded.evidence_error:
            message = "the replaced failure was not added to `conflicts`"
            report_failure(logger, message, recorded.evidence_error, task=report.task)
    for task, failure in round_.failures.items():
        report_failure(logger, "report not written, the next round tries again", failure, task=task)
    for task, reason in round_.unreadable.items():
        logger.error("malformed item, its task is not polled: repair it by hand", task=task, reason=reason)
        count_failure("UnreadableItem")
    if round_.unknown:
        message = "the provider does not know these unregistered tasks: their polling has ended"
        logger.warning(message, tasks=round_.unknown)
    for task in round_.contradicted:
        logger.error("the provider contradicts a result that a callback reported", task=task)
    if round_.taken_over:
        logger.info("tasks left to an execution that was started later", tasks=round_.taken_over)
    logger.info("polling round ended", tasks=round_.next_state.tasks, wait_seconds=round_.next_state.wait_seconds)


def count(round_: PollRound) -> None:
    """Writes the round's metrics, by provider."""
    for provider_id, answers in round_.answers.items():
        records = [(report, recorded) for report, recorded in round_.recorded if report.provider == provider_id]
        applied = [report.status for report, recorded in records if recorded.outcome is ReportOutcome.APPLIED]
        resolved = sum(status in (TaskStatus.SUCCEEDED, TaskStatus.FAILED) for status in applied)
        counts = {
            "PollRequests": answers.requests,
            "PollErrors": len(answers.errors),
            "TasksUnanswered": len(round_.unanswered.get(provider_id, [])),
            "ProviderRefused": sum(isinstance(error, ProviderRefusedError) for error in answers.errors),
            # For the callback miss rate: the callbacks of these results did not arrive in time.
            "ResolvedByPoll": resolved,
            "TasksTimedOut": applied.count(TaskStatus.TIMED_OUT),
            "TasksUnconfirmed": applied.count(TaskStatus.UNCONFIRMED),
            "UnconfirmedCallbacks": sum(split_task_key(task)[0] == provider_id for task in round_.contradicted),
        }
        with metrics_by(provider=provider_id) as metrics:
            for name, value in counts.items():
                if value:
                    metrics.add_metric(name, MetricUnit.Count, value)
