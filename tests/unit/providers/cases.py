"""Provides the building blocks of the expectation tables, and reads bodies from files under events/."""

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from catchlight.errors import ProviderError
from catchlight.models import (
    Failure,
    FailureReason,
    Image,
    ImageKind,
    LastAnswer,
    Reporter,
    SkippedOutput,
    TaskReport,
    TaskStatus,
)

EVENTS = Path(__file__).parents[3] / "events"
# Three minutes after the times in recorded NanoBanana answers, and later than all times in the documentation.
RECEIVED_AT = datetime.fromisoformat("2026-01-06T00:20:00Z")


@dataclass(frozen=True)
class ExpectedReport:
    """The expected content of a report, without its reporter and time."""

    task_id: str
    status: TaskStatus
    images: tuple[Image, ...] = ()
    failure: Failure | None = None
    answer: LastAnswer = LastAnswer.STILL_RUNNING
    remark: str = ""
    skipped: tuple[SkippedOutput, ...] = ()
    is_hint: bool = False
    is_unreadable: bool = False  # a success in which no image URL can be read; its answer is kept

    def report(self, provider: str, reported_by: Reporter) -> TaskReport:
        return TaskReport(
            provider=provider,
            task_id=self.task_id,
            status=self.status,
            reported_by=reported_by,
            reported_at=RECEIVED_AT,
            images=self.images,
            failure=self.failure,
            answer=self.answer,
            remark=self.remark,
            skipped=self.skipped,
            is_hint=self.is_hint,
        )


@dataclass(frozen=True)
class Refused:
    """A callback that is rejected with this message."""

    message: str


@dataclass(frozen=True)
class Poll:
    """A poll of these tasks, with the HTTP status of the answer and the expected result."""

    task_ids: tuple[str, ...]
    expected: list[ExpectedReport] | tuple[type[ProviderError], str]
    http_status: int = 200


def origin(url: str, expires_at: str) -> Image:
    return Image(kind=ImageKind.ORIGIN, url=url, expires_at=datetime.fromisoformat(expires_at))


def result(url: str, expires_at: str) -> Image:
    return Image(kind=ImageKind.RESULT, url=url, expires_at=datetime.fromisoformat(expires_at))


def unreadable(task_id: str, problem: str) -> ExpectedReport:
    message = f"the service reports a success, but no image URL in its answer can be read: {problem}"
    failure = Failure(reason=FailureReason.OTHER, message=message)
    return ExpectedReport(task_id, TaskStatus.FAILED, failure=failure, answer=LastAnswer.UNREADABLE, is_unreadable=True)


def succeeded(task_id: str, *images: Image, skipped: tuple[SkippedOutput, ...] = ()) -> ExpectedReport:
    return ExpectedReport(task_id, TaskStatus.SUCCEEDED, images=images, skipped=skipped)


def failed(task_id: str, reason: FailureReason, code: str | None, message: str) -> ExpectedReport:
    return ExpectedReport(task_id, TaskStatus.FAILED, failure=Failure(reason=reason, code=code, message=message))


def pending(task_id: str, answer: LastAnswer = LastAnswer.STILL_RUNNING, remark: str = "") -> ExpectedReport:
    return ExpectedReport(task_id, TaskStatus.PENDING, answer=answer, remark=remark)


def hint(task_id: str, remark: str = "success without an image URL") -> ExpectedReport:
    return ExpectedReport(task_id, TaskStatus.PENDING, remark=remark, is_hint=True)


def load(path: str) -> Any:
    """Reads a file under events/."""
    return json.loads((EVENTS / path).read_text(encoding="utf-8"))


def body_of(event: dict[str, Any]) -> Any:
    """Returns the JSON body of a callback event."""
    body = event["body"]
    return json.loads(base64.b64decode(body, validate=True) if event["isBase64Encoded"] else body)
