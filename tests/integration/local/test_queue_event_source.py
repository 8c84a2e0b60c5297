"""An SQS queue as an event source: partial failures, redrive, scaled delays, concurrency."""

import json
import uuid
from typing import Any

from tests.integration.local.running_example import Example
from tests.waiting import eventually


def send(example: Example, *bodies: dict[str, Any]) -> None:
    entries = [{"Id": str(number), "MessageBody": json.dumps(body)} for number, body in enumerate(bodies)]
    example.client("sqs").send_message_batch(QueueUrl=example.ref("Queue"), Entries=entries)


def receive_counts(example: Example, name: str) -> list[int]:
    """Returns the ApproximateReceiveCount of each time that the function received this message."""
    return [count for note in example.notes("ProcessMessagesFunction") for seen, count in note if seen == name]


def unique() -> str:
    return uuid.uuid4().hex[:8]


def message_count(example: Example, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    url = example.ref(queue)
    found = example.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def test_only_failed_messages_are_redelivered(example: Example) -> None:
    good, bad = unique(), unique()
    send(example, {"name": good}, {"name": bad, "fail": 1})

    eventually(lambda: receive_counts(example, bad) == [1, 2])
    eventually(lambda: message_count(example, "Queue") == 0)

    assert receive_counts(example, good) == [1]


def test_a_message_that_always_fails_moves_to_the_dead_letter_queue(example: Example) -> None:
    name = unique()
    send(example, {"name": name, "fail": 99})

    sqs, url = example.client("sqs"), example.ref("DeadLetters")
    [message] = eventually(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))

    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert json.loads(message["Body"])["name"] == name
    assert receive_counts(example, name) == [1, 2, 3]


def test_a_visibility_timeout_that_the_function_sets_is_scaled(example: Example) -> None:
    name = unique()
    send(example, {"name": name, "fail": 1, "visibility": 600, "queue": example.ref("Queue")})

    eventually(lambda: receive_counts(example, name) == [1, 2])  # after 0.6 s, not 10 minutes


def test_concurrent_batches_are_limited_by_the_mapping(example: Example) -> None:
    names = [unique() for _ in range(20)]
    for start in (0, 10):
        send(example, *({"name": name, "sleep": 0.02} for name in names[start : start + 10]))

    eventually(lambda: all(receive_counts(example, name) == [1] for name in names))

    assert len(example.stack.functions["ProcessMessagesFunction"].pids()) <= 2
    assert all(len(note) <= 5 for note in example.notes("ProcessMessagesFunction"))
