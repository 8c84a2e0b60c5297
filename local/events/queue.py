"""Invokes a function with the messages of an SQS queue, as Lambda's event source mapping does.

https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from moto.sqs.models import Queue

from local.account import REGION
from local.events.event_source import EventSource, failed_identifiers
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function, TooManyRequestsError
from local.moto.patches import sqs as moto_sqs

Message = dict[str, Any]

# The limit of ReceiveMessage. Lambda calls it several times for a larger batch.
MAX_MESSAGES_PER_CALL = 10


@dataclass(frozen=True)
class QueueMapping:
    """The settings of an event source mapping; the defaults are Lambda's."""

    name: str
    queue_arn: str
    queue_url: str
    batch_size: int = 10
    batching_window_seconds: float = 0
    reports_item_failures: bool = False
    max_concurrency: int | None = None


class QueueEventSource(EventSource):
    """Polls one queue, and delivers at most as many batches at a time as the mapping allows and as there are sandboxes.

    A batching window begins with the first message of a batch. Handled messages are deleted. A failed message becomes
    visible again after its visibility timeout, and moves to the dead-letter queue after the number of receives in the
    queue's redrive policy. Window, timeout and the age of messages are in scaled time.
    """

    def __init__(
        self, mapping: QueueMapping, queue: Queue, function: Function, sqs: Any, time_scale: float, logs: LogFolder
    ) -> None:
        super().__init__(mapping.name, function, logs)
        self._mapping = mapping
        self._queue = queue
        self._sqs = sqs
        self._time_scale = time_scale
        concurrency = min(mapping.max_concurrency or function.max_sandboxes, function.max_sandboxes)
        self._slots = threading.Semaphore(concurrency)
        self._batches = ThreadPoolExecutor(concurrency, thread_name_prefix=mapping.name)

    def stop(self) -> None:
        super().stop()
        self._batches.shutdown(wait=True, cancel_futures=True)

    def _step(self) -> None:
        # A slot is acquired before a message is received: the visibility timeout of a received message must not pass
        # while it waits for a slot.
        if not self._slots.acquire(timeout=0.2):
            return
        messages = []
        try:
            # Reads moto's queue in this process: 20 requests per second to the server would keep a core busy.
            if moto_sqs.wait_for_messages(self._queue, 0.05):
                messages = self._gather()
        finally:
            if messages:
                self._batches.submit(self._deliver_and_free_slot, messages)
            else:
                self._slots.release()

    def _gather(self) -> list[Message]:
        """Receives messages until the batch is full or the batching window is over."""
        messages: list[Message] = []
        deadline = time.monotonic() + self._mapping.batching_window_seconds * self._time_scale
        while not self._stopping.is_set():
            messages += self._receive(self._mapping.batch_size - len(messages))
            remaining = deadline - time.monotonic()
            if len(messages) >= self._mapping.batch_size or remaining <= 0:
                break
            moto_sqs.wait_for_messages(self._queue, min(remaining, 0.05))
        return messages

    def _receive(self, count: int) -> list[Message]:
        response = self._sqs.receive_message(
            QueueUrl=self._mapping.queue_url,
            MaxNumberOfMessages=min(count, MAX_MESSAGES_PER_CALL),
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
            WaitTimeSeconds=0,
        )
        messages: list[Message] = response.get("Messages", [])
        return messages

    def _deliver_and_free_slot(self, messages: list[Message]) -> None:
        try:
            with self._errors_logged():
                self._deliver(messages)
        finally:
            self._slots.release()

    def _deliver(self, messages: list[Message]) -> None:
        ids = [message["MessageId"] for message in messages]
        event = {"Records": [self._as_event_record(message) for message in messages]}
        try:
            outcome = self._function.invoke(json.dumps(event).encode())
        except TooManyRequestsError:
            failed = set(ids)
        else:
            failed = failed_identifiers(outcome, ids, self._mapping.reports_item_failures)
        handled = [message for message in messages if message["MessageId"] not in failed]
        if handled:
            entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(handled)]
            response = self._sqs.delete_message_batch(QueueUrl=self._mapping.queue_url, Entries=entries)
            for failure in response.get("Failed", []):
                message_id = handled[int(failure["Id"])]["MessageId"]
                code = failure.get("Code")
                self._logs.error(
                    self._name, f"message {message_id} was not deleted and will be delivered again: {code}"
                )
        for message in messages:
            if message["MessageId"] in failed:
                moto_sqs.scale_rest_of_visibility(self._queue, message["ReceiptHandle"], self._time_scale)

    def _scaled(self, attributes: dict[str, str]) -> dict[str, str]:
        """Returns a message's attributes with a SentTimestamp from which functions compute the message's unscaled age.

        Functions plan retries by the age: a message that has waited for 5 s, scaled to 0.1 s, must have an age of 5 s.
        """
        if "SentTimestamp" not in attributes:
            return attributes
        now = time.time() * 1000
        age = (now - int(attributes["SentTimestamp"])) / self._time_scale
        return attributes | {"SentTimestamp": str(int(now - age))}

    def _as_event_record(self, message: Message) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": self._scaled(message.get("Attributes", {})),
            "messageAttributes": {
                name: {
                    **{key[0].lower() + key[1:]: value for key, value in attribute.items()},
                    "stringListValues": [],
                    "binaryListValues": [],
                }
                for name, attribute in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._mapping.queue_arn,
            "awsRegion": REGION,
        }
