"""PollTasks: the state machine's only task. Takes who is still running, answers who is still running."""

import time
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from image_tasks.credentials import LiveSecret
from image_tasks.models import PollState, TaskStatus, utc_now
from image_tasks.polling import Polling
from image_tasks.provider_client import ProviderClient
from image_tasks.settings import PollTasksSettings
from image_tasks.tasks_table import CLIENT_CONFIG, Outcome, TasksTable

# No further request is sent with less time left: one that is under way may take 10 s, then its news is written.
RESERVED_SECONDS = 20

logger = Logger()
metrics = Metrics()


class Dependencies:
    """Settings, secrets, the table and the HTTP client, made when the first poll needs them."""

    def __init__(self) -> None:
        settings = PollTasksSettings.from_environment()
        secret = LiveSecret(settings.provider_keys_secret, boto3.client("secretsmanager", config=CLIENT_CONFIG))
        table = TasksTable(settings.tasks_table, boto3.client("dynamodb", config=CLIENT_CONFIG))
        self.polling = Polling(
            settings, table, ProviderClient(settings.provider_base_urls), secret.provider_keys, now=utc_now
        )


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """One round of polling: takes a `PollState` and answers the next one.

    Raises:
        StoreUnavailableError: the state machine tries again.
    """
    state = PollState.model_validate(event)
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    round_ = dependencies().polling.poll(state, deadline=deadline)
    metrics.add_metric("PollRequests", MetricUnit.Count, sum(answers.requests for answers in round_.answers.values()))
    for provider_id, answers in round_.answers.items():
        for error in answers.errors:
            logger.warning("provider not asked", provider=provider_id, error=type(error).__name__, detail=str(error))
    for report, recorded in round_.news:
        logger.info("polled", task=report.task, status=report.status, outcome=recorded.outcome)
        if recorded.outcome is Outcome.APPLIED and report.status is not TaskStatus.TIMED_OUT:
            # A repair: the callback should have brought this.
            metrics.add_metric("ResolvedByPoll", MetricUnit.Count, 1)
        elif report.status is TaskStatus.TIMED_OUT:
            metrics.add_metric("TasksTimedOut", MetricUnit.Count, 1)
    for task in round_.refuted:
        logger.error("a callback claimed a failure that its provider does not know", task=task)
        metrics.add_metric("CallbacksRefuted", MetricUnit.Count, 1)
    return round_.next_state.model_dump(mode="json", by_alias=True)
