"""ArchiveImages: takes succeeded tasks from the queue and their images into the bucket.

A message whose task is not finished comes back, sooner the less time its URLs have left, and goes to the dead letters
after five tries.
"""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import BotoCoreError, ClientError

from image_tasks.aws_clients import AwsClients
from image_tasks.confirmation import Confirmation
from image_tasks.credentials import LiveSecret
from image_tasks.deadlines import MAX_ARCHIVE_TRIES, retry_after_seconds
from image_tasks.earliest_first import EarliestFirstPool
from image_tasks.errors import ImageUnavailableError, ProviderRefusedError
from image_tasks.fresh_urls import FreshUrls
from image_tasks.image_archive import ArchiveRun, ImageArchive
from image_tasks.image_bucket import S3_CONFIG, ImageBucket
from image_tasks.image_fetching import ImageFetcher
from image_tasks.inquiry import Inquiry
from image_tasks.metrics import Unit, metrics_by
from image_tasks.models import ImageState, TaskStatus, split_task_key, utc_now
from image_tasks.provider_client import ProviderClient
from image_tasks.settings import ArchiveImagesSettings
from image_tasks.tasks_table import TasksTable

# BatchSize of the event source; every message has a thread that waits for its images.
MAX_MESSAGES = 5
# Of the function's 20 s, 7.5 belong to the images and the rest to S3.
CONFIRMATION_TIMEOUT_SECONDS = 5.0
# Images at once, of all messages together: six of each task. Threads only wait, and what they fetch waits on disk.
MAX_CONCURRENT_IMAGES = 32
# No image is begun with less of the function's time left: 7.5 s for the fetch, then S3 and the write to the table.
RESERVED_SECONDS = 12

logger = Logger()
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


class Dependencies:
    """Settings, clients and threads, made when the first batch needs them."""

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
        secret = LiveSecret(self.settings.provider_keys_secret, clients.secrets_manager())
        client = ProviderClient(self.settings.provider_base_urls, timeout_seconds=CONFIRMATION_TIMEOUT_SECONDS)
        inquiry = Inquiry(client, secret.provider_keys, now=utc_now)
        self.images = EarliestFirstPool(MAX_CONCURRENT_IMAGES, thread_name_prefix="image")
        self.archive = ImageArchive(
            table,
            Confirmation(table, inquiry),
            FreshUrls(table, inquiry),
            ImageFetcher(),
            ImageBucket(clients.s3(S3_CONFIG), self.settings.images_bucket),
            additional_hosts=self.settings.additional_image_hosts,
            pool=self.images,
            now=utc_now,
        )


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Archives the tasks of an SQS batch side by side; answers with the messages that are to come back."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    runs = {
        message["messageId"]: dependencies().messages.submit(archive, message, deadline) for message in event["Records"]
    }

    def settle(record: SQSRecord) -> None:
        settle_message(record, runs[record.message_id])

    return process_partial_response(event=event, record_handler=settle, processor=processor, context=context)


def archive(message: dict[str, Any], deadline: float) -> ArchiveRun | None:
    """Archives the task that a message names.

    Raises:
        ImageTasksError: the message is to come back.
    """
    is_last_try = int(message["attributes"]["ApproximateReceiveCount"]) >= MAX_ARCHIVE_TRIES
    return dependencies().archive.archive(
        json.loads(message["body"])["task"], is_last_try=is_last_try, deadline=deadline
    )


def settle_message(record: SQSRecord, running: Future[ArchiveRun | None]) -> None:
    """Waits for a message's run and tells of it.

    Raises:
        ImageTasksError: the message is to come back, and its visibility says when.
    """
    run = None
    try:
        run = running.result()
        if run is None:
            logger.info("nothing to archive", task=record.json_body["task"])
            return
        log(run)
        count(run)
        if run.failures:
            raise ImageUnavailableError(f"not archived yet: {run.failures[0]}")
    except Exception:
        retry_in_time(record, run)
        raise


def log(run: ArchiveRun) -> None:
    """Says what became of every image."""
    task = run.task.task
    if run.is_refuted:
        logger.error("a callback claimed a result that its provider does not have", task=task, status=run.task.status)
    for image in run.images:
        logger.info("image settled", task=task, kind=image.kind, state=image.state, key=image.key, reason=image.reason)
    for failure in run.failures:
        logger.warning("not archived yet", task=task, error=type(failure).__name__, reason=str(failure))
    logger.info("archive run", task=task, status=run.task.status, renewed=run.renewed)


def count(run: ArchiveRun) -> None:
    """Writes a run's metrics."""
    task = run.task
    with metrics_by(provider=split_task_key(task.task)[0]) as metrics:
        for image in run.images:
            metrics.add_metric(f"Images{image.state.title()}", Unit.COUNT, 1)
            if image.state is ImageState.ARCHIVED and image.archived_at:
                metrics.add_metric("ArchivedBytes", Unit.BYTES, image.bytes or 0)
                left = (image.expires_at - image.archived_at).total_seconds()
                metrics.add_metric("UrlSecondsLeftAtArchive", Unit.SECONDS, left)
        if run.renewed:
            metrics.add_metric("UrlsRenewed", Unit.COUNT, run.renewed)
        if run.is_refuted:
            metrics.add_metric("CallbacksRefuted", Unit.COUNT, 1)
        if any(isinstance(failure, ProviderRefusedError) for failure in run.failures):
            metrics.add_metric("ProviderRefused", Unit.COUNT, 1)
        if task.status is TaskStatus.ARCHIVED and task.reported_time:
            took = (utc_now() - task.reported_time).total_seconds()
            metrics.add_metric("ReportToArchiveSeconds", Unit.SECONDS, took)


def retry_in_time(record: SQSRecord, run: ArchiveRun | None) -> None:
    """Sets when the message comes back; if that fails it takes the queue's 120 s."""
    tries = int(record.attributes.approximate_receive_count)
    try:
        dependencies().sqs.change_message_visibility(
            QueueUrl=dependencies().settings.archive_queue_url,
            ReceiptHandle=record.receipt_handle,
            VisibilityTimeout=retry_after_seconds(tries, urls_die_at=run.urls_die_at if run else None, now=utc_now()),
        )
    except (ClientError, BotoCoreError):
        logger.exception("visibility not changed")
