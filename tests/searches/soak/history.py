"""Records every change of the tasks table and every object that was put, with writer and time, in commit order."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from boto3.dynamodb.types import TypeDeserializer
from moto.dynamodb.models.table import StreamShard

from local.moto.calls import AwsCall
from local.moto.responses import AwsResponse
from tests.searches.soak.callers import Delivery
from tests.searches.soak.reported_state import ReportedState

_deserialize = TypeDeserializer().deserialize


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One entry of an item's `images`."""

    path: str
    state: str
    key: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The relevant attributes of an item."""

    reported: ReportedState  # with status SUCCEEDED also if the images are archived
    status: str
    rank: int
    reported_by: str | None
    is_confirmed: bool
    images: tuple[ImageRecord, ...]
    conflicts: tuple[ReportedState, ...]
    has_request: bool  # the request of the task is stored

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
            tuple(
                ImageRecord(path, image["state"], image.get("key"), image.get("sha256"))
                for path, image in zip(reported.paths, images, strict=True)
            ),
            tuple(
                ReportedState.of_urls(
                    conflict["status"], conflict.get("urls", []), conflict.get("failure", {}).get("reason")
                )
                for conflict in item.get("conflicts", [])
            ),
            "request" in item,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One write to an item."""

    task: str
    at: float
    writer: str  # the function; empty: a client outside of the stack
    before: TaskRecord | None
    after: TaskRecord | None
    sequence_number: str


@dataclass(frozen=True, slots=True)
class Put:
    """One object that S3 accepted."""

    key: str
    at: float
    writer: str
    sha256: str | None  # base64, from the request


@dataclass
class History:
    """The data for all checks."""

    changes: list[Change] = field(default_factory=list)
    puts: list[Put] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    said: dict[tuple[str, ReportedState], float] = field(
        default_factory=dict
    )  # reports of providers, and the first time of each

    def changes_by_task(self) -> dict[str, list[Change]]:
        by_task: dict[str, list[Change]] = {}
        for change in self.changes:
            by_task.setdefault(change.task, []).append(change)
        return by_task


class Recorder:
    """Records changes of a stack's table and bucket; `around` wraps moto directly, behind any injected fault."""

    def __init__(self) -> None:
        self.history = History()
        self._latest: dict[str, TaskRecord] = {}
        self._lock = threading.Lock()
        self._writer: ContextVar[str] = ContextVar("writer", default="")

    def latest(self) -> dict[str, TaskRecord]:
        """Returns the items as the last change left them, by task."""
        with self._lock:
            return dict(self._latest)

    def around(self, application: WSGIApplication) -> WSGIApplication:
        def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            call = AwsCall.of(environ)
            token = self._writer.set(call.function if call else "")
            try:
                if call is None or call.operation != "PutObject":
                    return application(environ, start_response)
                answer = AwsResponse.of(application, environ)
                if answer.status.startswith("200"):
                    checksum = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
                    with self._lock:
                        self.history.puts.append(Put(call.subject, time.time(), call.function, checksum))
                return answer.send(start_response)
            finally:
                self._writer.reset(token)

        return respond

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Records every stream record written in this block; must be entered before the stack starts."""
        add = StreamShard.add

        def add_and_note(shard: StreamShard, old: Any, new: Any) -> None:
            add(shard, old, new)
            self._note(shard.items[-1].to_json()["dynamodb"])

        with mock.patch.object(StreamShard, "add", add_and_note):
            yield

    def _note(self, record: Mapping[str, Any]) -> None:
        task = str(record["Keys"]["task"]["S"])
        # moto creates an item in two steps and writes a record of the first, which has only the key.
        before, after = (
            TaskRecord.of(image) if "status" in (image := record.get(name, {})) else None
            for name in ("OldImage", "NewImage")
        )
        if before is None and after is None:
            return
        with self._lock:
            # One object for both the state after a change and the state before the next one.
            known = self._latest.get(task)
            before = known if known == before else before
            self.history.changes.append(
                Change(task, time.time(), self._writer.get(), before, after, str(record["SequenceNumber"]))
            )
            if after is None:
                self._latest.pop(task, None)
            else:
                self._latest[task] = after
