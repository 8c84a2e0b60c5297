"""Runs the archiver's function with DynamoDB, S3 and SQS in memory, and images from a loopback server."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.images.fetcher import ImageFetcher
from catchlight.models import Image, ImageKind, Reporter, SkippedOutput, TaskReport, TaskStatus
from functions.archive_images import app
from local.moto.patches.s3 import put_object_as_s3_does
from tests.canary_secrets import URL_QUERY
from tests.image_server import ImageServer, LoopbackUrlPolicy
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import a_secret, an_event

BUCKET = "images-bucket"
TASK = "flux-kontext#task12345"
# One of the known image hosts of this provider.
HOST = "tempfile.aiquickdraw.com"


class Archiver:
    """The archiver's function, its queues, its bucket and the image server."""

    def __init__(self, store: Store, server: ImageServer, context: LambdaContext) -> None:
        self.store = store
        self.server = server
        self.context = context
        self.s3 = boto3.client("s3")
        self.sqs = boto3.client("sqs")
        self.s3.create_bucket(Bucket=BUCKET)
        self.queue_url = self.sqs.create_queue(QueueName="archive", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
        self.dead_letters_url = self.sqs.create_queue(QueueName="archive-dead-letters")["QueueUrl"]

    def serve(self, path: str, answer: Any) -> str:
        return f"{self.server.serve(path, answer, HOST)}?{URL_QUERY}"

    def succeed(
        self,
        *urls: str | tuple[ImageKind, str, int],
        task: str = TASK,
        reported_by: Reporter = Reporter.CALLBACK,
        skipped: tuple[SkippedOutput, ...] = (),
    ) -> None:
        """Records a success with these URLs.

        A URL alone is a result that is valid for a day; a tuple has the kind, the URL and its lifetime in minutes.
        """
        provider, _, task_id = task.partition("#")
        now = datetime.now(UTC)
        typed_urls = [(ImageKind.RESULT, url, 1440) if isinstance(url, str) else url for url in urls]
        report = TaskReport(
            provider=provider,
            task_id=task_id,
            status=TaskStatus.SUCCEEDED,
            reported_by=reported_by,
            reported_at=now,
            images=tuple(
                Image(kind=kind, url=url, expires_at=now + timedelta(minutes=minutes))
                for kind, url, minutes in typed_urls
            ),
            skipped=skipped,
        )
        self.store.reports.record(report)

    def receive(
        self, *tasks: str, tries: int = 1, negative: int | None = None, sent_at: datetime | None = None
    ) -> list[dict[str, Any]]:
        """Queues a message for each task, and returns the messages as the event source delivers them.

        This is try number `tries` of the messages. `negative` is the number of earlier tries in which an image's host
        gave a negative answer (default: all).
        """
        sent_at = sent_at or datetime.now(UTC)
        for task in tasks or (TASK,):
            if tries > 1 and self.store.item(task):
                self.store.client.update_item(
                    TableName=TABLE_NAME,
                    Key={"task": {"S": task}},
                    UpdateExpression="SET archiveTries = :failed, negativeTries = :negative",
                    ExpressionAttributeValues={
                        ":failed": {"N": str(tries - 1)},
                        ":negative": {"N": str(tries - 1 if negative is None else negative)},
                    },
                )
            self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=json.dumps({"task": task}))
        received = self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10)["Messages"]
        template = an_event("sqs_archive.json")["Records"][0]
        return [
            template
            | {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": template["attributes"]
                | {"ApproximateReceiveCount": str(tries), "SentTimestamp": str(int(sent_at.timestamp() * 1000))},
            }
            for message in received
        ]

    def handle(self, messages: list[dict[str, Any]]) -> list[str]:
        """Handles messages. Returns the ids of those that return to the queue."""
        answer = app.handler({"Records": messages}, self.context)
        assert answer.keys() == {"batchItemFailures"}
        return [str(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]

    def run(self, *tasks: str, tries: int = 1, negative: int | None = None) -> list[str]:
        """Queues and handles a message for each task. Returns the tasks whose messages return to the queue."""
        messages = self.receive(*tasks, tries=tries, negative=negative)
        failed = self.handle(messages)
        return [json.loads(message["body"])["task"] for message in messages if message["messageId"] in failed]

    def dead_letters(self) -> list[str]:
        """Returns the bodies of the messages in the dead-letter queue."""
        found = self.sqs.receive_message(QueueUrl=self.dead_letters_url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in found.get("Messages", [])]

    def item(self, task: str = TASK) -> dict[str, Any]:
        item = self.store.item(task)
        assert item is not None
        return item

    def states(self, task: str = TASK) -> list[str]:
        return [image["state"] for image in self.item(task)["images"]]

    def images(self) -> dict[str, bytes]:
        """Returns the archived images by their keys, without quarantined bytes."""
        return {key: body for key, body in self.objects().items() if key.startswith("images/")}

    def objects(self) -> dict[str, bytes]:
        keys = [found["Key"] for found in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        return {key: self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def seconds_until_visible(self, message: dict[str, Any]) -> float:
        """Returns the seconds until a message is visible again."""
        from moto.sqs.models import sqs_backends

        queue = sqs_backends["123456789012"]["us-east-1"].queues["archive"]
        (found,) = [each for each in queue._messages if each.receipt_handle == message["receiptHandle"]]
        return float(found.visible_at) / 1000 - time.time()


@contextmanager
def archiving(
    store: Store,
    server: ImageServer,
    context: LambdaContext,
    monkeypatch: pytest.MonkeyPatch,
    provider_keys: dict[str, Any],
) -> Iterator[Archiver]:
    """Sets the archiver's environment, with these API keys of the providers, and yields the archiver."""
    archiver = Archiver(store, server, context)
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("IMAGES_BUCKET", BUCKET)
    monkeypatch.setenv("ARCHIVE_QUEUE_URL", archiver.queue_url)
    monkeypatch.setenv("ARCHIVE_DEAD_LETTERS_URL", archiver.dead_letters_url)
    monkeypatch.setenv("ADDITIONAL_IMAGE_HOSTS", "")
    monkeypatch.setenv("PROVIDER_BASE_URLS", "")
    monkeypatch.setenv("PROVIDER_KEYS_SECRET", a_secret("archiver-keys", json.dumps(provider_keys)))
    fetcher = ImageFetcher(LoopbackUrlPolicy(server.port))
    monkeypatch.setattr(app, "ImageFetcher", lambda: fetcher)
    app.dependencies.cache_clear()
    with put_object_as_s3_does():
        yield archiver
    if app.dependencies.cache_info().currsize:
        app.dependencies().messages.shutdown()
        app.dependencies().images.shutdown()
    app.dependencies.cache_clear()
