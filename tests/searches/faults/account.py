"""Models the state of an AWS account as a value, and AWS as a function from state and call to the next state.

moto executes each distinct pair of state and call once, and the result is cached: an exploration repeats the same pair
thousands of times, and moto needs 10 ms for one update of an item.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from moto.dynamodb.models import dynamodb_backends

from local.account import ACCOUNT_ID, REGION
from tests.integration.conftest import TABLE_NAME

TASK = "flux-kontext#task12345"
BUCKET = "images-bucket"

_ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/machine"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the bucket."""

    key: str
    sha256: str
    content_type: str
    metadata: tuple[tuple[str, str], ...] = ()
    times_written: int = 1


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution of the state machine."""

    name: str
    input: str
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class AccountState:
    """The state of the account: one task's item (in DynamoDB's JSON), and all objects, messages and executions so far.

    `messages` are those of the archive queue, `poll_messages` those of the poll queue.
    """

    item: str | None = None
    objects: tuple[StoredObject, ...] = ()
    messages: tuple[str, ...] = ()
    poll_messages: tuple[str, ...] = ()
    executions: tuple[Execution, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an AWS client before it is sent. Calls of one operation with the same parameters are equal."""

    service: str
    operation: str
    digest: str  # of the parameters
    client: BaseClient = field(compare=False, repr=False)
    parameters: dict[str, Any] = field(compare=False, repr=False)
    body: bytes = field(compare=False, repr=False)
    make: Callable[[BaseClient, str, dict[str, Any]], Any] = field(compare=False, repr=False)

    @classmethod
    def of(
        cls,
        client: BaseClient,
        operation: str,
        parameters: dict[str, Any],
        make: Callable[[BaseClient, str, dict[str, Any]], Any],
    ) -> "Call":
        plain = dict(parameters)
        body = plain.pop("Body").read() if "Body" in plain else b""
        digest = _digest(json.dumps([plain, hashlib.sha256(body).hexdigest()], sort_keys=True, default=str))
        return cls(client.meta.service_model.service_name, operation, digest, client, plain, body, make)

    def __str__(self) -> str:
        return f"{self.service} {self.operation}"

    def execute(self) -> Any:
        """Makes the call.

        Raises:
            ClientError: AWS rejects it.
        """
        with_body = {**self.parameters, "Body": io.BytesIO(self.body)} if self.body else self.parameters
        return self.make(self.client, self.operation, with_body)


@dataclass(frozen=True, slots=True)
class AwsResponse:
    """The response or error response to a request. Two answers are equal if a caller cannot distinguish them."""

    digest: str
    response: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    is_error: bool = field(default=False, compare=False)

    def return_or_raise(self, call: Call) -> Any:
        """Returns the response as the client does.

        Raises:
            ClientError: the answer is an error.
        """
        if self.is_error:
            error: type[ClientError] = call.client.exceptions.from_code(self.response["Error"]["Code"])  # type: ignore[assignment]
            raise error(self.response, call.operation)  # type: ignore[arg-type] # the stubs have a narrower type
        if "Body" in self.response:  # a stream can be read once only, and the answer is reused
            body = self.response["Body"]
            return self.response | {"Body": StreamingBody(io.BytesIO(body), len(body))}
        return self.response


# Ids and times that AWS generates; no decision of the functions depends on them.
_GENERATED_FIELDS = {"ResponseMetadata", "executionArn", "startDate", "ETag", "LastModified", "VersionId"}


class Aws:
    """The four AWS services of the pipeline, in moto, with the table that the template defines."""

    def __init__(self) -> None:
        self._table = dynamodb_backends[ACCOUNT_ID][REGION].get_table(TABLE_NAME)
        self._s3 = boto3.client("s3")
        self._sqs = boto3.client("sqs")
        self._step_functions = boto3.client("stepfunctions")
        self._s3.create_bucket(Bucket=BUCKET)
        self.queue_url = self._sqs.create_queue(QueueName="archive")["QueueUrl"]
        self.poll_queue_url = self._sqs.create_queue(QueueName="poll")["QueueUrl"]
        self.state_machine = self._make_state_machine()
        self._bodies: dict[str, bytes] = {}
        self._answers: dict[tuple[Any, ...], tuple[Any, AwsResponse]] = {}
        self.calls_made = 0  # number of calls that moto has executed

    def perform(self, account: AccountState, call: Call) -> tuple[AccountState, AwsResponse]:
        """Returns the account's state after a call and the answer to the caller."""
        match call.service:
            case "dynamodb":
                item, answer = self._cached_result(call, account.item, self._load_item, self._read_item)
                return replace(account, item=item), answer
            case "s3":
                objects, answer = self._cached_result(call, account.objects, self._load_objects, self._read_objects)
                return replace(account, objects=_count_writes(account.objects, objects, call, answer)), answer
            case "sqs":
                url = call.parameters["QueueUrl"]
                sent, answer = self._cached_result(call, (), self._load_nothing, lambda: self._take_messages(url))
                if url == self.poll_queue_url:
                    return replace(account, poll_messages=account.poll_messages + sent), answer
                return replace(account, messages=account.messages + sent), answer
            case "stepfunctions":
                executions, answer = self._cached_result(
                    call, account.executions, self._load_executions, lambda: self._read_executions(account.executions)
                )
                return replace(account, executions=executions), answer
        raise AssertionError(f"the functions call {call.service}, which the exploration does not model")

    def _cached_result(
        self, call: Call, state: Any, load: Callable[[Any], None], read: Callable[[], Any]
    ) -> tuple[Any, AwsResponse]:
        request = (call, state)
        if request not in self._answers:
            load(state)
            self._bodies[hashlib.sha256(call.body).hexdigest()] = call.body
            try:
                response, is_error = call.execute(), False
            except ClientError as exc:
                response, is_error = dict(exc.response), True
            if "Body" in response:
                response["Body"] = response["Body"].read()
            answer = AwsResponse(_digest_of_response(response), response, is_error)
            self._answers[request] = read(), answer
            self.calls_made += 1
        return self._answers[request]

    # -------------------------------------------------------------------------------------------- DynamoDB

    # Without moto's API, which takes three times as long: these are the most frequent operations of an exploration.

    def _load_item(self, item: str | None) -> None:
        self._table.items.clear()
        if item is not None:
            self._table.put_item(json.loads(item))

    def _read_item(self) -> str | None:
        (item,) = self._table.all_items() or (None,)
        return None if item is None else json.dumps(item.to_json()["Attributes"], sort_keys=True)

    # -------------------------------------------------------------------------------------------- S3

    def _load_objects(self, objects: tuple[StoredObject, ...]) -> None:
        for found in self._s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self._s3.delete_object(Bucket=BUCKET, Key=found["Key"])
        for stored in objects:
            self._s3.put_object(
                Bucket=BUCKET,
                Key=stored.key,
                Body=self._bodies[stored.sha256],
                ContentType=stored.content_type,
                Metadata=dict(stored.metadata),
                ChecksumAlgorithm="SHA256",
            )

    def _read_objects(self) -> tuple[StoredObject, ...]:
        return tuple(
            self._read_object(found["Key"]) for found in self._s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        )

    def _read_object(self, key: str) -> StoredObject:
        found = self._s3.get_object(Bucket=BUCKET, Key=key)
        sha256 = hashlib.sha256(found["Body"].read()).hexdigest()
        return StoredObject(key, sha256, found["ContentType"], tuple(sorted(found["Metadata"].items())))

    # -------------------------------------------------------------------------------------------- SQS

    def _load_nothing(self, nothing: tuple[()]) -> None:
        pass

    def _take_messages(self, queue_url: str) -> tuple[str, ...]:
        """Returns the messages just sent.

        The explorer itself simulates delays, receives and redelivery.
        """
        received = self._sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages", [])
        for message in received:
            self._sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        return tuple(message["Body"] for message in received)

    # -------------------------------------------------------------------------------------------- Step Functions

    def _make_state_machine(self) -> str:
        definition = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
        return self._step_functions.create_state_machine(
            name="poll-tasks", definition=json.dumps(definition), roleArn=_ROLE
        )["stateMachineArn"]

    def _load_executions(self, executions: tuple[Execution, ...]) -> None:
        self._step_functions.delete_state_machine(stateMachineArn=self.state_machine)
        self._make_state_machine()
        for execution in executions:
            arn = self._step_functions.start_execution(
                stateMachineArn=self.state_machine, name=execution.name, input=execution.input
            )["executionArn"]
            if execution.is_over:
                self._step_functions.stop_execution(executionArn=arn)

    def _read_executions(self, known: tuple[Execution, ...]) -> tuple[Execution, ...]:
        """Returns the known executions, then the new ones."""
        names = {execution.name for execution in known}
        listed = self._step_functions.list_executions(stateMachineArn=self.state_machine)["executions"]
        described = (
            self._step_functions.describe_execution(executionArn=execution["executionArn"])
            for execution in listed
            if execution["name"] not in names
        )
        return known + tuple(Execution(found["name"], found["input"]) for found in described)


def _count_writes(
    before: tuple[StoredObject, ...], after: tuple[StoredObject, ...], call: Call, answer: AwsResponse
) -> tuple[StoredObject, ...]:
    """Counts the writes of each object, which moto's listing does not contain; each write is a version."""
    counts = {stored.key: stored.times_written for stored in before}
    if call.operation == "PutObject" and not answer.is_error:
        key = call.parameters["Key"]
        counts[key] = counts.get(key, 0) + 1
    return tuple(replace(stored, times_written=counts[stored.key]) for stored in after)


def _digest_of_response(response: dict[str, Any]) -> str:
    known = {name: part for name, part in response.items() if name not in _GENERATED_FIELDS}
    if "Successful" in known:  # SQS returns each accepted message with a generated id
        known["Successful"] = [entry["Id"] for entry in known["Successful"]]
    return _digest(json.dumps(known, sort_keys=True, default=str))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
