"""ArchiveImages: receives succeeded tasks from the archive queue and copies their images into the bucket.

A message whose task is not finished is received again, sooner if its URLs expire sooner, until the last URL has
expired. Then the function moves the message to the dead-letter queue.

Lambda kills the process if a task needs too much memory, which also interrupts the tries of the other tasks in its
batch. A task whose earlier try was interrupted is archived alone, after the others.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from operator import itemgetter
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.archiving.archiver import ArchiveRun, ImageArchive
from catchlight.archiving.bucket import S3_CONFIG, ImageBucket
from catchlight.archiving.confirmation import CallbackConfirmation
from catchlight.archiving.image_copier import ImageCopier
from catchlight.archiving.priority_pool import PriorityThreadPool
from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.aws.batches import batch_item_failures
from catchlight.aws.clients import AwsClients
from catchlight.aws.secrets import RotatingSecret
from catchlight.errors import (
    ImageError,
    InterruptedTryError,
    InvalidMessageError,
    ProviderError,
    ProviderRefusedError,
    UnconfirmedError,
)
from catchlight.images.fetcher import ImageFetcher
from catchlight.models import ImageState, TaskStatus, is_task_key, split_task_key, utc_now
from catchlight.observability.failures import (
    count_failure,
    message_task,
    message_tasks,
    report_failure,
    reports_failures,
)
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES, UNREADABLE_TASK_LIFETIME, retry_after_seconds
from catchlight.polling.provider_client import ProviderClient
from catchlight.polling.status_lookup import StatusLookup
from catchlight.settings import ArchiveImagesSettings
from catchlight.tasks.archive_tries import ArchiveTries
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.images import TaskImages
from catchlight.tasks.table import TasksTable

# BatchSize of the event source. Each message has a thread, which waits for its images.
MAX_MESSAGES = 5
# Of the function's 20 s, 7.5 s are reserved for the download of images and the rest for S3.
CONFIRMATION_TIMEOUT_SECONDS = 5.0
# For all messages together: six images per task. The threads mostly wait, and downloads are stored on disk.
MAX_CONCURRENT_IMAGES = 32
# No download starts with less of the function's time left: it takes up to 7.5 s, then come S3 and the table write.
RESERVED_SECONDS = 12

# Failures of other services than AWS. They are logged as warnings, not as errors.
EXTERNAL_ERRORS = (ImageError, ProviderError, UnconfirmedError)

logger = Logger(json_serializer=log_line)


class Dependencies:
    """Creates settings, clients and thread pools on first use."""

    def __init__(self) -> None:
        self.settings = ArchiveImagesSettings.from_environment()
        clients = AwsClients()
        self.sqs = clients.sqs()
        self.messages = ThreadPoolExecutor(MAX_MESSAGES, thread_name_prefix="message")
        table = TasksTable(
            self.settings.tasks_table,
            clients.dynamodb(),
            retention=self.settings.task_retention_days,
        )
        images = TaskImages(table, originals=self.settings.originals)
        secret = RotatingSecret(self.settings.provider_keys_secret, clients.secrets_manager())
        client = ProviderClient(self.settings.provider_base_urls, timeout_seconds=CONFIRMATION_TIMEOUT_SECONDS)
        status_lookup = StatusLookup(client, secret.provider_keys, now=utc_now)
        self.images = PriorityThreadPool(MAX_CONCURRENT_IMAGES, thread_name_prefix="image")
        bucket = ImageBucket(clients.s3(S3_CONFIG), self.settings.images_bucket)
        copier = ImageCopier(
            ImageFetcher(),
            bucket,
            additional_hosts=self.settings.additional_image_hosts,
            trusts_confirmed_hosts=self.settings.image_hosts == "Confirmed",
            now=utc_now,
        )
        self.archive = ImageArchive(
            table,
            images,
            ArchiveTries(table),
            CallbackConfirmation(Confirmations(table), status_lookup),
            UrlRefresher(images, status_lookup),
            copier,
            bucket,
            pool=self.images,
            now=utc_now,
        )


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, message_tasks)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Archives the tasks of an SQS batch in parallel and returns the messages to retry as `batchItemFailures`."""
    messages = event["Records"]
    # Logged before the work, because Lambda's own log line of a timeout has the request id but not the tasks.
    logger.info("batch received", **message_tasks(event))
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    runs = [dependencies().messages.submit(archive, message, deadline) for message in messages]
    interrupted_since = [
        (error.since, message)
        for message, run in zip(messages, runs, strict=True)
        if isinstance(error := run.exception(), InterruptedTryError)
    ]
    interrupted = [message for _, message in sorted(interrupted_since, key=itemgetter(0))]
    # Every run is settled, regardless of the results of the others.
    failed = []
    for message, run in zip(messages, runs, strict=True):
        if message in interrupted:
            continue
        if not settle_message(message, run):
            failed.append(message["messageId"])
        elif interrupted:
            delete(message)
    return batch_item_failures([*failed, *archive_alone(interrupted, deadline)])


def archive_alone(messages: Sequence[dict[str, Any]], deadline: float) -> Iterator[str]:
    """Archives tasks whose earlier try was interrupted, one after the other. Yields the ids of messages to retry.

    The messages are sorted by the beginning of that try. A task that kills the process again has the latest one then:
    it comes last in the next invocation.
    """
    for message in messages:
        task = message_task(message)
        if time.monotonic() > deadline:
            logger.warning("no time is left to archive the task alone", task=task)
            yield message["messageId"]
            continue
        logger.error("an earlier try of this task was killed, it is archived alone", task=task)
        count_failure("InterruptedTry")
        run = dependencies().messages.submit(archive, message, deadline, is_alone=True)
        if settle_message(message, run):
            delete(message)
        else:
            yield message["messageId"]


def delete(message: dict[str, Any]) -> None:
    """Deletes a settled message before its batch ends, because a task that is archived alone may kill the process.

    SQS would then deliver all messages of the batch again, and finally move them to the dead-letter queue together.
    """
    try:
        dependencies().sqs.delete_message(
            QueueUrl=dependencies().settings.archive_queue_url, ReceiptHandle=message["receiptHandle"]
        )
    except Exception as exc:  # noqa: BLE001 - reported, and Lambda deletes the message at the end of the batch
        report_failure(logger, "message not deleted before the end of its batch", exc, task=message_task(message))


def archive(message: dict[str, Any], deadline: float, *, is_alone: bool = False) -> ArchiveRun | None:
    """Archives the task of a message. Returns None if there is nothing to archive.

    Raises:
        InterruptedTryError: an earlier try was interrupted: the task is to be archived with `is_alone`.
        ImageTasksError: the message is to be received again.
    """
    task = message_task(message)
    if task is None or not is_task_key(task):
        raise InvalidMessageError('expected {"task": "PROVIDER#TASK_ID"}: delete it from the dead letters')
    return dependencies().archive.archive(task, receives=receive_count(message), is_alone=is_alone, deadline=deadline)


def receive_count(message: dict[str, Any]) -> int:
    """Returns how often SQS has delivered the message. Includes this delivery, and those that Lambda throttled."""
    return int(message["attributes"]["ApproximateReceiveCount"])


def settle_message(message: dict[str, Any], running: Future[ArchiveRun | None]) -> bool:
    """Waits for a message's run, then logs and counts it. Returns False if the message is to be received again.

    Sets the message's visibility timeout in that case. A message that can never succeed is moved to the dead-letter
    queue. Raises nothing: an error of one message must not stop the others from being settled.
    """
    run = None
    is_dead = False
    try:
        run = running.result()
        if run is None:
            logger.info("nothing to archive", task=message_task(message))
            return True
        log(run)
        count(run)
        if not run.failures:
            return True
    except Exception as exc:  # noqa: BLE001 - reported, and the message is received again or moved
        is_dead = isinstance(exc, InvalidMessageError)
        report_failure(logger, "not archived", exc, task=message_task(message), message_id=message["messageId"])
    try:
        return move_to_dead_letters(message) if is_dead or is_too_late(message, run) else schedule_retry(message, run)
    except Exception as exc:  # noqa: BLE001 - the message is received again in any case
        report_failure(logger, "the queue's own visibility timeout applies", exc, task=message_task(message))
    return False


def log(run: ArchiveRun) -> None:
    """Logs a run: the state of each settled image, and the reason of each retry."""
    task = run.task.task
    if run.is_contradicted:
        logger.error("the provider contradicts a result that a callback reported", task=task, status=run.task.status)
    for image in (*run.images, *run.not_needed):
        logger.info(
            "image settled",
            task=task,
            kind=image.kind,
            state=image.state,
            key=image.key,
            reason=image.reason,
            quarantine=image.quarantine and image.quarantine.key,
        )
    for image in run.quarantined:
        logger.info(
            "image kept until it is confirmed",
            task=task,
            kind=image.kind,
            quarantine=image.quarantine and image.quarantine.key,
        )
    if run.task.status is TaskStatus.UNCONFIRMED and run.task.failure:
        logger.error("the task is unconfirmed after the last try", task=task, reason=run.task.failure.message)
    for failure in run.failures:
        if isinstance(failure, EXTERNAL_ERRORS):
            logger.warning("not archived yet", task=task, error=type(failure).__name__, reason=str(failure))
        else:
            report_failure(logger, "not archived yet", failure, task=task)
    logger.info("archive run", task=task, status=run.task.status, renewed=run.renewed)


def count(run: ArchiveRun) -> None:
    """Writes a run's metrics."""
    task = run.task
    with metrics_by(provider=split_task_key(task.task)[0]) as metrics:
        for image in run.images:
            metrics.add_metric(f"Images{image.state.title()}", MetricUnit.Count, 1)
            if image.quarantine:
                metrics.add_metric("ImagesQuarantined", MetricUnit.Count, 1)
            if image.state is ImageState.ARCHIVED and image.archived_at:
                metrics.add_metric("ArchivedBytes", MetricUnit.Bytes, image.bytes or 0)
                left = (image.expires_at - image.archived_at).total_seconds()
                metrics.add_metric("UrlSecondsToExpiry", MetricUnit.Seconds, left)
        if run.renewed:
            metrics.add_metric("UrlsRenewed", MetricUnit.Count, run.renewed)
        if run.failures:
            metrics.add_metric("ArchivingRetried", MetricUnit.Count, 1)
        if run.is_contradicted:
            metrics.add_metric("UnconfirmedCallbacks", MetricUnit.Count, 1)
        if task.status is TaskStatus.UNCONFIRMED:
            metrics.add_metric("TasksUnconfirmed", MetricUnit.Count, 1)
        if any(isinstance(failure, ProviderRefusedError) for failure in run.failures):
            metrics.add_metric("ProviderRefused", MetricUnit.Count, 1)
        if task.status is TaskStatus.ARCHIVED and task.reported_time:
            took = (utc_now() - task.reported_time).total_seconds()
            metrics.add_metric("ReportToArchiveSeconds", MetricUnit.Seconds, took)


def is_too_late(message: dict[str, Any], run: ArchiveRun | None) -> bool:
    """Decides whether retries are useless: all URLs have expired, and the task was tried MAX_ARCHIVE_TRIES times.

    Retries go on while an image's host gives negative answers that are not final yet: a final one settles the image.
    Without a run, because the task could not be read, a message is too late after UNREADABLE_TASK_LIFETIME.
    """
    now = utc_now()
    if run:
        return run.next_expiry(now) is None and run.tries >= MAX_ARCHIVE_TRIES and not run.awaits_final_answer
    sent_at = datetime.fromtimestamp(int(message["attributes"]["SentTimestamp"]) / 1000, UTC)
    return now - sent_at > UNREADABLE_TASK_LIFETIME


def move_to_dead_letters(message: dict[str, Any]) -> bool:
    """Moves a message to the dead-letter queue. Returns True: the message is settled."""
    dependencies().sqs.send_message(
        QueueUrl=dependencies().settings.archive_dead_letters_url, MessageBody=message["body"]
    )
    logger.error("moved to the dead letters", task=message_task(message), message_id=message["messageId"])
    return True


def schedule_retry(message: dict[str, Any], run: ArchiveRun | None) -> bool:
    """Sets the message's visibility timeout to the retry delay. Returns False: the message is received again."""
    now, tries = utc_now(), run.tries if run else receive_count(message)
    if tries >= MAX_ARCHIVE_TRIES:
        with metrics_by(provider=split_task_key(message_task(message) or "")[0]) as metrics:
            metrics.add_metric("ArchivingDelayed", MetricUnit.Count, 1)
    dependencies().sqs.change_message_visibility(
        QueueUrl=dependencies().settings.archive_queue_url,
        ReceiptHandle=message["receiptHandle"],
        VisibilityTimeout=retry_after_seconds(tries, urls_expire_at=run.next_expiry(now) if run else None, now=now),
    )
    return False
