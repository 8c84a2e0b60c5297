"""Models of the tasks API's requests and responses. `docs/tasks-api.openapi.yaml` is generated from them.

Field names are in camelCase, as in the items of the tasks table. Fields without a value are omitted, never null.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    MAX_METADATA_VALUE_LENGTH,
    MAX_PARAMETERS_BYTES,
    METADATA_NAME_PATTERN,
    TASK_ID_PATTERN,
    FailureReason,
    ImageKind,
    ImageState,
    LastAnswer,
    Media,
    Metadata,
    Reference,
    Reporter,
    TaskId,
    TaskStatus,
    iso,
)
from catchlight.providers import PROVIDER_ID_PATTERN, PROVIDERS

# One BatchGetItem accepts this many keys; a hundred conditional writes take about half a second.
MAX_TASKS_PER_REGISTRATION = 100
MAX_TASKS_PER_PAGE = 100
DEFAULT_TASKS_PER_PAGE = 50
# The HTTP API and many proxies close a connection after 30 s. To wait longer, clients repeat the request.
MAX_WAIT_SECONDS = 20
# A link expires when the session ends whose credentials signed it, even if its own lifetime is longer. Sessions of a
# function's role last for hours, but their remaining time is unknown. Therefore one hour is the longest lifetime.
MAX_LINK_SECONDS = 3600
MIN_LINK_SECONDS = 60
DEFAULT_LINK_SECONDS = 900
MAX_CURSOR_LENGTH = 4096
METADATA_FILTER_PATTERN = METADATA_NAME_PATTERN.removesuffix("$") + "=.*$"
MAX_METADATA_FILTER_LENGTH = 64 + len("=") + MAX_METADATA_VALUE_LENGTH
IDEMPOTENCY_KEY_PATTERN = TASK_ID_PATTERN
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


def _known_provider(provider_id: str) -> str:
    if provider_id not in PROVIDERS:
        raise ValueError(f"no such provider; known: {', '.join(PROVIDERS)}")
    return provider_id


def _time_with_zone(value: Any) -> Any:
    # Replaces pydantic's own parsing, which reads "7" as seven seconds after the epoch.
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError("should be a time with a time zone, like 2026-01-31T12:00:00Z")


ProviderId = Annotated[
    str, AfterValidator(_known_provider), WithJsonSchema({"type": "string", "pattern": PROVIDER_ID_PATTERN})
]
Moment = Annotated[
    datetime, BeforeValidator(_time_with_zone), WithJsonSchema({"type": "string", "format": "date-time"})
]
# A time in ISO 8601 in UTC, as in the table.
Time = Annotated[str, BeforeValidator(lambda value: iso(value) if isinstance(value, datetime) else value)]
IdempotencyKey = Annotated[str, StringConstraints(pattern=IDEMPOTENCY_KEY_PATTERN)]
LinkSeconds = Annotated[int, Field(ge=MIN_LINK_SECONDS, le=MAX_LINK_SECONDS)]


class Message(BaseModel):
    """Base of all request and response models: immutable, with field names in camelCase."""

    # Validation errors omit the input, because it contains prompts and URLs.
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True)


class RequestModel(Message):
    """Base of request models. Unknown fields are refused, because they are probably misspelled."""

    model_config = ConfigDict(extra="forbid")


class ResponseModel(Message):
    """Base of response models. Clients must ignore unknown fields: a later version may add fields."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


# ------------------------------------------------------------------------------------------------ requests


class Registration(RequestModel):
    """Tasks to register that were submitted elsewhere: they are polled if their callbacks do not arrive."""

    provider: ProviderId
    task_ids: Annotated[tuple[TaskId, ...], Field(min_length=1, max_length=MAX_TASKS_PER_REGISTRATION)]
    metadata: Annotated[
        Metadata | None,
        Field(
            description="Your own data. It is stored with each of these tasks that has no metadata yet. At most 2,048 "
            "bytes as JSON."
        ),
    ] = None
    ref: Annotated[
        Reference | None,
        Field(description="Your own reference. It is stored with each of these tasks that has no reference yet."),
    ] = None


class Submission(RequestModel):
    """A request for images. It is sent to the provider unchanged, except that the callback URL is added."""

    provider: ProviderId
    endpoint: Annotated[
        str | None,
        Field(
            description="Endpoint of the provider: the last part of its path. Default: the provider's first endpoint. "
            + "; ".join(f"{name}: {', '.join(provider.submit_paths)}" for name, provider in PROVIDERS.items()),
            json_schema_extra={"enum": sorted({name for each in PROVIDERS.values() for name in each.submit_paths})},
        ),
    ] = None
    request: Annotated[
        dict[str, Any],
        Field(
            min_length=1,
            description="Body of the request as the provider documents it, without the callback URL: `prompt` etc.",
        ),
    ]
    metadata: Annotated[
        Metadata | None,
        Field(
            description="Your own data. It is stored with the task and not sent to the provider. At most 2,048 bytes "
            "as JSON."
        ),
    ] = None
    ref: Annotated[
        Reference | None,
        Field(description="Your own reference. It is stored with the task and not sent to the provider."),
    ] = None


class LinkQuery(RequestModel):
    """Query parameters of requests that return image links."""

    link_seconds: Annotated[
        LinkSeconds,
        Field(
            description="Lifetime of image links in seconds. A link expires earlier if the session of the function's "
            "role ends, which is rare within an hour."
        ),
    ] = DEFAULT_LINK_SECONDS


class ImageQuery(LinkQuery):
    """Query parameters of requests for one image."""

    quarantined: Annotated[
        bool,
        Field(
            description="Whether to redirect to the image's bytes in quarantine instead of the archived image. They "
            "come from an untrusted server, may not be an image, and are served as a download."
        ),
    ] = False


class TaskQuery(LinkQuery):
    """Query parameters of requests for one task."""

    wait: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="Responds when the task is done (see `done`), or after this number of seconds.",
        ),
    ] = 0


class PageQuery(LinkQuery):
    """Query parameters of the list of tasks: filters, page size and cursor."""

    status: Annotated[
        TaskStatus | None,
        Field(
            description="Only tasks with this status, the latest change first. Without a status, the latest arrival is "
            "first."
        ),
    ] = None
    provider: Annotated[
        ProviderId | None,
        Field(
            description="Only tasks of this provider. A page may then have fewer tasks than `limit`, or none, although "
            "it has a cursor."
        ),
    ] = None
    since: Annotated[
        Moment | None,
        Field(
            description="Only tasks that arrived at this time or later. With `status`: only tasks whose last change "
            "was at this time or later. A time with a time zone: `2026-01-31T12:00:00Z`."
        ),
    ] = None
    ref: Annotated[
        Reference | None,
        Field(description="Only tasks with this `ref`. A page may be empty although it has a cursor."),
    ] = None
    metadata: Annotated[
        str | None,
        Field(
            pattern=METADATA_FILTER_PATTERN,
            max_length=MAX_METADATA_FILTER_LENGTH,
            description="Only tasks with this metadata: `NAME=VALUE`. A page may be empty although it has a cursor.",
        ),
    ] = None
    reason: Annotated[
        FailureReason | None,
        Field(description="Only tasks whose `failure` has this reason. A page may be empty although it has a cursor."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_TASKS_PER_PAGE, description="Maximum number of tasks per page.")] = (
        DEFAULT_TASKS_PER_PAGE
    )
    cursor: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_CURSOR_LENGTH,
            description="`cursor` of the previous page. Opaque: pass it on unchanged, with the same filters.",
        ),
    ] = None


# ------------------------------------------------------------------------------------------------ responses


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


class FailureResponse(ResponseModel):
    """Why a task has no archived images, with the provider's code and message. All providers have the same reasons."""

    reason: FailureReason
    code: str | None = None
    message: str = ""
    last_answer: Annotated[
        LastAnswer | None,
        Field(description="Outcome of the last status request. Only for the statuses TIMED_OUT and UNCONFIRMED."),
    ] = None


class ProviderRecordResponse(ResponseModel):
    """Fields of the provider's own record of the task, other than its result, as far as the provider reported them.

    Times are ISO 8601 in UTC. A time that cannot be parsed is stored as the provider sent it.
    """

    created_at: Annotated[str | None, Field(description="Time at which the provider created the task.")] = None
    completed_at: Annotated[str | None, Field(description="Time at which the provider completed the task.")] = None
    trace_id: Annotated[
        str | None, Field(description="The provider's id of the task for questions to its support.")
    ] = None
    timings: Annotated[
        str | None,
        Field(description="Duration of the generation, as JSON. Ace Data: one entry per image; kie-market: seconds."),
    ] = None
    parameters: Annotated[
        str | None,
        Field(description=f"The request as the provider reports it: JSON, cut off at {MAX_PARAMETERS_BYTES} bytes."),
    ] = None


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


class ProviderReply(ResponseModel):
    """The provider's response. Secrets of this stack that it contains are overwritten."""

    status: Annotated[int, Field(description="HTTP status.")]
    body: Annotated[
        Any,
        Field(
            description="The decoded JSON; the first 4,000 characters as text if the body is longer, nested too deeply "
            "or not JSON."
        ),
    ] = None


class FieldProblem(ResponseModel):
    """An invalid field, parameter or header of a request."""

    at: Annotated[str, Field(description="Its name or path: `limit`, `taskIds.3`, `request.callBackUrl`.")]
    detail: str


class ProblemBody(ResponseModel):
    """Why a request failed, and what to do next: a problem body as defined by RFC 9457."""

    type: Annotated[str, Field(description="`urn:catchlight:problem:` followed by the problem's name.")]
    title: str
    status: int
    detail: str
    advice: Annotated[str, Field(description="What to do next.")]
    errors: Annotated[tuple[FieldProblem, ...], Field(description="One entry per invalid field.")] = ()
    provider_reply: ProviderReply | None = None
    task_id: Annotated[str | None, Field(description="Task that the submission created at the provider.")] = None
    asked_at: Annotated[
        str | None, Field(description="Time at which the request was sent to the provider with this key.")
    ] = None


class ApiMessage(BaseModel):
    """An error response of API Gateway itself."""

    message: str
