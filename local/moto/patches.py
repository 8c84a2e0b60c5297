"""Corrects differences between moto and AWS. Each patch states its reason and has its own test.

`installed()` applies the patches while a stack runs and removes them afterwards.
"""

import base64
import hashlib
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaBackend
from moto.core.common_models import BaseModel
from moto.core.config import default_user_config
from moto.core.utils import unix_time_millis
from moto.dynamodb.models.dynamo_type import Item
from moto.dynamodb.models.table import StreamShard, Table
from moto.dynamodb.models.utilities import dynamo_json_dump
from moto.dynamodb.responses import DynamoHandler
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum
from moto.sqs.models import Message, Queue, SQSBackend
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from werkzeug.datastructures import Headers

from local.lambda_.runtime import TooManyRequestsError
from local.lambda_.runtime_api import InvocationResult

FunctionInvoker = Callable[[str, bytes], InvocationResult]
"""Runs the function with this name or ARN and returns its outcome. Raises KeyError if there is no such function."""

_SQS_LOCK = threading.RLock()
_STREAM_GREW = threading.Condition()


@contextmanager
def installed(
    time_scale: float,
    invoke_function: FunctionInvoker,
    lambda_client: Callable[[], Any],
    on_failure: Callable[[str, str], None],
) -> Iterator[None]:
    """Applies all patches until the end of the block. `on_failure(source, message)` is called for failed executions."""
    with ExitStack() as patches:
        for patch in (
            instances_not_kept(),
            atomic_dynamodb_calls(),
            items_sorted_by_values(),
            stream_without_idle_writes(),
            atomic_sqs_calls(),
            scaled_visibility(time_scale),
            scaled_delays(time_scale),
            put_object_as_s3_does(),
            functions_run_by(invoke_function),
            state_machines_execute(time_scale, lambda_client),
            failed_executions_are_reported(on_failure),
        ):
            patches.enter_context(patch)
        yield


@contextmanager
def instances_not_kept() -> Iterator[None]:
    """Frees the memory of replaced objects: moto keeps all former states of items, messages and executions in a list.

    The list serves moto's own API only. That of S3 is still filled, because moto closes the files of objects with it.
    """
    new = BaseModel.__new__

    def create(cls: type[BaseModel], *args: Any, **kwargs: Any) -> BaseModel:
        is_disposed = cls.__module__ == "moto.s3.models"
        instance: BaseModel = new(cls, *args, **kwargs) if is_disposed else super(BaseModel, cls).__new__(cls)
        return instance

    with mock.patch.object(BaseModel, "__new__", staticmethod(create)):
        yield


# ------------------------------------------------------------------------------------------------ DynamoDB


@contextmanager
def atomic_dynamodb_calls() -> Iterator[None]:
    """Serialises DynamoDB calls.

    moto checks a condition and writes the item in two steps, so the same condition could be true for several threads.
    """
    lock = threading.RLock()
    call_action = DynamoHandler.call_action

    def locked(self: DynamoHandler) -> Any:
        with lock:
            return call_action(self)

    with mock.patch.object(DynamoHandler, "call_action", locked):
        yield


class CompactRecord:
    """A stream record as compressed JSON: a stack that runs for days keeps tens of thousands, of a few KB each."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        change = dict(record["dynamodb"])
        self._created_at = change.pop("ApproximateCreationDateTime")
        text = dynamo_json_dump({**record, "dynamodb": change})
        self._text = zlib.compress(text.encode())

    def to_json(self) -> dict[str, Any]:
        """Returns the record as moto's StreamRecord does."""
        record: dict[str, Any] = json.loads(zlib.decompress(self._text))
        record["dynamodb"]["ApproximateCreationDateTime"] = self._created_at
        return record


@contextmanager
def items_sorted_by_values() -> Iterator[None]:
    """Sorts items by the values of their keys.

    moto sorts all items of a table for each Query, and converts the keys again for each comparison: with 10,000 tasks,
    a Query took twice the CPU time.
    """

    def all_items(table: Table) -> list[Item]:
        keys = [table.hash_key_attr], [table.range_key_attr]
        entries = table.items.values()
        items = [item for entry in entries for item in (entry.values() if table.range_key_attr else [entry])]
        ordered: list[Item] = table.sorted_items(*keys, items)
        return ordered

    def sorted_items(table: Table, hash_keys: list[str], range_keys: list[str | None], items: list[Item]) -> list[Item]:
        names = table._generate_attr_to_sort_by(hash_keys, range_keys)
        return sorted(items, key=lambda item: [item.attrs[name].cast_value for name in names])

    with (
        mock.patch.object(Table, "all_items", all_items),
        mock.patch.object(Table, "sorted_items", sorted_items),
    ):
        yield


@contextmanager
def stream_without_idle_writes() -> Iterator[None]:
    """Writes no stream record for an update that changes nothing, as in AWS, and wakes threads that wait for records.

    Records are kept compressed.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
    """
    add = StreamShard.add

    def add_change(self: StreamShard, old: Any, new: Any) -> None:
        if old is not None and new is not None and old.to_json() == new.to_json():
            return
        with _STREAM_GREW:
            known = len(self.items)
            add(self, old, new)
            if len(self.items) > known:
                self.items[-1] = CompactRecord(self.items[-1].to_json())
            _STREAM_GREW.notify_all()

    with mock.patch.object(StreamShard, "add", add_change):
        yield


def wait_for_records(shard: StreamShard, known: int, timeout: float) -> bool:
    """Waits until the shard holds more than `known` records, at most for the timeout, and returns whether it does."""
    with _STREAM_GREW:
        return _STREAM_GREW.wait_for(lambda: len(shard.items) > known, timeout)


# ------------------------------------------------------------------------------------------------ SQS


@contextmanager
def atomic_sqs_calls() -> Iterator[None]:
    """Serialises SQS calls: moto loses a message that is sent while another is deleted, and may deliver one twice.

    A waiting receive releases the lock and checks the queue every 50 ms. moto checks it once a second, so it would
    return a message up to a second after it has become visible again.
    """

    def locked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with _SQS_LOCK:
                return function(*args, **kwargs)

        return call

    receive = SQSBackend.receive_message

    def receive_message(
        self: SQSBackend, queue_name: str, count: int, wait_seconds_timeout: int, visibility_timeout: int, *rest: Any
    ) -> Any:
        deadline = time.monotonic() + wait_seconds_timeout
        while True:
            with _SQS_LOCK:
                messages = receive(self, queue_name, count, 0, visibility_timeout, *rest)
            remaining = deadline - time.monotonic()
            if messages or remaining <= 0:
                return messages
            wait_for_messages(self.get_queue(queue_name), min(remaining, 0.05))

    with ExitStack() as patches:
        for owner, name in (
            (Queue, "add_message"),
            (Queue, "delete_message"),
            (SQSBackend, "change_message_visibility"),
        ):
            patches.enter_context(mock.patch.object(owner, name, locked(getattr(owner, name))))
        patches.enter_context(mock.patch.object(SQSBackend, "receive_message", receive_message))
        yield


def wait_for_messages(queue: Queue, timeout: float) -> bool:
    """Waits until the queue has a message to receive, at most for the timeout, and returns whether it has."""
    condition = queue._messages_lock
    with condition:
        return bool(condition.wait_for(lambda: queue.messages, timeout))


@contextmanager
def scaled_visibility(time_scale: float) -> Iterator[None]:
    """Applies ChangeMessageVisibility in scaled time, so that a demo does not wait 45 s for a fourth attempt.

    The visibility timeout set by a receive is not scaled, because the work that it protects takes real time.

    A call with the receipt handle of an earlier receive has no effect. The SDK repeats a request that got no response
    after one real second, when the message may already have been received again in scaled time; moto would make the
    message visible while it is being handled.
    """
    change = SQSBackend.change_message_visibility

    def change_message_visibility(
        self: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        with _SQS_LOCK:
            messages = self.get_queue(queue_name)._messages
            message = next((each for each in messages if each.had_receipt_handle(receipt_handle)), None)
            if message and message.receipt_handle != receipt_handle:
                return
            change(self, queue_name, receipt_handle, visibility_timeout)
            assert message, "moto refuses an unknown receipt handle"
            message.visible_at = unix_time_millis() + int(visibility_timeout) * 1000 * time_scale
            message.visibility_set_by = receipt_handle

    with mock.patch.object(SQSBackend, "change_message_visibility", change_message_visibility):
        yield


@contextmanager
def scaled_delays(time_scale: float) -> Iterator[None]:
    """Delivers delayed messages in scaled time."""

    def delay(self: Message, delay_seconds: int) -> None:
        self.delayed_until = unix_time_millis() + int(delay_seconds) * 1000 * time_scale

    with mock.patch.object(Message, "delay", delay):
        yield


def scale_rest_of_visibility(queue: Queue, receipt_handle: str, time_scale: float) -> None:
    """Scales the remaining visibility timeout of a message whose handling failed.

    Does nothing if the function itself has set the timeout with ChangeMessageVisibility: that value is scaled already.
    """
    with _SQS_LOCK:
        message = _message(queue, receipt_handle)
        if message is not None and getattr(message, "visibility_set_by", None) != receipt_handle:
            now = unix_time_millis()
            message.visible_at = now + max(0.0, message.visible_at - now) * time_scale


def _message(queue: Queue, receipt_handle: str) -> Any:
    return next((message for message in queue._messages if message.receipt_handle == receipt_handle), None)


# ------------------------------------------------------------------------------------------------ S3


_CHECKSUM_TRAILER = re.compile(rb"\r\n0\r\n(?P<name>x-amz-checksum-\w+):(?P<value>[\w+/=]+)\r\n\r\n$")
_MAX_TRAILER_BYTES = 200


@contextmanager
def put_object_as_s3_does() -> Iterator[None]:
    """Makes PutObject reject a body that does not match its checksum, store the checksum, and write atomically.

    moto stores a checksum without comparing it (and drops it if the request names no algorithm), ignores a checksum in
    the trailer, and does not check whether the object exists (If-None-Match: *) and write it in one step.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
    """
    lock = threading.RLock()
    put, decode = S3Response.put_object, S3Response._handle_encoded_body

    def decode_with_trailer(self: S3Response, body: Any) -> bytes:
        encoded = body if isinstance(body, bytes) else body.read()
        if trailer := _CHECKSUM_TRAILER.search(encoded[-_MAX_TRAILER_BYTES:]):
            self.headers = Headers(self.headers)
            self.headers[trailer["name"].decode()] = trailer["value"].decode()
        decoded: bytes = decode(self, encoded)
        return decoded

    def put_object(self: S3Response) -> Any:
        body = self.body or b""
        sent = {}
        for algorithm in ("SHA256", "SHA1", "CRC32", "CRC32C", "CRC64NVME"):
            if value := self.headers.get(f"x-amz-checksum-{algorithm.lower()}"):
                sent[algorithm] = value
                computed = compute_checksum(body, algorithm)
                if value != (computed.decode() if isinstance(computed, bytes) else computed):
                    raise _bad_digest(f"The {algorithm} you specified did not match the calculated checksum.")
        content_md5 = self.headers.get("Content-MD5")
        if content_md5 and content_md5 != base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode():
            raise _bad_digest("The Content-MD5 you specified did not match what we received.")
        with lock:
            response = put(self)
            key = self.backend.get_object(self.bucket_name, self.parse_key_name())
            if key is not None:
                for algorithm, value in sent.items():
                    key.checksum_algorithm, key.checksum_value = algorithm, value
            return response

    with (
        mock.patch.object(S3Response, "put_object", put_object),
        mock.patch.object(S3Response, "_handle_encoded_body", decode_with_trailer),
    ):
        yield


def _bad_digest(message: str) -> S3ClientError:
    return S3ClientError("BadDigest", message)


# ------------------------------------------------------------------------------------------------ Lambda


@contextmanager
def functions_run_by(invoke_function: FunctionInvoker) -> Iterator[None]:
    """Makes Lambda's Invoke run the stack's own functions: moto would start Docker containers."""

    def invoke(
        _: LambdaBackend, function_name: str, _qualifier: Any, body: Any, _headers: Any, response_headers: Any
    ) -> bytes:
        payload = body if isinstance(body, bytes) else (body or "{}").encode()
        try:
            outcome = invoke_function(function_name, payload)
        except KeyError as exc:
            raise _lambda_error("ResourceNotFoundException", f"Function not found: {function_name}", 404) from exc
        except TooManyRequestsError as exc:
            raise _lambda_error("TooManyRequestsException", "Rate Exceeded.", 429) from exc
        if outcome.function_error:
            response_headers["x-amz-function-error"] = outcome.function_error
        return outcome.payload

    with mock.patch.object(LambdaBackend, "invoke", invoke):
        yield


def _lambda_error(code: str, message: str, status: int) -> LambdaClientError:
    error = LambdaClientError(code, message)
    error.code = status
    return error


# ------------------------------------------------------------------------------------------------ Step Functions


@contextmanager
def state_machines_execute(time_scale: float, lambda_client: Callable[[], Any]) -> Iterator[None]:
    """Executes state machines instead of only storing them, with scaled waits and scaled delays before retries."""

    def wait(self: WaitFunction, env: Any) -> None:
        # moto's own loop counts whole seconds, so a scaled wait of less than a second would never end.
        deadline = time.monotonic() + self._get_wait_seconds(env=env) * time_scale
        while env.is_running() and (remaining := deadline - time.monotonic()) > 0:
            env.program_state_event.wait(remaining)

    def client_for(**_: Any) -> Any:
        return lambda_client()

    clock = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * time_scale))
    with (
        mock.patch.dict(default_user_config, {"stepfunctions": {"execute_state_machine": True}}),
        mock.patch.object(WaitFunction, "_eval_body", wait),
        mock.patch.object(retrier_decl, "time", clock),
        # For each call moto creates a client for "localhost" from boto3's default session, which threads must not
        # share.
        mock.patch.object(lambda_eval_utils, "boto_client_for", client_for),
    ):
        yield


@contextmanager
def failed_executions_are_reported(on_failure: Callable[[str, str], None]) -> Iterator[None]:
    """Calls `on_failure` for failed executions, which moto records in the execution history only."""
    terminated = BaseExecutionWorkerCommunication.terminated

    def report_failure(self: BaseExecutionWorkerCommunication) -> None:
        terminated(self)
        execution = self.execution
        if execution.status in ("FAILED", "TIMED_OUT"):
            reason = f"{execution.error or execution.status}: {execution.cause or 'no cause given'}"
            on_failure(execution.state_machine.name, f"{reason} (execution {execution.name})")

    with mock.patch.object(BaseExecutionWorkerCommunication, "terminated", report_failure):
        yield
