"""A function behind a DynamoDB stream: filter, order, partial failures, bisecting, the on-failure queue."""

import json
import uuid
from typing import Any

from tests.integration.local.running_example import Example, eventually


def write(example: Example, *ids: str, **attributes: str) -> None:
    """Writes all items in one call, so that they are in one batch."""
    items = [{"id": {"S": name}, **{key: {"S": value} for key, value in attributes.items()}} for name in ids]
    requests = [{"PutRequest": {"Item": item}} for item in items]
    example.client("dynamodb").batch_write_item(RequestItems={example.ref("Table"): requests})


def batches(example: Example, prefix: str) -> list[list[str]]:
    """Returns the ids in the batches that the function received, of this test's items only."""
    seen = [[name for name, _ in note if name.startswith(prefix)] for note in example.notes("TakeChangesFunction")]
    return [batch for batch in seen if batch]


def changes(example: Example) -> list[list[str]]:
    """Returns the id and kind of all records that the function received."""
    return [change for note in example.notes("TakeChangesFunction") for change in note]


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

    seen = [change for change in changes(example) if change[0] == f"{prefix}a"]
    assert [kind for _, kind in seen] == ["INSERT", "MODIFY"]


def test_records_before_a_failed_item_are_not_repeated(example: Example) -> None:
    prefix = unique()
    write(example, f"{prefix}a", f"{prefix}b")
    write(example, f"{prefix}poison", fail="item")
    write(example, f"{prefix}c")

    eventually(lambda: any(batch[-1] == f"{prefix}c" for batch in batches(example, prefix)))
    [message] = eventually(lambda: receive_all(example, "OnFailure"))

    seen = [name for batch in batches(example, prefix) for name in batch]
    assert seen.count(f"{prefix}a") == seen.count(f"{prefix}b") == 1
    assert seen.count(f"{prefix}poison") >= 2
    assert message["DDBStreamBatchInfo"]["batchSize"] == 1


def test_a_failing_batch_is_bisected_down_to_the_failing_record(example: Example) -> None:
    prefix = unique()
    items = [{"id": {"S": f"{prefix}{number}"}} for number in range(4)]
    items[2]["fail"] = {"S": "all"}
    requests = [{"PutRequest": {"Item": item}} for item in items]
    example.client("dynamodb").batch_write_item(RequestItems={example.ref("Table"): requests})

    [message] = eventually(lambda: receive_all(example, "OnFailure"))
    eventually(lambda: batches(example, prefix)[-1] == [f"{prefix}3"])

    # MaximumRetryAttempts is 1: alone, the poison is tried twice. The others were handled in their order.
    assert batches(example, prefix).count([f"{prefix}2"]) == 2
    info = message["DDBStreamBatchInfo"]
    assert message["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert message["requestContext"]["approximateInvokeCount"] == 2
    assert message["requestContext"]["functionArn"].endswith(":function:TakeChangesFunction")
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
