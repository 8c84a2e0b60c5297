"""Task events for other programs: one each time a task changes to a status in which its processing has ended.

`docs/task-event.schema.json` is generated from these models. Fields without a value are omitted, never null. Events do
not contain the providers' URLs: these expire, and their query strings contain signatures.
"""

import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import accumulate
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator
from pydantic_core import to_json

from catchlight.aws.dynamodb import from_attribute
from catchlight.errors import TaskEventError
from catchlight.models import (
    PROBE_STATUS,
    Failure,
    ImageKind,
    ImageState,
    Media,
    Metadata,
    Model,
    Quarantined,
    RecordSummary,
    Reference,
    Reporter,
    TaskStatus,
    by_place,
    iso,
    parse_time,
    split_task_key,
)
from catchlight.tasks.task import Task

SOURCE = "catchlight"
DETAIL_TYPES = {
    TaskStatus.TIMED_OUT: "Task Timed Out",
    TaskStatus.FAILED: "Task Failed",
    TaskStatus.UNCONFIRMED: "Task Unconfirmed",
    TaskStatus.INCOMPLETE: "Task Incomplete",
    TaskStatus.ARCHIVED: "Task Archived",
}
# Every event's detail is smaller than this. Consumers that store or forward events can rely on it.
MAX_DETAIL_BYTES = 25_000
# Limit for an image's `reason` as JSON. A reason is a sentence of this package that contains at most a host name; 32
# reasons of this length fit into an event with all other fields.
MAX_REASON_BYTES = 300
# The namespace of the events' ids. It must never change: a repeated event must have the id of the first one.
EVENT_IDS = uuid.UUID("2f0c1c5e-64f5-4f0b-9a37-0d3a52d9c1b8")

WITH_IMAGES = (TaskStatus.UNCONFIRMED, TaskStatus.INCOMPLETE, TaskStatus.ARCHIVED)
WITH_FAILURE = (TaskStatus.TIMED_OUT, TaskStatus.FAILED, TaskStatus.UNCONFIRMED)
# Attributes of the item that have the same meaning in an event.
_COPIED = {
    *("task", "status", "reported_by", "metadata", "ref", "provider_record"),
    *("registered_at", "reported_at", "confirmed_at", "archived_at"),
}


class ArchivedImage(Model):
    """An image that is archived in the bucket."""

    kind: ImageKind
    index: Annotated[NonNegativeInt, Field(description="Index among the images of this kind, from 0.")]
    state: Literal[ImageState.ARCHIVED]
    bucket: str
    key: str
    bytes: NonNegativeInt
    sha256: Annotated[str, Field(description="SHA-256 of the bytes in hexadecimal digits.")]
    content_type: str
    width: Annotated[PositiveInt, Field(description="In pixels, before `orientation` is applied.")]
    height: PositiveInt
    orientation: Annotated[
        int | None,
        Field(
            ge=2,
            le=8,
            description="EXIF orientation, if it is not the normal one (1). From 5 on, width and height are swapped "
            "for display.",
        ),
    ] = None
    trailing_bytes: Annotated[
        PositiveInt | None,
        Field(description="Number of bytes after the end of the image data, such as a gain map or padding."),
    ] = None


class MissingImage(Model):
    """An image that could not be archived."""

    kind: ImageKind
    index: Annotated[NonNegativeInt, Field(description="Index among the images of this kind, from 0.")]
    state: Literal[ImageState.EXPIRED, ImageState.REJECTED]
    reason: Annotated[
        str,
        Field(description=f"Why the image could not be archived; cut off at {MAX_REASON_BYTES} bytes."),
    ]
    quarantine: Annotated[
        Quarantined | None,
        Field(description="S3 object with the bytes that the image's URL returned. Missing if none were stored."),
    ] = None


class UnconfirmedImage(Model):
    """An image of an UNCONFIRMED task: it is not archived."""

    kind: ImageKind
    index: Annotated[NonNegativeInt, Field(description="Index among the images of this kind, from 0.")]
    state: Literal[ImageState.PENDING]
    quarantine: Annotated[
        Quarantined | None,
        Field(description="S3 object with the image's bytes. Missing if they could not be downloaded."),
    ] = None


class TaskEvent(Model):
    """The detail of an event: the task when its status changed. Times are ISO 8601 in UTC."""

    event_id: Annotated[
        str,
        Field(
            description="Id of the event. An event may be delivered several times, always with the same id.",
            json_schema_extra={"format": "uuid"},
        ),
    ]
    task: Annotated[str, Field(description="Key in the tasks table, `{provider}#{taskId}`.")]
    provider: str
    task_id: str
    status: Literal[
        TaskStatus.TIMED_OUT, TaskStatus.FAILED, TaskStatus.UNCONFIRMED, TaskStatus.INCOMPLETE, TaskStatus.ARCHIVED
    ]
    changed_at: Annotated[
        str,
        Field(
            description="Time at which the status changed. Of several events of a task, the latest is the current one.",
            json_schema_extra={"format": "date-time"},
        ),
    ]
    registered_at: str | None = None
    reported_by: Annotated[Reporter | None, Field(description="The source of the result.")] = None
    reported_at: str | None = None
    confirmed_at: Annotated[
        str | None,
        Field(description="Time at which a status request confirmed the callback's result. Missing if none did."),
    ] = None
    archived_at: Annotated[str | None, Field(description="Time at which the state of the last image became final.")] = (
        None
    )
    metadata: Annotated[
        Metadata | None, Field(description="The user's own metadata, from the submission or registration.")
    ] = None
    ref: Annotated[
        Reference | None,
        Field(description="The user's own reference, from the submission, the registration or the callback URL."),
    ] = None
    provider_record: Annotated[
        RecordSummary | None,
        Field(description="Fields of the provider's own record of the task, as far as the provider reported them."),
    ] = None
    failure: Annotated[
        Failure | None, Field(description="Reason of the statuses FAILED, TIMED_OUT and UNCONFIRMED.")
    ] = None
    images: Annotated[
        tuple[Annotated[ArchivedImage | MissingImage | UnconfirmedImage, Field(discriminator="state")], ...],
        Field(
            description="Images of ARCHIVED, INCOMPLETE and UNCONFIRMED tasks; empty for other statuses. Each result "
            "image of an ARCHIVED task is archived."
        ),
    ]
    skipped: Annotated[
        tuple[Media, ...] | None,
        Field(description="Types of the outputs that are not images. A task with only such outputs is INCOMPLETE."),
    ] = None

    @classmethod
    def of(cls, item: Mapping[str, Any], *, written_at: datetime) -> Self:
        """Builds the event of a task from its item in DynamoDB's JSON format.

        `written_at` replaces a missing or invalid `updatedAt` of an item that was written by hand.

        Raises:
            TaskEventError: the item was edited by hand and lacks required attributes or has invalid ones.
        """
        try:
            task = Task.model_validate({name: from_attribute(value) for name, value in item.items()})
            provider, task_id = split_task_key(task.task)
            changed_at = parse_time(task.updated_at, default_zone=UTC) or written_at
            facts = task.model_dump(include=_COPIED)
            return cls.model_validate(
                facts
                | {"event_id": event_id(task.task, task.status, changed_at), "changed_at": iso(changed_at)}
                | {"provider": provider, "task_id": task_id}
                | {"failure": task.failure if task.status in WITH_FAILURE else None}
                | {"images": list(_images(task)) if task.status in WITH_IMAGES else []}
                | {"skipped": [output.media for output in task.skipped] or None}
            )
        except ValidationError as exc:
            problems = (f"{'.'.join(map(str, error['loc'])) or 'task'}: {error['msg']}" for error in exc.errors())
            raise TaskEventError("; ".join(problems)) from exc
        except ValueError as exc:
            raise TaskEventError(str(exc)) from exc

    @model_validator(mode="after")
    def _images_agree_with_status(self) -> Self:
        if self.status is not TaskStatus.UNCONFIRMED and any(isinstance(i, UnconfirmedImage) for i in self.images):
            raise ValueError("an image is PENDING, but the task is not UNCONFIRMED")
        results = [image for image in self.images if image.kind is ImageKind.RESULT]
        if self.status is TaskStatus.ARCHIVED and not all(isinstance(image, ArchivedImage) for image in results):
            raise ValueError("the task is ARCHIVED, but a result image is not")
        return self

    @property
    def detail_type(self) -> str:
        """Returns the event's `detail-type`, which EventBridge rules match."""
        return DETAIL_TYPES[self.status]

    def detail(self) -> str:
        """Returns the event as JSON of less than `MAX_DETAIL_BYTES` in UTF-8.

        Raises:
            TaskEventError: the event would be larger, because the item was edited by hand.
        """
        text = self.model_dump_json(by_alias=True, exclude_none=True)
        if len(text.encode()) >= MAX_DETAIL_BYTES:
            raise TaskEventError(f"its event would have {len(text.encode())} bytes")
        return text


def is_published(status: str | None, old_status: str | None) -> bool:
    """Decides whether a change from `old_status` (None for a new item) to `status` is published as an event."""
    # No task changes directly from one of these statuses to the other, and the event source's filter excludes it.
    if {status, old_status} == {TaskStatus.TIMED_OUT, TaskStatus.UNCONFIRMED}:
        return False
    # The archiver, repeated callbacks and users also write items without changing the status.
    return status in DETAIL_TYPES and old_status not in (status, PROBE_STATUS)


def event_id(task: str, status: TaskStatus, changed_at: datetime) -> str:
    """Returns the id of an event: a version 5 UUID of task, status and time, so a repeated event has the same id."""
    return str(uuid.uuid5(EVENT_IDS, f"{task} {status} {iso(changed_at)}"))


def cut(text: str, max_bytes: int) -> str:
    """Shortens a text to `max_bytes` in JSON, not counting the quotes; a shortened text ends with an ellipsis."""
    if _json_size(text) <= max_bytes:
        return text
    room = max_bytes - _json_size("…")
    kept = sum(size <= room for size in accumulate(map(_json_size, text)))
    return f"{text[:kept]}…"


def _json_size(text: str) -> int:
    return len(to_json(text)) - len('""')


def _images(task: Task) -> Iterator[dict[str, Any]]:
    for (kind, index), image in by_place(task.images).items():
        if task.status is TaskStatus.UNCONFIRMED and image.state is not ImageState.PENDING:
            continue  # edited by hand
        fields = image.model_dump() | {"kind": kind, "index": index}
        yield fields | {"reason": cut(image.reason or "", MAX_REASON_BYTES)}
