"""Tests the injected AWS faults: the error that a client receives, and whether the call was applied."""

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
    """A moto server with injected faults, a table and a bucket."""

    def __init__(self) -> None:
        self.killed: list[tuple[str, str]] = []
        self.faults = AwsFaults(7, {}, kill=lambda function, sandbox: self.killed.append((function, sandbox)))
        self.moto = MotoServer(
            middleware=lambda application: lambda *request: self.faults.around(application)(*request)
        )

    def inject(self, rates: Rates, **options: Any) -> None:
        self.faults = AwsFaults(
            7, rates, kill=lambda function, sandbox: self.killed.append((function, sandbox)), **options
        )
        self.faults.begin()

    def function_client(self, service: str, attempts: int = 1, read_timeout: float = 5) -> Any:
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
    """Puts an item as a function does; returns a function that checks whether the item exists."""
    key = {"id": {"S": f"item{next(NUMBERS)}"}}
    endpoint.function_client("dynamodb", **options).put_item(TableName="Things", Item=key)
    return lambda: "Item" in endpoint.moto.client("dynamodb").get_item(TableName="Things", Key=key)


def object_exists(endpoint: Endpoint, key: str) -> bool:
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
def test_the_error_of_a_dynamodb_call(endpoint: Endpoint, fault: Fault, error: str, is_applied: bool) -> None:
    endpoint.inject({"dynamodb": {fault: 1.0}})
    key = {"id": {"S": f"item{next(NUMBERS)}"}}
    client = endpoint.function_client("dynamodb", read_timeout=TIMEOUT_SECONDS["dynamodb"] - 0.4)

    with pytest.raises((ClientError, BotoCoreError)) as caught:
        client.put_item(TableName="Things", Item=key)

    assert error_code(caught.value) == error
    assert ("Item" in endpoint.moto.client("dynamodb").get_item(TableName="Things", Key=key)) == is_applied
    assert endpoint.faults.injected == {("dynamodb", fault): 1}


def error_code(error: Exception) -> str:
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
def test_the_error_of_an_s3_call(endpoint: Endpoint, fault: Fault, error: str, is_applied: bool) -> None:
    endpoint.inject({"s3": {fault: 1.0}})
    key = f"object{next(NUMBERS)}"

    with pytest.raises((ClientError, BotoCoreError)) as caught:
        endpoint.function_client("s3").put_object(Bucket="bucket", Key=key, Body=b"x" * 100_000)

    assert error_code(caught.value) == error
    assert object_exists(endpoint, key) == is_applied


@pytest.mark.parametrize("service", ["dynamodb", "s3", "sqs", "stepfunctions", "secretsmanager"])
@pytest.mark.parametrize("fault", [Fault.THROTTLE, Fault.ERROR, Fault.CUT])
def test_clients_retry_each_fault_of_every_service(endpoint: Endpoint, service: str, fault: Fault) -> None:
    name = "states" if service == "stepfunctions" else service
    endpoint.inject({name: {fault: 1.0}})
    client = endpoint.function_client(service, attempts=2)
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


def test_a_truncated_response_of_dynamodb_is_detected_by_its_checksum(endpoint: Endpoint) -> None:
    item_exists = put_item(endpoint)
    endpoint.inject({"dynamodb": {Fault.CUT_AFTER: 1.0}})

    put_item(endpoint, attempts=3)

    assert item_exists()
    assert endpoint.faults.injected == {("dynamodb", Fault.CUT_AFTER): 3}


def test_the_sandbox_that_made_the_call_is_killed(endpoint: Endpoint) -> None:
    endpoint.killed.clear()
    endpoint.inject({"dynamodb": {Fault.KILL: 1.0}})

    with pytest.raises(BotoCoreError):
        put_item(endpoint)

    assert endpoint.killed == [("Tested", "Tested-1")]


def test_calls_for_objects_of_an_oversized_task_are_killed_until_the_kills_are_ended(endpoint: Endpoint) -> None:
    endpoint.killed.clear()
    endpoint.inject({}, oversized=["task1"])
    endpoint.faults.end()
    client = endpoint.function_client("s3")

    client.put_object(Bucket="bucket", Key="images/acedata/task12/result-0.png", Body=b"x")
    with pytest.raises(BotoCoreError):
        client.put_object(Bucket="bucket", Key="images/acedata/task1/result-0.png", Body=b"x")
    assert endpoint.killed == [("Tested", "Tested-1")]

    endpoint.faults.end_oversized_kills()
    client.put_object(Bucket="bucket", Key="images/acedata/task1/result-0.png", Body=b"x")
    assert len(endpoint.killed) == 1


def test_a_slow_call_is_applied(endpoint: Endpoint) -> None:
    endpoint.inject({"dynamodb": {Fault.SLOW: 1.0}})

    assert put_item(endpoint)()


def test_part_of_a_message_batch_is_rejected(endpoint: Endpoint, queue: str) -> None:
    endpoint.inject({"sqs": {Fault.PARTIAL: 1.0}})
    client = endpoint.function_client("sqs")

    three = client.send_message_batch(
        QueueUrl=queue, Entries=[{"Id": str(number), "MessageBody": "x"} for number in range(3)]
    )
    one = client.send_message_batch(QueueUrl=queue, Entries=[{"Id": "3", "MessageBody": "x"}])

    assert [entry["Id"] for entry in three["Successful"]] == ["0"]
    assert [entry["Id"] for entry in three["Failed"]] == ["1", "2"]
    assert [entry["Id"] for entry in one["Failed"]] == ["3"]
    assert len(endpoint.moto.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]) == 1


def test_part_of_a_key_batch_is_unprocessed(endpoint: Endpoint) -> None:
    for name in "abc":
        endpoint.moto.client("dynamodb").put_item(TableName="Things", Item={"id": {"S": name}})
    endpoint.inject({"dynamodb": {Fault.PARTIAL: 1.0}})

    keys = [{"id": {"S": name}} for name in "abc"]
    response = endpoint.function_client("dynamodb").batch_get_item(
        RequestItems={"Things": {"Keys": keys, "ConsistentRead": True}}
    )

    assert len(response["Responses"]["Things"]) == 2
    assert response["UnprocessedKeys"] == {"Things": {"Keys": keys[2:], "ConsistentRead": True}}


def test_only_calls_of_functions_after_begin_have_faults(endpoint: Endpoint) -> None:
    endpoint.inject({"dynamodb": {Fault.ERROR: 1.0}})
    endpoint.moto.client("dynamodb").put_item(TableName="Things", Item={"id": {"S": "by a user"}})
    endpoint.faults.end()
    put_item(endpoint)

    assert endpoint.faults.injected == {}
    assert endpoint.faults.calls == {}


def test_a_service_during_its_outage_rejects_all_calls(endpoint: Endpoint) -> None:
    endpoint.inject({}, outages=[Outage("dynamodb", 0.0, 60.0)])

    with pytest.raises(ClientError, match="InternalServerError"):
        put_item(endpoint)
    endpoint.function_client("s3").put_object(Bucket="bucket", Key="while", Body=b"x")

    assert object_exists(endpoint, "while")


# ------------------------------------------------------------------------------------------------ planned faults


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


def test_faults_have_the_given_rates() -> None:
    found = plan(1, "a")

    assert 0.15 < found.count(Fault.THROTTLE) / len(found) < 0.25
    assert 0.06 < found.count(Fault.CUT) / len(found) < 0.14


def test_faults_of_some_operations_are_not_injected_into_others() -> None:
    assert not {Fault.PARTIAL, Fault.CONFLICT} & set(plan(1, "a"))


def test_a_streak_is_longer_than_the_retries_of_an_invocation() -> None:
    faults = AwsFaults(1, {"dynamodb": {Fault.SLOW: 0.0}}, kill=lambda *_: None, streak_rate=0.1)
    found = [[faults.planned(call(f"subject{number}"), nth) for nth in range(6)] for number in range(300)]

    streaks = [calls for calls in found if calls[0]]
    assert 10 < len(streaks) < 60
    assert all(len(set(calls)) == 1 for calls in streaks)
    assert {calls[0] for calls in streaks} == {Fault.THROTTLE, Fault.ERROR, Fault.CUT}


def test_injected_faults_are_the_planned_ones(endpoint: Endpoint) -> None:
    rates: Rates = {"dynamodb": {Fault.ERROR: 0.5}}
    endpoint.inject(rates)
    client = endpoint.function_client("dynamodb")
    observed: list[Fault | None] = []
    for _ in range(20):
        try:
            client.get_item(TableName="Things", Key={"id": {"S": "the same"}})
        except ClientError:
            observed.append(Fault.ERROR)
        else:
            observed.append(None)

    assert observed == [endpoint.faults.planned(call("the same", "GetItem"), nth) for nth in range(20)]
    assert endpoint.faults.calls == {("dynamodb", "GetItem"): 20}
