"""Events for other programs: one each time a task reaches a status in which it is neither polled nor archived further.

`docs/task-event.schema.json` is generated from these models. Fields without a value are omitted, never null. Events do
not contain the providers' URLs: these expire, and their query strings are signatures.
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
    Task,
    TaskStatus,
    by_place,
    iso,
    split_task_key,
)

SOURCE = "catchlight"
DETAIL_TYPES = {
    TaskStatus.TIMED_OUT: "Task Timed Out",
    TaskStatus.FAILED: "Task Failed",
    TaskStatus.UNCONFIRMED: "Task Unconfirmed",
    TaskStatus.INCOMPLETE: "Task Incomplete",
    TaskStatus.ARCHIVED: "Task Archived",
}
# Part of the contract: consumers that store or forward details can rely on this maximum size.
MAX_DETAIL_BYTES = 25_000
# As JSON. A reason is a sentence of this package that contains at most a host name; 32 reasons of this length fit into
# an event with all other fields.
MAX_REASON_BYTES = 300
# Must never change: otherwise a repeated event would get another id than the first one.
EVENT_IDS = uuid.UUID("2f0c1c5e-64f5-4f0b-9a37-0d3a52d9c1b8")

WITH_IMAGES = (TaskStatus.UNCONFIRMED, TaskStatus.INCOMPLETE, TaskStatus.ARCHIVED)
WITH_FAILURE = (TaskStatus.TIMED_OUT, TaskStatus.FAILED, TaskStatus.UNCONFIRMED)
_TIMES = ("registered_at", "reported_at", "confirmed_at", "archived_at")


class ArchivedImage(Model):
    """An image that is archived in the bucket."""

    kind: ImageKind
    index: Annotated[NonNegativeInt, Field(description="Counts within its kind.")]
    state: Literal[ImageState.ARCHIVED]
    bucket: str
    key: str
    bytes: NonNegativeInt
    sha256: Annotated[str, Field(description="Of its bytes, in hexadecimal digits.")]
    content_type: str
    width: Annotated[PositiveInt, Field(description="In pixels, as stored. See `orientation`.")]
    height: PositiveInt
    orientation: Annotated[
        int | None,
        Field(
            ge=2,
            le=8,
            description="The EXIF orientation, if the image is shown otherwise than stored. From 5 on, width and "
            "height are exchanged.",
        ),
    ] = None
    trailing_bytes: Annotated[
        PositiveInt | None,
        Field(description="How many of its bytes follow the image's own end: a gain map, a phone's data, padding."),
    ] = None


class MissingImage(Model):
    """An image that could not be archived."""

    kind: ImageKind
    index: Annotated[NonNegativeInt, Field(description="Counts within its kind.")]
    state: Literal[ImageState.EXPIRED, ImageState.REJECTED]
    reason: Annotated[str, Field(description=f"Cut where it would take more than {MAX_REASON_BYTES} bytes.")]
    quarantine: Annotated[
        Quarantined | None,
        Field(description="The object of the bucket with the bytes that its URL returned, if they were kept."),
    ] = None


class UnconfirmedImage(Model):
    """An image of an UNCONFIRMED task."""

    kind: ImageKind
    index: Annotated[NonNegativeInt, Field(description="Counts within its kind.")]
    state: Literal[ImageState.PENDING]
    quarantine: Annotated[
        Quarantined | None,
        Field(description="The object of the bucket with its bytes; missing if its URL could not be downloaded."),
    ] = None


class TaskEvent(Model):
    """The detail of an event: the task at the time when it reached its status. Times are ISO 8601 in UTC."""

    event_id: Annotated[
        str,
        Field(
            description="The same each time this event is delivered, which may be more than once.",
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
            description="When the task arrived at the status. Of two events of a task, the later one is current.",
            json_schema_extra={"format": "date-time"},
        ),
    ]
    registered_at: str | None = None
    reported_by: Annotated[Reporter | None, Field(description="The source of a report.")] = None
    reported_at: str | None = None
    confirmed_at: Annotated[
        str | None,
        Field(description="When the provider, asked by Catchlight, confirmed its callback; missing if it never did."),
    ] = None
    archived_at: Annotated[str | None, Field(description="When the last image was settled.")] = None
    metadata: Annotated[Metadata | None, Field(description="The user's own, from the submission or registration.")] = (
        None
    )
    ref: Annotated[Reference | None, Field(description="The user's own, from the request or the callback URL.")] = None
    provider_record: Annotated[
        RecordSummary | None,
        Field(description="What the provider's own record says of the task, as far as it is told."),
    ] = None
    failure: Annotated[Failure | None, Field(description="Of FAILED, TIMED_OUT and UNCONFIRMED.")] = None
    images: Annotated[
        tuple[Annotated[ArchivedImage | MissingImage | UnconfirmedImage, Field(discriminator="state")], ...],
        Field(description="Of ARCHIVED, where all results are in the bucket, INCOMPLETE and UNCONFIRMED. Else empty."),
    ]
    skipped: Annotated[
        tuple[Media, ...] | None,
        Field(description="Outputs that are no images. A task that has no other outputs is INCOMPLETE."),
    ] = None

    @classmethod
    def of(cls, item: Mapping[str, Any], *, written_at: datetime) -> Self:
        """Builds the event of a task that has reached its status, from its item in DynamoDB's JSON format.

        `written_at` replaces a missing or invalid `updatedAt`, for items that were written by hand.

        Raises:
            TaskEventError: the item was edited by hand and lacks required attributes or has invalid ones.
        """
        try:
            task = Task.model_validate({name: from_attribute(value) for name, value in item.items()})
            provider, task_id = split_task_key(task.task)
            changed_at = _time_or_none(task.updated_at) or written_at
            facts = task.model_dump(include={"task", "status", "reported_by", "metadata", "ref", *_TIMES})
            return cls.model_validate(
                facts
                | {"event_id": event_id(task.task, task.status, changed_at), "changed_at": iso(changed_at)}
                | {"provider": provider, "task_id": task_id}
                | {"provider_record": task.provider_record and task.provider_record.summary}
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
    def _images_agree_with_the_status(self) -> Self:
        if self.status is not TaskStatus.UNCONFIRMED and any(isinstance(i, UnconfirmedImage) for i in self.images):
            raise ValueError("an image is PENDING, and the task is not UNCONFIRMED")
        results = [image for image in self.images if image.kind is ImageKind.RESULT]
        if self.status is TaskStatus.ARCHIVED and not all(isinstance(image, ArchivedImage) for image in results):
            raise ValueError("the task is ARCHIVED, and a result is not")
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


def arrives(status: str | None, old_status: str | None) -> bool:
    """Decides whether a change from `old_status` (None for a new item) to `status` is published as an event."""
    # The archiver, repeated callbacks and users also write items without changing the status.
    if {status, old_status} == {TaskStatus.TIMED_OUT, TaskStatus.UNCONFIRMED}:  # they share a pattern of the filter
        return False
    return status in DETAIL_TYPES and old_status not in (status, PROBE_STATUS)


def event_id(task: str, status: TaskStatus, changed_at: datetime) -> str:
    """Returns the id of an event: a version 5 UUID of task, status and time, so a repeated event has the same id."""
    return str(uuid.uuid5(EVENT_IDS, f"{task} {status} {iso(changed_at)}"))


def cut(text: str, max_bytes: int) -> str:
    """Shortens a text to at most `max_bytes` in JSON, without the quotes; a shortened text ends with an ellipsis."""
    if _size(text) <= max_bytes:
        return text
    room = max_bytes - _size("…")
    kept = sum(size <= room for size in accumulate(map(_size, text)))
    return f"{text[:kept]}…"


def _size(text: str) -> int:
    return len(to_json(text)) - len('""')


def _images(task: Task) -> Iterator[dict[str, Any]]:
    for (kind, index), image in by_place(task.images).items():
        if task.status is TaskStatus.UNCONFIRMED and image.state is not ImageState.PENDING:
            continue  # edited by hand
        settled = image.model_dump() | {"kind": kind, "index": index}
        yield settled | {"reason": cut(image.reason or "", MAX_REASON_BYTES)}


def _time_or_none(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
