"""Faults at the AWS endpoint: what a client sees of each, and whether the call was applied."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.moto.calls import AwsCall
from local.moto.server import MotoServer
from tests.searches.soak.aws_faults import TIMEOUT_SECONDS, AwsFaults, Fault, Outage, Rates

TABLE = {
    "TableName": "Things",
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}
NUMBERS = itertools.count()


class Endpoint:
    """moto behind faults, with a table, a bucket and a queue in it."""

    def __init__(self) -> None:
        self.killed: list[tuple[str, str]] = []
        self.faults = AwsFaults(7, {}, kill=lambda function, sandbox: self.killed.append((function, sandbox)))
        self.moto = MotoServer(
            middleware=lambda application: lambda *request: self.faults.around(application)(*request)
        )

    def hurt(self, rates: Rates, **options: Any) -> None:
        self.faults = AwsFaults(
            7, rates, kill=lambda function, sandbox: self.killed.append((function, sandbox)), **options
        )
        self.faults.begin()

    def client_of_a_function(self, service: str, attempts: int = 1, read_timeout: float = 5) -> Any:
        config = Config(
            retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=read_timeout, proxies={}
        )
        return boto3.client(
            service,  # type: ignore[call-overload] # not literal
            endpoint_url=self.moto.url,
            region_name="us-east-1",
            aws_access_key_id="Tested",
            aws_secret_access_key="local",
            aws_session_token="Tested-1",
            config=config,
        )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    running.moto.start()
    running.moto.client("dynamodb").create_table(**TABLE)
    running.moto.client("s3").create_bucket(Bucket="bucket")
    yield running
    running.moto.stop()


@pytest.fixture
def queue(endpoint: Endpoint) -> str:
    url: str = endpoint.moto.client("sqs").create_queue(QueueName=f"queue{next(NUMBERS)}")["QueueUrl"]
    return url


def put_item(endpoint: Endpoint, **options: Any) -> Callable[[], bool]:
    """Puts an item as a function does; returns how to look whether it is there."""
    key = {"id": {"S": f"item{next(NUMBERS)}"}}
    endpoint.client_of_a_function("dynamodb", **options).put_item(TableName="Things", Item=key)
    return lambda: "Item" in endpoint.moto.client("dynamodb").get_item(TableName="Things", Key=key)


def there(endpoint: Endpoint, key: str) -> bool:
    listed = endpoint.moto.client("s3").list_objects_v2(Bucket="bucket", Prefix=key)
    return bool(listed["KeyCount"])


@pytest.mark.parametrize(
    ("fault", "error", "is_applied"),
    [
        (Fault.THROTTLE, "ProvisionedThroughputExceededException", False),
        (Fault.ERROR, "InternalServerError", False),
        (Fault.ERROR_AFTER, "InternalServerError", True),
        (Fault.CUT, "ConnectionClosedError", False),
        (Fault.TIMEOUT_AFTER, "ReadTimeoutError", True),
        (Fault.KILL, "ConnectionClosedError", False),
        (Fault.KILL_AFTER, "ConnectionClosedError", True),
    ],
)
def test_a_call_to_dynamodb(endpoint: Endpoint, fault: Fault, error: str, is_applied: bool) -> None:
    endpoint.hurt({"dynamodb": {fault: 1.0}})
    key = {"id": {"S": f"item{next(NUMBERS)}"}}
    client = endpoint.client_of_a_function("dynamodb", read_timeout=TIMEOUT_SECONDS["dynamodb"] - 0.4)

    with pytest.raises((ClientError, BotoCoreError)) as caught:
        client.put_item(TableName="Things", Item=key)

    assert name_of(caught.value) == error
    assert ("Item" in endpoint.moto.client("dynamodb").get_item(TableName="Things", Key=key)) == is_applied
    assert endpoint.faults.injected == {("dynamodb", fault): 1}


def name_of(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__


@pytest.mark.parametrize(
    ("fault", "error", "is_applied"),
    [
        (Fault.THROTTLE, "SlowDown", False),
        (Fault.ERROR, "InternalError", False),
        (Fault.ERROR_AFTER, "InternalError", True),
        (Fault.CUT, "ConnectionClosedError", False),
        (Fault.CUT_AFTER, "ConnectionClosedError", True),
        (Fault.CONFLICT, "ConditionalRequestConflict", False),
        (Fault.KILL_AFTER, "ConnectionClosedError", True),
    ],
)
def test_a_call_to_s3(endpoint: Endpoint, fault: Fault, error: str, is_applied: bool) -> None:
    endpoint.hurt({"s3": {fault: 1.0}})
    key = f"object{next(NUMBERS)}"

    with pytest.raises((ClientError, BotoCoreError)) as caught:
        endpoint.client_of_a_function("s3").put_object(Bucket="bucket", Key=key, Body=b"x" * 100_000)

    assert name_of(caught.value) == error
    assert there(endpoint, key) == is_applied


@pytest.mark.parametrize("service", ["dynamodb", "s3", "sqs", "stepfunctions", "secretsmanager"])
@pytest.mark.parametrize("fault", [Fault.THROTTLE, Fault.ERROR, Fault.CUT])
def test_every_service_is_tried_again(endpoint: Endpoint, service: str, fault: Fault) -> None:
    name = "states" if service == "stepfunctions" else service
    endpoint.hurt({name: {fault: 1.0}})
    client = endpoint.client_of_a_function(service, attempts=2)
    calls: dict[str, Callable[[], Any]] = {
        "dynamodb": lambda: client.get_item(TableName="Things", Key={"id": {"S": "a"}}),
        "s3": lambda: client.head_object(Bucket="bucket", Key="a"),
        "sqs": lambda: client.send_message(QueueUrl=f"{endpoint.moto.url}/123456789012/none", MessageBody="a"),
        "stepfunctions": lambda: client.start_execution(stateMachineArn="arn:aws:states:us-east-1:1:x", input="{}"),
        "secretsmanager": lambda: client.get_secret_value(SecretId="none"),
    }

    with pytest.raises((ClientError, BotoCoreError)):
        calls[service]()

    assert endpoint.faults.injected == {(name, fault): 2}


def test_a_cut_answer_of_dynamodb_is_noticed_by_its_checksum(endpoint: Endpoint) -> None:
    is_there = put_item(endpoint)
    endpoint.hurt({"dynamodb": {Fault.CUT_AFTER: 1.0}})

    put_item(endpoint, attempts=3)

    assert is_there()
    assert endpoint.faults.injected == {("dynamodb", Fault.CUT_AFTER): 3}


def test_a_killed_sandbox_is_the_one_that_called(endpoint: Endpoint) -> None:
    endpoint.killed.clear()
    endpoint.hurt({"dynamodb": {Fault.KILL: 1.0}})

    with pytest.raises(BotoCoreError):
        put_item(endpoint)

    assert endpoint.killed == [("Tested", "Tested-1")]


def test_the_objects_of_a_lethal_task_kill_until_it_is_cured(endpoint: Endpoint) -> None:
    endpoint.killed.clear()
    endpoint.hurt({}, lethal=["task1"])
    endpoint.faults.end()
    client = endpoint.client_of_a_function("s3")

    client.put_object(Bucket="bucket", Key="images/acedata/task12/result-0.png", Body=b"x")
    with pytest.raises(BotoCoreError):
        client.put_object(Bucket="bucket", Key="images/acedata/task1/result-0.png", Body=b"x")
    assert endpoint.killed == [("Tested", "Tested-1")]

    endpoint.faults.cure()
    client.put_object(Bucket="bucket", Key="images/acedata/task1/result-0.png", Body=b"x")
    assert len(endpoint.killed) == 1


def test_a_slow_call_is_applied(endpoint: Endpoint) -> None:
    endpoint.hurt({"dynamodb": {Fault.SLOW: 1.0}})

    assert put_item(endpoint)()


def test_part_of_a_batch_of_messages_is_not_taken(endpoint: Endpoint, queue: str) -> None:
    endpoint.hurt({"sqs": {Fault.PARTIAL: 1.0}})
    client = endpoint.client_of_a_function("sqs")

    three = client.send_message_batch(
        QueueUrl=queue, Entries=[{"Id": str(number), "MessageBody": "x"} for number in range(3)]
    )
    one = client.send_message_batch(QueueUrl=queue, Entries=[{"Id": "3", "MessageBody": "x"}])

    assert [entry["Id"] for entry in three["Successful"]] == ["0"]
    assert [entry["Id"] for entry in three["Failed"]] == ["1", "2"]
    assert [entry["Id"] for entry in one["Failed"]] == ["3"]
    assert len(endpoint.moto.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]) == 1


def test_part_of_a_batch_of_keys_is_not_looked_up(endpoint: Endpoint) -> None:
    for name in "abc":
        endpoint.moto.client("dynamodb").put_item(TableName="Things", Item={"id": {"S": name}})
    endpoint.hurt({"dynamodb": {Fault.PARTIAL: 1.0}})

    keys = [{"id": {"S": name}} for name in "abc"]
    answer = endpoint.client_of_a_function("dynamodb").batch_get_item(
        RequestItems={"Things": {"Keys": keys, "ConsistentRead": True}}
    )

    assert len(answer["Responses"]["Things"]) == 2
    assert answer["UnprocessedKeys"] == {"Things": {"Keys": keys[2:], "ConsistentRead": True}}


def test_nobody_but_functions_is_hurt_and_nothing_before_it_begins(endpoint: Endpoint) -> None:
    endpoint.hurt({"dynamodb": {Fault.ERROR: 1.0}})
    endpoint.moto.client("dynamodb").put_item(TableName="Things", Item={"id": {"S": "by people"}})
    endpoint.faults.end()
    put_item(endpoint)

    assert endpoint.faults.injected == {}
    assert endpoint.faults.calls == {}


def test_a_service_that_is_out_takes_no_call(endpoint: Endpoint) -> None:
    endpoint.hurt({}, outages=[Outage("dynamodb", 0.0, 60.0)])

    with pytest.raises(ClientError, match="InternalServerError"):
        put_item(endpoint)
    endpoint.client_of_a_function("s3").put_object(Bucket="bucket", Key="while", Body=b"x")

    assert there(endpoint, "while")


# ------------------------------------------------------------------------------------------------ the plan


def call(subject: str, operation: str = "UpdateItem") -> AwsCall:
    return AwsCall("Tested", "Tested-1", "dynamodb", operation, subject)


def plan(seed: int, subject: str, **options: Any) -> list[Fault | None]:
    rates = {"dynamodb": {Fault.THROTTLE: 0.2, Fault.CUT: 0.1, Fault.PARTIAL: 0.1, Fault.CONFLICT: 0.1}}
    faults = AwsFaults(seed, rates, kill=lambda *_: None, **options)
    return [faults.planned(call(subject), nth) for nth in range(600)]


def test_the_same_seed_plans_the_same_faults_for_each_subject() -> None:
    assert plan(1, "a") == plan(1, "a")
    assert plan(1, "a") != plan(2, "a")
    assert plan(1, "a") != plan(1, "b")


def test_faults_are_as_frequent_as_told() -> None:
    found = plan(1, "a")

    assert 0.15 < found.count(Fault.THROTTLE) / len(found) < 0.25
    assert 0.06 < found.count(Fault.CUT) / len(found) < 0.14


def test_faults_of_batches_meet_batches_only() -> None:
    assert not {Fault.PARTIAL, Fault.CONFLICT} & set(plan(1, "a"))


def test_a_streak_is_longer_than_the_retries_of_an_invocation() -> None:
    faults = AwsFaults(1, {"dynamodb": {Fault.SLOW: 0.0}}, kill=lambda *_: None, streak_rate=0.1)
    found = [[faults.planned(call(f"subject{number}"), nth) for nth in range(6)] for number in range(300)]

    streaks = [calls for calls in found if calls[0]]
    assert 10 < len(streaks) < 60
    assert all(len(set(calls)) == 1 for calls in streaks)
    assert {calls[0] for calls in streaks} == {Fault.THROTTLE, Fault.ERROR, Fault.CUT}


def test_what_is_counted_follows_the_plan(endpoint: Endpoint) -> None:
    rates: Rates = {"dynamodb": {Fault.ERROR: 0.5}}
    endpoint.hurt(rates)
    client = endpoint.client_of_a_function("dynamodb")
    met: list[Fault | None] = []
    for _ in range(20):
        try:
            client.get_item(TableName="Things", Key={"id": {"S": "the same"}})
        except ClientError:
            met.append(Fault.ERROR)
        else:
            met.append(None)

    assert met == [endpoint.faults.planned(call("the same", "GetItem"), nth) for nth in range(20)]
    assert endpoint.faults.calls == {("dynamodb", "GetItem"): 20}
