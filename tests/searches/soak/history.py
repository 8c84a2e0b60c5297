"""Records all writes to the tasks table, PutObject calls, events, invocations, and the handling of SQS messages."""

import copy
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any
from unittest import mock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from boto3.dynamodb.types import TypeDeserializer
from moto.dynamodb.models.table import StreamRecord, StreamShard

from local.lambda_.runtime import Function, Sandbox
from local.lambda_.runtime_api import Invocation, InvocationResult
from local.moto.calls import AwsCall
from local.moto.responses import AwsResponse
from tests.searches.soak.callers import Delivery
from tests.searches.soak.reported_state import NOT_STREAMED, ReportedState

_deserialize = TypeDeserializer().deserialize


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One entry of an item's `images`."""

    path: str
    state: str
    key: str | None = None
    sha256: str | None = None
    kind: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    content_type: str | None = None
    quarantine_key: str | None = None
    quarantine_sha256: str | None = None

    @classmethod
    def of(cls, path: str, image: Mapping[str, Any]) -> "ImageRecord":
        numbers = {name: int(image[name]) for name in ("bytes", "width", "height") if image.get(name) is not None}
        quarantine = image.get("quarantine") or {}
        return cls(
            path,
            image["state"],
            image.get("key"),
            image.get("sha256"),
            image.get("kind"),
            content_type=image.get("contentType"),
            quarantine_key=quarantine.get("key"),
            quarantine_sha256=quarantine.get("sha256"),
            **numbers,
        )


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The relevant attributes of an item."""

    reported: ReportedState  # SUCCEEDED for every item with images, also after archiving
    status: str
    rank: int
    reported_by: str | None
    is_confirmed: bool
    images: tuple[ImageRecord, ...]
    conflicts: tuple[ReportedState, ...]
    has_request: bool  # whether the item has the generation request
    updated_at: str | None = None

    @classmethod
    def of(cls, image: Mapping[str, Any]) -> "TaskRecord":
        """Converts a stream record's old or new image, or an item from DynamoDB."""
        item = {name: _deserialize(value) for name, value in image.items()}
        status = item["status"]
        images = item.get("images", [])
        reported = ReportedState.of_urls(
            "SUCCEEDED" if images else status,
            [image["url"] for image in images],
            item.get("failure", {}).get("reason") if status == "FAILED" else None,
        )
        return cls(
            reported,
            status,
            int(item.get("rank", 0)),
            item.get("reportedBy"),
            "confirmedAt" in item,
            tuple(ImageRecord.of(path, image) for path, image in zip(reported.paths, images, strict=True)),
            tuple(
                ReportedState.of_urls(
                    conflict["status"], conflict.get("urls", []), conflict.get("failure", {}).get("reason")
                )
                for conflict in item.get("conflicts", [])
            ),
            "request" in item,
            item.get("updatedAt"),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One write to an item."""

    task: str
    at: float
    writer: str  # name of the function; empty: a client outside the stack
    before: TaskRecord | None
    after: TaskRecord | None
    sequence_number: str


@dataclass(frozen=True, slots=True)
class Put:
    """One object that S3 accepted."""

    key: str
    at: float
    writer: str
    sha256: str | None  # in base64, from the request's checksum header


@dataclass(frozen=True, slots=True)
class Event:
    """One event that EventBridge accepted."""

    task: str
    status: str
    event_id: str
    changed_at: str
    at: float  # arrival of the call; the function may be killed before the response
    sandbox: str = ""  # the process that sent it
    call: str = ""  # the id that the SDK gives to one call with all its retries


@dataclass(slots=True)
class Run:
    """One invocation of a function; `ended` is infinite while it runs."""

    function: str
    begun: float
    ended: float = float("inf")
    has_failed: bool = True  # it raised an error, was killed, or returned batchItemFailures
    sandbox: str = ""  # the process that runs it; empty until the process starts it
    started: float = float("inf")  # time at which the process started it


@dataclass(slots=True)
class Handling:
    """The period in which one run handles a message: until the run ends or calls ChangeMessageVisibility."""

    task: str
    message_id: str
    begun: float
    ended: float = float("inf")


@dataclass
class History:
    """Everything that is recorded during a run, as input of the checks."""

    changes: list[Change] = field(default_factory=list)
    puts: list[Put] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    handlings: list[Handling] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    provider_reports: dict[tuple[str, ReportedState], float] = field(
        default_factory=dict
    )  # reports of providers, and the first time of each
    # Tasks whose message ArchiveImages itself moved to the dead-letter queue.
    moved_to_dead_letters: set[str] = field(default_factory=set)

    def copy(self) -> "History":
        """Returns a shallow copy: its lists can be changed independently."""
        return History(*(copy.copy(getattr(self, each.name)) for each in fields(self)))

    def changes_by_task(self) -> dict[str, list[Change]]:
        by_task: dict[str, list[Change]] = {}
        for change in self.changes:
            by_task.setdefault(change.task, []).append(change)
        return by_task


class Recorder:
    """Records the activity of a stack. `around` must wrap moto directly, to record only calls that reach moto."""

    def __init__(self) -> None:
        self.history = History()
        self._latest: dict[str, TaskRecord] = {}
        self._handled: dict[str, Handling] = {}  # messages in flight, by receipt handle
        self._lock = threading.Lock()
        self._writer: ContextVar[str] = ContextVar("writer", default="")
        self._run: ContextVar[Run] = ContextVar("run")

    def latest(self) -> dict[str, TaskRecord]:
        """Returns the current items by task."""
        with self._lock:
            return dict(self._latest)

    def around(self, application: WSGIApplication) -> WSGIApplication:
        def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            call = AwsCall.of(environ)
            token = self._writer.set(call.function if call else "")
            try:
                if call and call.operation == "ChangeMessageVisibility":
                    # Before the call: the message may be received again before its response arrives.
                    self._release([str(call.parameters.get("ReceiptHandle"))])
                if call and call.operation == "SendMessage" and "ArchiveDeadLetters" in call.parameters["QueueUrl"]:
                    with self._lock:
                        self.history.moved_to_dead_letters.add(json.loads(call.parameters["MessageBody"])["task"])
                if call is None or call.operation not in ("PutObject", "PutEvents"):
                    return application(environ, start_response)
                arrived_at = time.time()
                response = AwsResponse.of(application, environ)
                if response.status.startswith("200"):
                    self._record_response(call, response, environ, arrived_at)
                return response.send(start_response)
            finally:
                self._writer.reset(token)

        return respond

    def _record_response(
        self, call: AwsCall, response: AwsResponse, environ: WSGIEnvironment, arrived_at: float
    ) -> None:
        with self._lock:
            if call.operation == "PutObject":
                checksum = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
                self.history.puts.append(Put(call.subject, time.time(), call.function, checksum))
                return
            results = json.loads(response.body)["Entries"]
            for entry, result in zip(call.parameters["Entries"], results, strict=True):
                if "EventId" in result:
                    detail = json.loads(entry["Detail"])
                    facts = (detail["task"], detail["status"], detail["eventId"], detail["changedAt"])
                    sdk_call = environ.get("HTTP_AMZ_SDK_INVOCATION_ID", "")
                    self.history.events.append(Event(*facts, arrived_at, call.sandbox, sdk_call))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records all writes and runs within this context, which must be entered before the stack starts."""
        add, invoke, invoke_in_sandbox = StreamShard.add, Function.invoke, Sandbox.invoke

        def add_and_record(shard: StreamShard, old: Any, new: Any) -> None:
            if old is None and NOT_STREAMED in new.attrs:
                view = shard.table.stream_specification["StreamViewType"]
                record = StreamRecord(shard.table, view, "INSERT", old, new, 0)
            else:
                add(shard, old, new)
                record = shard.items[-1]
            self._record_change(record.to_json()["dynamodb"])

        def invoke_and_record(function: Function, payload: bytes) -> InvocationResult:
            run, receipts = self._begin(function.configuration.name, payload)
            token = self._run.set(run)
            try:
                outcome = invoke(function, payload)
                run.has_failed = _has_failed(outcome)
                return outcome
            finally:
                self._run.reset(token)
                run.ended = time.time()
                self._release(receipts)

        def start_and_record(sandbox: Sandbox, invocation: Invocation) -> InvocationResult:
            run = self._run.get()
            run.sandbox, run.started = sandbox.id, time.time()
            return invoke_in_sandbox(sandbox, invocation)

        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(StreamShard, "add", add_and_record))
            patches.enter_context(mock.patch.object(Function, "invoke", invoke_and_record))
            patches.enter_context(mock.patch.object(Sandbox, "invoke", start_and_record))
            yield

    def _begin(self, function: str, payload: bytes) -> tuple[Run, list[str]]:
        """Records the start of a run and of the handling of its messages. Returns the run and the receipt handles."""
        event = json.loads(payload or b"{}")
        records = event.get("Records", ()) if isinstance(event, dict) else ()
        messages = [record for record in records if record.get("eventSource") == "aws:sqs"]
        run = Run(function, time.time())
        with self._lock:
            self.history.runs.append(run)
            for message in messages:
                handling = Handling(json.loads(message["body"])["task"], message["messageId"], run.begun)
                self.history.handlings.append(handling)
                self._handled[message["receiptHandle"]] = handling
        return run, [message["receiptHandle"] for message in messages]

    def _release(self, receipts: Iterable[str]) -> None:
        with self._lock:
            for receipt in receipts:
                if handling := self._handled.pop(receipt, None):
                    handling.ended = time.time()

    def _record_change(self, record: Mapping[str, Any]) -> None:
        task = str(record["Keys"]["task"]["S"])
        # moto creates an item in two steps; the record of the first step has only the key.
        before, after = (
            TaskRecord.of(image) if "status" in (image := record.get(name, {})) else None
            for name in ("OldImage", "NewImage")
        )
        if before is None and after is None:
            return
        with self._lock:
            # Share one object between `after` of a change and `before` of the next one, to save memory.
            known = self._latest.get(task)
            before = known if known == before else before
            self.history.changes.append(
                Change(task, time.time(), self._writer.get(), before, after, str(record["SequenceNumber"]))
            )
            if after is None:
                self._latest.pop(task, None)
            else:
                self._latest[task] = after


def _has_failed(outcome: InvocationResult) -> bool:
    try:
        result = json.loads(outcome.payload or b"null")
    except ValueError:
        return True
    return outcome.function_error is not None or bool(isinstance(result, dict) and result.get("batchItemFailures"))
