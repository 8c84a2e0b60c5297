"""SendWebhooks: sends each task event to the URL of the parameter WebhookUrl, signed as Standard Webhooks specifies.

A rule puts every task event of the stack's bus into the webhook queue. If the receiver does not accept a webhook, it is
sent again by the schedule of `catchlight.webhooks.retries`, for a day in all. Then the function moves its message to
the dead-letter queue. It moves the message at once if the receiver answers 410, or if the message is not a task event.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.aws.batches import batch_item_failures
from catchlight.aws.clients import AwsClients
from catchlight.aws.secrets import RotatingSecret
from catchlight.errors import InvalidMessageError, WebhookGoneError, WebhookNotAcceptedError
from catchlight.models import utc_now
from catchlight.observability.failures import report_failure, reports_failures
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.settings import SendWebhooksSettings
from catchlight.webhooks.retries import retry_after_seconds
from catchlight.webhooks.sender import Webhook, WebhookSender, read_webhook, signing_keys

# BatchSize of the event source. Each webhook has a thread: one without a response must not delay the others.
MAX_MESSAGES = 10

logger = Logger(json_serializer=log_line)


@dataclass(slots=True)
class Try:
    """One try to send the webhook of a message. Without `error` the receiver has accepted it."""

    message_id: str
    webhook: Webhook | None = None  # None: the message is not a task event
    status: int | None = None
    error: Exception | None = None
    retry_after_seconds: int | None = None  # None with an error: the message is moved to the dead-letter queue
    queue_error: Exception | None = None  # SQS did not accept the delay or the move

    @property
    def is_settled(self) -> bool:
        """Whether the message can be deleted from the queue."""
        return self.error is None or (self.retry_after_seconds is None and self.queue_error is None)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The log fields that identify the message."""
        webhook = self.webhook
        return {"message_id": self.message_id} | (
            {"task": webhook.task, "event_id": webhook.event_id} if webhook else {}
        )


class Dependencies:
    """Creates settings, clients and threads on first use."""

    def __init__(self) -> None:
        self.settings = SendWebhooksSettings.from_environment()
        clients = AwsClients()
        self.sqs = clients.sqs()
        secret = RotatingSecret(self.settings.webhook_secret, clients.secrets_manager())
        self.sender = WebhookSender(self.settings.webhook_url, lambda: signing_keys(secret))
        self.threads = ThreadPoolExecutor(MAX_MESSAGES, thread_name_prefix="webhook")


dependencies = cache(Dependencies)


def message_ids(event: dict[str, Any]) -> dict[str, Any]:
    """Returns the ids of all messages in an SQS event, as log fields."""
    return {"message_ids": [message["messageId"] for message in event["Records"]]}


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, message_ids)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Sends the webhooks of an SQS batch in parallel and returns the messages to retry as `batchItemFailures`."""
    # Logged before the work: if the invocation times out, this line shows which webhooks may have been sent.
    logger.info("batch received", **message_ids(event))
    tries = list(dependencies().threads.map(send, event["Records"]))
    for each in tries:
        report(each)
    delivered = sum(each.error is None for each in tries)
    with metrics_by() as metrics:
        metrics.add_metric("WebhooksDelivered", MetricUnit.Count, delivered)
        metrics.add_metric("WebhooksFailed", MetricUnit.Count, len(tries) - delivered)
    return batch_item_failures(each.message_id for each in tries if not each.is_settled)


def send(message: dict[str, Any]) -> Try:
    """Sends the webhook of a message. If that fails, delays the message or moves it to the dead-letter queue.

    Raises nothing: an error of one message must not stop the others.
    """
    attempt = Try(message["messageId"])
    try:
        attempt.webhook = read_webhook(message["body"])
        attempt.status = dependencies().sender.send(attempt.webhook, now=utc_now())
    except Exception as exc:  # noqa: BLE001 - the handler reports it
        attempt.error = exc
        try:
            settle(message, attempt)
        except Exception as exc:  # noqa: BLE001 - the handler reports it; the message is received again in any case
            attempt.queue_error = exc
    return attempt


def settle(message: dict[str, Any], attempt: Try) -> None:
    """Makes a failed message visible again at the time of its next try, or moves it to the dead-letter queue."""
    error, settings = attempt.error, dependencies().settings
    if not isinstance(error, InvalidMessageError | WebhookGoneError):
        attempt.retry_after_seconds = retry_after_seconds(
            utc_now(),
            queued_at=datetime.fromtimestamp(int(message["attributes"]["SentTimestamp"]) / 1000, UTC),
            retry_after=error.retry_after if isinstance(error, WebhookNotAcceptedError) else None,
        )
    if attempt.retry_after_seconds is None:
        dependencies().sqs.send_message(QueueUrl=settings.webhook_dead_letters_url, MessageBody=message["body"])
    else:
        dependencies().sqs.change_message_visibility(
            QueueUrl=settings.webhook_queue_url,
            ReceiptHandle=message["receiptHandle"],
            VisibilityTimeout=attempt.retry_after_seconds,
        )


def report(attempt: Try) -> None:
    """Writes the log lines of a try."""
    error, fields = attempt.error, attempt.fields
    if error is None:
        logger.info("webhook delivered", status=attempt.status, **fields)
        return
    if isinstance(error, WebhookNotAcceptedError):  # a failure of the receiver, not of Catchlight or AWS
        logger.warning("webhook not delivered", reason=str(error), **fields)
    else:
        report_failure(logger, "webhook not delivered", error, **fields)
    if attempt.queue_error:
        message = "SQS did not accept the change of the message, the queue's own visibility timeout applies"
        report_failure(logger, message, attempt.queue_error, **fields)
    elif attempt.retry_after_seconds is None:
        logger.error("moved to the dead letters", **fields)
    else:
        logger.info("webhook will be sent again", retry_after_seconds=attempt.retry_after_seconds, **fields)
