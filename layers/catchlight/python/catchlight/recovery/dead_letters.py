"""Receives, releases and deletes messages of dead-letter queues. ReconcileTasks and the command line consume them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catchlight.aws.batches import MAX_MESSAGES_PER_CALL, batches

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

# Long polling queries all SQS servers; short polling may return nothing from a queue that has a few messages.
_WAIT_SECONDS = 1


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A received message, invisible to other consumers until its visibility timeout ends."""

    id: str
    receipt: str
    text: str
    sent_at: datetime

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object in the message; empty if it does not contain one."""
        try:
            body = json.loads(self.text)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    @property
    def task(self) -> str | None:
        """The key of the task in an archive message; None in messages of other queues."""
        task = self.body.get("task")
        return task if isinstance(task, str) else None


class DeadLetterQueue:
    """A dead-letter queue in SQS.

    Every method may raise boto3's exceptions.
    """

    def __init__(self, sqs: "SQSClient", url: str) -> None:
        self._sqs = sqs
        self.url = url

    def receive(self, *, limit: int, visibility_timeout: int) -> Iterator[DeadLetter]:
        """Receives up to `limit` messages, each once.

        They are invisible to other consumers for `visibility_timeout` seconds, or until they are released.
        """
        seen: set[str] = set()
        while len(seen) < limit:
            answer = self._sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=min(MAX_MESSAGES_PER_CALL, limit - len(seen)),
                VisibilityTimeout=visibility_timeout,
                WaitTimeSeconds=_WAIT_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            new = [message for message in answer.get("Messages", []) if message["MessageId"] not in seen]
            if not new:
                return
            for message in new:
                seen.add(message["MessageId"])
                sent = int(message["Attributes"]["SentTimestamp"]) / 1000
                yield DeadLetter(
                    message["MessageId"], message["ReceiptHandle"], message["Body"], datetime.fromtimestamp(sent, UTC)
                )

    def release(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Makes the messages visible again at once."""
        for batch in batches(dead_letters, MAX_MESSAGES_PER_CALL):
            self._sqs.change_message_visibility_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": dead_letter.receipt, "VisibilityTimeout": 0}
                    for number, dead_letter in enumerate(batch)
                ],
            )

    def delete(self, dead_letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Deletes messages. Returns the ones that SQS did not delete; they become visible again later."""
        left = []
        for batch in batches(dead_letters, MAX_MESSAGES_PER_CALL):
            answer = self._sqs.delete_message_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": dead_letter.receipt}
                    for number, dead_letter in enumerate(batch)
                ],
            )
            # Counts the messages listed as successful, not the failed ones: an incomplete response may list neither.
            deleted = {entry["Id"] for entry in answer.get("Successful", [])}
            left += [dead_letter for number, dead_letter in enumerate(batch) if str(number) not in deleted]
        return left
