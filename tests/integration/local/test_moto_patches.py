"""Patches correct differences between moto and AWS; each test fails without its patch."""

import base64
import gc
import hashlib
import io
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import StreamShard
from moto.dynamodb.responses import DynamoHandler
from moto.s3.responses import S3Response
from moto.sqs.models import Queue, SQSBackend, sqs_backends

from local.moto import patches
from local.moto.patches import sqs as moto_sqs
from local.moto.patches.dynamodb import CompactRecord
from tests.integration.local.running_example import Example


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Switches threads so often that operations that are not atomic fail."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def outcomes(call: Callable[[], Any], times: int) -> list[str]:
    """Returns the error codes of concurrent calls; "" for successful ones."""
    together = threading.Barrier(times)

    def one(_: int) -> str:
        together.wait()
        try:
            call()
        except ClientError as exc:
            return str(exc.response["Error"]["Code"])
        return ""

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


def sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def test_earlier_versions_of_an_item_are_not_kept_in_memory(example: Example) -> None:
    dynamodb = example.client("dynamodb")
    key = {"id": {"S": uuid.uuid4().hex}}

    def write(number: int) -> None:
        dynamodb.update_item(
            TableName=example.ref("Table"),
            Key=key,
            UpdateExpression="SET #number = :number",
            ExpressionAttributeNames={"#number": "number"},
            ExpressionAttributeValues={":number": {"N": str(number)}},
        )

    def items() -> int:
        return sum(isinstance(found, Item) for found in gc.get_objects())

    write(0)
    gc.collect()
    before = items()
    for number in range(50):
        write(number)
    gc.collect()

    assert items() - before < 10


def test_a_query_sorts_items_by_the_values_of_their_keys(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    dynamodb, table = example.client("dynamodb"), uuid.uuid4().hex
    hash_key, range_key = (
        {"AttributeName": name, "KeyType": type_} for name, type_ in (("kind", "HASH"), ("size", "RANGE"))
    )
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": type_}
            for name, type_ in (("id", "S"), ("kind", "S"), ("size", "N"))
        ],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        GlobalSecondaryIndexes=[
            {"IndexName": "bySize", "KeySchema": [hash_key, range_key], "Projection": {"ProjectionType": "ALL"}}
        ],
    )
    sizes = [(number * 37) % 200 - 100 for number in range(200)]
    for number, size in enumerate(sizes):
        item = {"id": {"S": f"{number:03}"}, "kind": {"S": "x"}, "size": {"N": str(size)}}
        dynamodb.put_item(TableName=table, Item=item)
    converted = []
    convert = DynamoType.cast_value.fget

    def convert_and_count(value: DynamoType) -> Any:
        converted.append(value)
        return convert(value)

    monkeypatch.setattr(DynamoType, "cast_value", property(convert_and_count))

    response = dynamodb.query(
        TableName=table,
        IndexName="bySize",
        KeyConditionExpression="kind = :kind",
        ExpressionAttributeValues={":kind": {"S": "x"}},
        ScanIndexForward=False,
    )

    assert [int(item["size"]["N"]) for item in response["Items"]] == sorted(sizes, reverse=True)
    # One conversion for each key of an item, and two for its comparison with the condition.
    assert len(converted) < 10 * len(sizes)
    scanned = dynamodb.scan(TableName=table)["Items"]
    assert [item["id"]["S"] for item in scanned] == [f"{number:03}" for number in range(200)]


def test_exactly_one_of_concurrent_conditional_writes_succeeds(eager_threads: None, example: Example) -> None:
    dynamodb = example.client("dynamodb")
    for _ in range(20):
        key = {"id": {"S": uuid.uuid4().hex}}

        def write(key: Any = key) -> None:
            dynamodb.update_item(
                TableName=example.ref("Table"),
                Key=key,
                UpdateExpression="SET a = :one",
                ConditionExpression="attribute_not_exists(id)",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )

        assert sorted(outcomes(write, 4)) == [""] + ["ConditionalCheckFailedException"] * 3


def test_messages_sent_while_others_are_deleted_are_not_lost(eager_threads: None, example: Example) -> None:
    name = uuid.uuid4().hex
    example.client("sqs").create_queue(QueueName=name)
    # Called directly: HTTP requests would leave too much time between the calls.
    backend = sqs_backends["123456789012"]["us-east-1"]
    received: list[str] = []

    def send(number: int) -> None:
        backend.send_message(name, str(number))

    def receive(_: int) -> None:
        # Ends when no message has arrived for half a second: messages that are missing then are lost.
        while messages := backend.receive_message(name, 1, 0.5, 60):
            received.append(messages[0].body)
            backend.delete_message(name, messages[0].receipt_handle)

    with ThreadPoolExecutor(8) as threads:
        consumers = [threads.submit(receive, number) for number in range(3)]
        list(threads.map(send, range(200)))
        for consumer in consumers:
            consumer.result()

    assert sorted(map(int, received)) == list(range(200))


def test_a_message_that_becomes_visible_ends_a_waiting_receive(example: Example) -> None:
    sqs = example.client("sqs")
    url = sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    [message] = sqs.receive_message(QueueUrl=url)["Messages"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=100)

    assert sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]  # 0.1 s later, at a scale of 0.001


def test_the_visibility_timeout_is_scaled_unless_the_function_set_it(example: Example) -> None:
    sqs = example.client("sqs")
    name = uuid.uuid4().hex
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    queue = queue_of(name)
    sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": str(n)} for n in range(2)])
    unchanged, changed = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2, VisibilityTimeout=1000)["Messages"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=changed["ReceiptHandle"], VisibilityTimeout=40_000)

    for message in (unchanged, changed):
        moto_sqs.scale_rest_of_visibility(queue, message["ReceiptHandle"], 0.0)

    [visible] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2)["Messages"]
    assert visible["MessageId"] == unchanged["MessageId"]


def test_an_outdated_receipt_handle_does_not_change_the_visibility_of_a_message(example: Example) -> None:
    sqs = example.client("sqs")
    url = sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    [outdated] = sqs.receive_message(QueueUrl=url)["Messages"]
    retry = {"QueueUrl": url, "ReceiptHandle": outdated["ReceiptHandle"], "VisibilityTimeout": 0}
    sqs.change_message_visibility(**retry)
    [latest] = sqs.receive_message(QueueUrl=url, VisibilityTimeout=1000)["Messages"]

    sqs.change_message_visibility(**retry)  # the SDK repeats it if the first response was lost

    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    sqs.change_message_visibility(**retry | {"ReceiptHandle": latest["ReceiptHandle"]})
    assert sqs.receive_message(QueueUrl=url)["Messages"]


def queue_of(name: str) -> Queue:
    queue: Queue = sqs_backends["123456789012"]["us-east-1"].get_queue(name)
    return queue


def test_exactly_one_of_concurrent_conditional_puts_succeeds(eager_threads: None, example: Example) -> None:
    s3, bucket = example.client("s3"), example.ref("ImagesBucket")
    for _ in range(20):
        key = uuid.uuid4().hex

        def put(key: str = key) -> None:
            s3.put_object(Bucket=bucket, Key=key, Body=b"x", IfNoneMatch="*")

        assert sorted(outcomes(put, 8)) == [""] + ["PreconditionFailed"] * 7


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_that_does_not_match_its_checksum_is_refused(example: Example, streamed: bool) -> None:
    s3, bucket, key = example.client("s3"), example.ref("ImagesBucket"), uuid.uuid4().hex
    body: Any = io.BytesIO(b"right") if streamed else b"right"

    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key=key, Body=body, ChecksumSHA256=sha256(b"wrong"))

    assert caught.value.response["Error"]["Code"] == "BadDigest"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"] == 0


def test_a_content_md5_is_checked_too(example: Example) -> None:
    with pytest.raises(ClientError, match="BadDigest"):
        example.client("s3").put_object(
            Bucket=example.ref("ImagesBucket"), Key="x", Body=b"x", ContentMD5=base64.b64encode(b"0" * 16).decode()
        )


def test_a_checksum_is_stored(example: Example) -> None:
    s3, bucket, key = example.client("s3"), example.ref("ImagesBucket"), uuid.uuid4().hex

    s3.put_object(Bucket=bucket, Key=key, Body=b"x", ChecksumSHA256=sha256(b"x"))

    head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    whole = s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == whole["ChecksumSHA256"] == sha256(b"x")
    assert whole["Body"].read() == b"x"


def test_a_write_without_a_change_creates_no_stream_record(example: Example) -> None:
    dynamodb, table = example.client("dynamodb"), example.ref("Table")
    shard = dynamodb_backends["123456789012"]["us-east-1"].get_table(table).stream_shard
    item = {"id": {"S": uuid.uuid4().hex}}

    for _ in range(3):
        dynamodb.put_item(TableName=table, Item=item)
    for _ in range(2):
        dynamodb.update_item(
            TableName=table, Key=item, UpdateExpression="SET a = :a", ExpressionAttributeValues={":a": {"N": "1"}}
        )
    dynamodb.delete_item(TableName=table, Key=item)

    records = [record.to_json() for record in shard.items]
    kinds = [record["eventName"] for record in records if record["dynamodb"]["Keys"] == item]
    assert kinds == ["INSERT", "MODIFY", "REMOVE"]


def test_stream_records_are_kept_compressed(example: Example) -> None:
    dynamodb, table = example.client("dynamodb"), example.ref("Table")
    shard = dynamodb_backends["123456789012"]["us-east-1"].get_table(table).stream_shard
    item = {
        "id": {"S": uuid.uuid4().hex},
        "urls": {"L": [{"S": "https://images.example/" + "x" * 1000}, {"NULL": True}]},
    }

    dynamodb.put_item(TableName=table, Item=item)

    records = [record for record in shard.items if record.to_json()["dynamodb"]["Keys"]["id"] == item["id"]]
    assert [type(record) for record in records] == [CompactRecord]
    assert records[0].to_json()["dynamodb"]["NewImage"] == item
    assert len(records[0]._text) < 500


def test_the_patches_are_removed_at_the_end() -> None:
    places = [
        (DynamoHandler, "call_action"),
        (StreamShard, "add"),
        (Queue, "add_message"),
        (SQSBackend, "receive_message"),
        (SQSBackend, "change_message_visibility"),
        (S3Response, "put_object"),
    ]
    before = [getattr(owner, name) for owner, name in places]

    with patches.installed(1.0, lambda name, payload: None, lambda: None, print):  # type: ignore[arg-type, return-value]
        during = [getattr(owner, name) for owner, name in places]

    assert [getattr(owner, name) for owner, name in places] == before
    assert not any(one is other for one, other in zip(before, during, strict=True))
