"""A DynamoDB stream as an event source: filter, order, partial failures, bisecting, the on-failure queue."""

import json
import uuid
from typing import Any

from tests.integration.local.running_example import Example
from tests.waiting import eventually


def write(example: Example, *ids: str, **attributes: str) -> None:
    """Writes all items in one call, so that they are in one batch."""
    items = [{"id": {"S": name}, **{key: {"S": value} for key, value in attributes.items()}} for name in ids]
    requests = [{"PutRequest": {"Item": item}} for item in items]
    example.client("dynamodb").batch_write_item(RequestItems={example.ref("Table"): requests})


def batches(example: Example, prefix: str) -> list[list[str]]:
    """Returns the ids in the batches that the function received, of this test's items only."""
    received = [
        [name for name, _ in note if name.startswith(prefix)] for note in example.notes("ProcessRecordsFunction")
    ]
    return [batch for batch in received if batch]


def changes(example: Example) -> list[list[str]]:
    """Returns the id and kind of all records that the function received."""
    return [change for note in example.notes("ProcessRecordsFunction") for change in note]


def receive_all(example: Example, queue: str) -> list[Any]:
    """Receives and deletes all messages of a queue, and returns them."""
    sqs, url = example.client("sqs"), example.ref(queue)
    bodies = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            bodies.append(json.loads(message["Body"]))
    return bodies


def unique() -> str:
    return f"watched-{uuid.uuid4().hex[:8]}-"


def test_matching_records_are_delivered_in_order(example: Example) -> None:
    prefix = unique()
    write(example, "ignored", *(f"{prefix}{number}" for number in range(6)), "ignored too")

    eventually(lambda: sum(map(len, batches(example, prefix))) == 6)

    names = [name for batch in batches(example, prefix) for name in batch]
    assert names == [f"{prefix}{number}" for number in range(6)]
    assert all(len(batch) <= 4 for batch in batches(example, prefix))
    assert "ignored" not in [name for name, _ in changes(example)]


def test_records_have_the_kind_of_change(example: Example) -> None:
    prefix = unique()
    for color in ("red", "red", "blue"):
        write(example, f"{prefix}a", color=color)
    write(example, f"{prefix}end")

    eventually(lambda: [f"{prefix}end", "INSERT"] in changes(example))

    kinds = [kind for name, kind in changes(example) if name == f"{prefix}a"]
    assert kinds == ["INSERT", "MODIFY"]


def test_records_before_a_failed_item_are_not_repeated(example: Example) -> None:
    prefix = unique()
    write(example, f"{prefix}a", f"{prefix}b")
    write(example, f"{prefix}failing", fail="item")
    write(example, f"{prefix}c")

    eventually(lambda: any(batch[-1] == f"{prefix}c" for batch in batches(example, prefix)))
    [message] = eventually(lambda: receive_all(example, "OnFailure"))

    received = [name for batch in batches(example, prefix) for name in batch]
    assert received.count(f"{prefix}a") == received.count(f"{prefix}b") == 1
    assert received.count(f"{prefix}failing") >= 2
    assert message["DDBStreamBatchInfo"]["batchSize"] == 1


def test_a_failing_batch_is_bisected_down_to_the_failing_record(example: Example) -> None:
    prefix = unique()
    items = [{"id": {"S": f"{prefix}{number}"}} for number in range(4)]
    items[2]["fail"] = {"S": "all"}
    requests = [{"PutRequest": {"Item": item}} for item in items]
    example.client("dynamodb").batch_write_item(RequestItems={example.ref("Table"): requests})

    [message] = eventually(lambda: receive_all(example, "OnFailure"))
    eventually(lambda: batches(example, prefix)[-1] == [f"{prefix}3"])

    # MaximumRetryAttempts is 1: the function receives the failing record alone twice. The others succeed in order.
    assert batches(example, prefix).count([f"{prefix}2"]) == 2
    succeeded = [name for batch in batches(example, prefix) if f"{prefix}2" not in batch for name in batch]
    assert succeeded == [f"{prefix}{number}" for number in (0, 1, 3)]
    info = message["DDBStreamBatchInfo"]
    assert message["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert message["requestContext"]["approximateInvokeCount"] == 2
    assert message["requestContext"]["functionArn"].endswith(":function:ProcessRecordsFunction")
    assert message["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    assert info["batchSize"] == 1
    assert info["startSequenceNumber"] == info["endSequenceNumber"]
    assert info["streamArn"] == example.stack.resources["Table"].attributes["StreamArn"]
    assert info["approximateArrivalOfFirstRecord"].endswith("Z")
    assert "RetryAttemptsExhausted" in example.log("errors")
