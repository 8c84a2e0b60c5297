"""Models of the tasks API's requests and responses. `docs/tasks-api.openapi.yaml` is generated from them.

Field names are in camelCase, as in the items of the tasks table; absent values are left out, never null.
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

# The limit of one BatchGetItem; a hundred conditional writes take about half a second.
MAX_TASKS_PER_REGISTRATION = 100
MAX_TASKS_PER_PAGE = 100
DEFAULT_TASKS_PER_PAGE = 50
# The HTTP API and many proxies close the connection after 30 s. For longer waits clients repeat the request.
MAX_WAIT_SECONDS = 20
# A link expires with the session that signed it, even if its own lifetime is longer. Sessions of a function's role last
# for hours, but their remaining time is unknown: so no link has a lifetime of more than one hour.
MAX_LINK_SECONDS = 3600
MIN_LINK_SECONDS = 60
DEFAULT_LINK_SECONDS = 900
MAX_CURSOR_LENGTH = 4096
METADATA_FILTER_PATTERN = METADATA_NAME_PATTERN.removesuffix("$") + "=.*$"
MAX_METADATA_FILTER_LENGTH = 64 + len("=") + MAX_METADATA_VALUE_LENGTH
IDEMPOTENCY_KEY_PATTERN = TASK_ID_PATTERN
# Statuses at which processing has ended; only a late callback, a poll or a redrive can change them.
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
    raise ValueError("should be a time with its zone, like 2026-01-31T12:00:00Z")


ProviderId = Annotated[
    str, AfterValidator(_known_provider), WithJsonSchema({"type": "string", "pattern": PROVIDER_ID_PATTERN})
]
Moment = Annotated[
    datetime, BeforeValidator(_time_with_zone), WithJsonSchema({"type": "string", "format": "date-time"})
]
# ISO 8601 in UTC, as in the table.
Time = Annotated[str, BeforeValidator(lambda value: iso(value) if isinstance(value, datetime) else value)]
IdempotencyKey = Annotated[str, StringConstraints(pattern=IDEMPOTENCY_KEY_PATTERN)]
LinkSeconds = Annotated[int, Field(ge=MIN_LINK_SECONDS, le=MAX_LINK_SECONDS)]


class Message(BaseModel):
    """Base of all request and response models: frozen, with field names in camelCase."""

    # Validation errors must not contain inputs, which hold prompts and URLs.
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True)


class RequestModel(Message):
    """Base of request models. Unknown fields are refused, because they are probably typing errors."""

    model_config = ConfigDict(extra="forbid")


class ResponseModel(Message):
    """Base of response models. Clients must ignore unknown fields: a later version may add some."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


# ------------------------------------------------------------------------------------------------ asked


class Registration(RequestModel):
    """Registers tasks that were submitted elsewhere, so that they are polled if their callbacks do not arrive."""

    provider: ProviderId
    task_ids: Annotated[tuple[TaskId, ...], Field(min_length=1, max_length=MAX_TASKS_PER_REGISTRATION)]
    metadata: Annotated[
        Metadata | None,
        Field(description="Your own, kept with each of these tasks that has none. At most 2,048 bytes as JSON."),
    ] = None
    ref: Annotated[
        Reference | None, Field(description="Your own reference, kept with each of these tasks that has none.")
    ] = None


class Submission(RequestModel):
    """Submits an image request: it is sent to the provider unchanged, except that the callback URL is added."""

    provider: ProviderId
    endpoint: Annotated[
        str | None,
        Field(
            description="Which of the provider's endpoints, the last part of its path; the first unless told. "
            + "; ".join(f"{name}: {', '.join(provider.submit_paths)}" for name, provider in PROVIDERS.items()),
            json_schema_extra={"enum": sorted({name for each in PROVIDERS.values() for name in each.submit_paths})},
        ),
    ] = None
    request: Annotated[
        dict[str, Any],
        Field(
            min_length=1,
            description="The body that the provider documents, without its callback URL: `prompt` and so on.",
        ),
    ]
    metadata: Annotated[
        Metadata | None,
        Field(description="Your own, kept with the task and not sent to the provider. At most 2,048 bytes as JSON."),
    ] = None
    ref: Annotated[
        Reference | None, Field(description="Your own reference, kept with the task and not sent to the provider.")
    ] = None


class LinkQuery(RequestModel):
    """Query parameters of requests that return image links."""

    link_seconds: Annotated[
        LinkSeconds,
        Field(
            description="Seconds that image links live. They die earlier if the function's own session does, "
            "which is rare within an hour."
        ),
    ] = DEFAULT_LINK_SECONDS


class ImageQuery(LinkQuery):
    """Query parameters of the link to one image."""

    quarantined: Annotated[
        bool,
        Field(
            description="The bytes in quarantine instead of the archived image. They come from a server that is not "
            "trusted, are probably no image, and are served as a download."
        ),
    ] = False


class TaskQuery(LinkQuery):
    """Query parameters of the look-up of one task."""

    wait: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="Answer once the task is done, or after that many seconds: see `done`.",
        ),
    ] = 0


class PageQuery(LinkQuery):
    """Query parameters of the list of tasks: filters, page size and cursor."""

    status: Annotated[
        TaskStatus | None,
        Field(description="Only tasks with this status, the latest change first. Else the latest arrival comes first."),
    ] = None
    provider: Annotated[
        ProviderId | None,
        Field(description="Only this provider's tasks. A page may then be short, or empty, and have a cursor."),
    ] = None
    since: Annotated[
        Moment | None,
        Field(
            description="Only tasks that arrived at this time or later; with a status, that changed then or later. "
            "With a zone: `2026-01-31T12:00:00Z`."
        ),
    ] = None
    ref: Annotated[
        Reference | None,
        Field(description="Only tasks with this `ref`. A page may be empty and have a cursor."),
    ] = None
    metadata: Annotated[
        str | None,
        Field(
            pattern=METADATA_FILTER_PATTERN,
            max_length=MAX_METADATA_FILTER_LENGTH,
            description="Only tasks with this metadata: `NAME=VALUE`. A page may be empty and have a cursor.",
        ),
    ] = None
    reason: Annotated[
        FailureReason | None,
        Field(description="Only tasks that failed for this reason. A page may be empty and have a cursor."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_TASKS_PER_PAGE, description="Most tasks on a page.")] = (
        DEFAULT_TASKS_PER_PAGE
    )
    cursor: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_CURSOR_LENGTH,
            description="`cursor` of the page before, with the same filters. To be taken as it is.",
        ),
    ] = None


# ------------------------------------------------------------------------------------------------ answered


class NewTask(ResponseModel):
    """A task that was registered or submitted."""

    task: Annotated[str, Field(description="Key in the tasks table, `{provider}#{taskId}`.")]
    provider: str
    task_id: str
    outcome: Annotated[
        Literal["registered", "known", "submitted"],
        Field(description="`known`: it was registered before, or its callback was faster. Nothing was changed."),
    ]


class RegisteredTasks(ResponseModel):
    """The outcome for each task id, in the order of the request."""

    tasks: tuple[NewTask, ...]


class QuarantineResponse(ResponseModel):
    """The object of the bucket with the bytes that an image's URL returned instead of an image that can be archived."""

    key: str
    bytes: int
    sha256: Annotated[str, Field(description="In hexadecimal digits.")]


class ImageResponse(ResponseModel):
    """One image of a task."""

    kind: ImageKind
    index: Annotated[int, Field(ge=0, lt=MAX_IMAGES_PER_TASK, description="Counts within its kind.")]
    state: ImageState
    link: Annotated[
        str | None, Field(description="The presigned URL of the archived image, for GET requests until linkExpiresAt.")
    ] = None
    link_expires_at: Time | None = None
    url: Annotated[str, Field(description="Where the provider has it, or had it until expiresAt.")]
    expires_at: Time
    bucket: str | None = None
    key: str | None = None
    bytes: int | None = None
    sha256: Annotated[str | None, Field(description="In hexadecimal digits.")] = None
    content_type: str | None = None
    width: Annotated[int | None, Field(description="In pixels, as stored. See `orientation`.")] = None
    height: int | None = None
    orientation: Annotated[
        int | None,
        Field(
            description="The EXIF orientation, 2 to 8, if the image is shown otherwise than stored. From 5 on, width "
            "and height are exchanged."
        ),
    ] = None
    trailing_bytes: Annotated[
        int | None,
        Field(description="How many of its bytes follow the image's own end: a gain map, a phone's data, padding."),
    ] = None
    archived_at: Time | None = None
    reason: Annotated[str | None, Field(description="Why the image could not be archived.")] = None
    quarantine: Annotated[
        QuarantineResponse | None,
        Field(description="Its bytes, if they were kept: `GET .../images/{image}?quarantined=true` redirects to them."),
    ] = None


class SkippedResponse(ResponseModel):
    """An output that is no image. It is not copied into the bucket."""

    media: Media
    url: Annotated[str | None, Field(description="Where the provider has it. Missing if it is a text.")] = None


class FailureResponse(ResponseModel):
    """Why a task has no images: a reason that all providers share, with the provider's own code and message."""

    reason: FailureReason
    code: str | None = None
    message: str = ""
    last_answer: Annotated[
        LastAnswer | None, Field(description="Of TIMED_OUT and UNCONFIRMED: what the provider answered last.")
    ] = None


class ProviderRecordResponse(ResponseModel):
    """What the provider's own record of the task says besides its result, as it was told.

    Times are ISO 8601 in UTC; one that cannot be read is kept as text.
    """

    created_at: str | None = None
    completed_at: str | None = None
    trace_id: Annotated[str | None, Field(description="The provider's number for questions to its support.")] = None
    timings: Annotated[
        str | None, Field(description="JSON. Of Ace Data: one entry per image; of kie-market: seconds.")
    ] = None
    parameters: Annotated[
        str | None,
        Field(description=f"The whole request, as the provider returns it: JSON, cut at {MAX_PARAMETERS_BYTES} bytes."),
    ] = None


class ConflictResponse(ResponseModel):
    """A report that contradicted an earlier result. Stored as evidence, not applied."""

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
        Field(description="ARCHIVED, INCOMPLETE, UNCONFIRMED, FAILED or TIMED_OUT: waiting longer is mostly in vain."),
    ]
    images: tuple[ImageResponse, ...] = ()
    skipped: Annotated[
        tuple[SkippedResponse, ...],
        Field(
            description="Outputs that are no images, such as videos. A task that has no other outputs is INCOMPLETE."
        ),
    ] = ()
    failure: FailureResponse | None = None
    request: Annotated[
        dict[str, Any] | None,
        Field(description="What was asked for, as far as it is known: `prompt`, `model`, `size`, `seeds`."),
    ] = None
    provider_record: ProviderRecordResponse | None = None
    metadata: Annotated[Metadata | None, Field(description="Of its submission or registration.")] = None
    ref: Annotated[
        Reference | None, Field(description="Of its submission, registration or callback URL (`?ref=`).")
    ] = None
    reported_by: Reporter | None = None
    confirmed_at: Time | None = None
    accepted_at: Annotated[
        Time | None,
        Field(description="When an operator accepted its callback, which the provider had not confirmed."),
    ] = None
    hinted_at: Annotated[
        Time | None,
        Field(
            description="When a success without a result was reported, or an unconfirmed one again: it is polled for."
        ),
    ] = None
    deliveries: Annotated[int, Field(description="Callbacks that brought news or evidence; not repetitions.")] = 0
    conflicts: tuple[ConflictResponse, ...] = ()
    idempotency_key: Annotated[str | None, Field(description="Of the request that submitted it.")] = None
    arrived_at: Annotated[Time | None, Field(description="When the table first heard of it.")] = None
    registered_at: Time | None = None
    reported_at: Time | None = None
    archived_at: Time | None = None
    updated_at: Time | None = None


class TaskPage(ResponseModel):
    """A page of tasks, newest first; with a status filter, the most recently changed first."""

    tasks: tuple[TaskResponse, ...]
    cursor: Annotated[str | None, Field(description="Asks for the next page. Missing on the last one.")] = None
    unreadable: Annotated[
        tuple[str, ...], Field(description="Keys of items that were put by hand and are malformed.")
    ] = ()
    malformed_attributes: Annotated[
        dict[str, str] | None,
        Field(description="Of the unreadable items, by key: the names of their malformed attributes."),
    ] = None

    @property
    def unreadable_reasons(self) -> dict[str, str]:
        """Returns the malformed attributes of each unreadable item, by key; an older stack does not name them."""
        known = self.malformed_attributes or {}
        return {key: known.get(key, "unknown attributes") for key in self.unreadable}


class ProviderReply(ResponseModel):
    """The provider's response; secrets of this stack that it repeats are masked."""

    status: Annotated[int, Field(description="HTTP status.")]
    body: Annotated[Any, Field(description="JSON, or text if it was none.")] = None


class FieldProblem(ResponseModel):
    """What is wrong with one part of a request."""

    at: Annotated[str, Field(description="Where it stands: `limit`, `taskIds.3`, `request.callBackUrl`.")]
    detail: str


class ProblemBody(ResponseModel):
    """Why a request failed, and what to do next: a problem body as defined by RFC 9457."""

    type: Annotated[str, Field(description="`urn:catchlight:problem:` and the problem's name.")]
    title: str
    status: int
    detail: str
    advice: Annotated[str, Field(description="What to do next.")]
    errors: Annotated[tuple[FieldProblem, ...], Field(description="What is wrong, part by part.")] = ()
    provider_reply: ProviderReply | None = None
    task_id: Annotated[str | None, Field(description="A task that exists although the request failed.")] = None
    asked_at: Annotated[str | None, Field(description="When the provider was asked.")] = None


class ApiMessage(BaseModel):
    """A response of API Gateway itself."""

    message: str
