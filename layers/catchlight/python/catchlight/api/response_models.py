"""Models of the tasks API's responses. `docs/tasks-api.openapi.yaml` is generated from them.

Field names are in camelCase, as in the items of the tasks table. Fields without a value are omitted, never null. The
bodies of problems are in `problems.py`.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    Failure,
    ImageKind,
    ImageState,
    Media,
    Metadata,
    Model,
    ProviderRecord,
    Reference,
    Reporter,
    TaskStatus,
    iso,
)

# Statuses of tasks whose processing has ended. Only a later report or an operator can change them.
FINAL_STATUSES = frozenset(
    {
        TaskStatus.ARCHIVED,
        TaskStatus.INCOMPLETE,
        TaskStatus.UNCONFIRMED,
        TaskStatus.FAILED,
        TaskStatus.TIMED_OUT,
    }
)
# A time in ISO 8601 in UTC, as in the table.
Time = Annotated[str, BeforeValidator(lambda value: iso(value) if isinstance(value, datetime) else value)]


class ResponseModel(Model):
    """Base of response models. Clients must ignore unknown fields: a later version may add fields."""

    # Validators are built at import, not by the first request.
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False}, defer_build=False)


class NewTask(ResponseModel):
    """A task that was registered or submitted."""

    task: Annotated[str, Field(description="Key in the tasks table, `{provider}#{taskId}`.")]
    provider: str
    task_id: str
    outcome: Annotated[
        Literal["registered", "known", "submitted"],
        Field(
            description="`known`: the task was registered before, or its callback arrived before the registration. "
            "Only `registeredAt`, `metadata` and `ref` are added, if the task lacks them."
        ),
    ]


class RegisteredTasks(ResponseModel):
    """The outcome for each task id, in the order of the request."""

    tasks: tuple[NewTask, ...]


class QuarantineResponse(ResponseModel):
    """The S3 object with the bytes that were downloaded from an image's URL and not archived."""

    key: str
    bytes: int
    sha256: Annotated[str, Field(description="SHA-256 of the bytes in hexadecimal digits.")]


class ImageResponse(ResponseModel):
    """One image of a task."""

    kind: ImageKind
    index: Annotated[
        int, Field(ge=0, lt=MAX_IMAGES_PER_TASK, description="Index among the images of this kind, from 0.")
    ]
    state: ImageState
    link: Annotated[
        str | None,
        Field(description="Presigned URL of the archived image, for GET requests. Valid until `linkExpiresAt`."),
    ] = None
    link_expires_at: Time | None = None
    url: Annotated[str, Field(description="URL of the image at the provider. It may not work after `expiresAt`.")]
    expires_at: Time
    bucket: str | None = None
    key: str | None = None
    bytes: int | None = None
    sha256: Annotated[str | None, Field(description="SHA-256 of the bytes in hexadecimal digits.")] = None
    content_type: str | None = None
    width: Annotated[int | None, Field(description="In pixels, before `orientation` is applied.")] = None
    height: int | None = None
    orientation: Annotated[
        int | None,
        Field(
            description="EXIF orientation, 2 to 8, if it is not the normal one (1). From 5 on, width and height are "
            "swapped for display."
        ),
    ] = None
    trailing_bytes: Annotated[
        int | None,
        Field(description="Number of bytes after the end of the image data, such as a gain map or padding."),
    ] = None
    archived_at: Time | None = None
    reason: Annotated[str | None, Field(description="Why the image could not be archived.")] = None
    quarantine: Annotated[
        QuarantineResponse | None,
        Field(
            description="Bytes of the image in quarantine, if there are any. `GET .../images/{image}?quarantined=true` "
            "redirects to them."
        ),
    ] = None


class SkippedResponse(ResponseModel):
    """An output that is not an image. It is not copied into the bucket."""

    media: Media
    url: Annotated[
        str | None,
        Field(description="URL of the output at the provider. Missing if the output is a text, or the URL too long."),
    ] = None


class FailureResponse(Failure, ResponseModel):
    """Why a task has no archived images, with the provider's code and message. All providers have the same reasons."""

    message: str = ""  # without the limit of stored messages: a later version of the stack may have a higher one


class ProviderRecordResponse(ProviderRecord, ResponseModel):
    """Fields of the provider's own record of the task, other than its result, as far as the provider reported them.

    Times are ISO 8601 in UTC. A time that cannot be parsed is stored as the provider sent it.
    """


class ConflictResponse(ResponseModel):
    """A report that contradicts another report of the task. It is stored as evidence; the task has the other result."""

    reported_by: Reporter
    reported_at: Time
    status: TaskStatus
    urls: tuple[str, ...] = ()
    failure: FailureResponse | None = None


class TaskResponse(ResponseModel):
    """One task. Times are ISO 8601 in UTC, `2026-01-31T12:00:00.000Z`."""

    task: Annotated[str, Field(description="Key in the tasks table, `{provider}#{taskId}`.")]
    provider: str
    task_id: str
    status: TaskStatus
    done: Annotated[
        bool,
        Field(
            description="Whether the status is ARCHIVED, INCOMPLETE, UNCONFIRMED, FAILED or TIMED_OUT: further waiting "
            "rarely changes it."
        ),
    ]
    images: tuple[ImageResponse, ...] = ()
    skipped: Annotated[
        tuple[SkippedResponse, ...],
        Field(description="Outputs that are not images, such as videos. A task with only such outputs is INCOMPLETE."),
    ] = ()
    failure: FailureResponse | None = None
    request: Annotated[
        dict[str, Any] | None,
        Field(
            description="Parameters of the request for images, from the submission or as far as the provider reported "
            "them: `prompt`, `model`, `size`, `seeds`."
        ),
    ] = None
    provider_record: ProviderRecordResponse | None = None
    metadata: Annotated[Metadata | None, Field(description="Your own data, from the submission or registration.")] = (
        None
    )
    ref: Annotated[
        Reference | None,
        Field(description="Your own reference, from the submission, the registration or the callback URL (`?ref=`)."),
    ] = None
    reported_by: Reporter | None = None
    confirmed_at: Annotated[
        Time | None,
        Field(description="Time at which the provider's answer to a status request confirmed the callback's result."),
    ] = None
    accepted_at: Annotated[
        Time | None,
        Field(
            description="Time at which an operator accepted a callback's result that the provider had not confirmed."
        ),
    ] = None
    hinted_at: Annotated[
        Time | None,
        Field(
            description="Time at which a success without a result image was reported, or an unconfirmed success was "
            "reported again. The provider is polled for the result."
        ),
    ] = None
    deliveries: Annotated[
        int,
        Field(description="Number of callbacks that changed the task or are stored as evidence, without repetitions."),
    ] = 0
    conflicts: tuple[ConflictResponse, ...] = ()
    idempotency_key: Annotated[str | None, Field(description="`Idempotency-Key` of the submission.")] = None
    arrived_at: Annotated[Time | None, Field(description="Time of the first write of this task to the table.")] = None
    registered_at: Time | None = None
    reported_at: Annotated[Time | None, Field(description="Time of the report that has the task's result.")] = None
    archived_at: Annotated[
        Time | None, Field(description="Time at which the state of the last image became final.")
    ] = None
    updated_at: Annotated[
        Time | None, Field(description="Time of the last change. Lists with a `status` are sorted by it.")
    ] = None


class TaskPage(ResponseModel):
    """A page of tasks, newest first; with a status filter, the most recently changed first."""

    tasks: tuple[TaskResponse, ...]
    cursor: Annotated[str | None, Field(description="Cursor of the next page. Missing on the last page.")] = None
    unreadable: Annotated[
        tuple[str, ...], Field(description="Keys of malformed items, which were edited by hand.")
    ] = ()
    malformed_attributes: Annotated[
        dict[str, str] | None,
        Field(description="The names of the malformed attributes of each item in `unreadable`, by the item's key."),
    ] = None

    @property
    def unreadable_reasons(self) -> dict[str, str]:
        """Returns the malformed attributes of each unreadable item, by key. An older stack does not return them."""
        known = self.malformed_attributes or {}
        return {key: known.get(key, "unknown attributes") for key in self.unreadable}
