"""Models of the tasks API's requests. `docs/tasks-api.openapi.yaml` is generated from them.

Field names are in camelCase, as in the items of the tasks table.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from catchlight.models import (
    MAX_METADATA_VALUE_LENGTH,
    METADATA_NAME_PATTERN,
    TASK_ID_PATTERN,
    FailureReason,
    Metadata,
    Model,
    Reference,
    TaskId,
    TaskStatus,
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


class RequestModel(Model):
    """Base of request models. Unknown fields are refused, because they are probably misspelled."""

    # Validators are built at import, not by the first request.
    model_config = ConfigDict(extra="forbid", defer_build=False)


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
        int,
        Field(
            ge=MIN_LINK_SECONDS,
            le=MAX_LINK_SECONDS,
            description="Lifetime of image links in seconds. A link expires earlier if the session of the function's "
            "role ends, which is rare within an hour.",
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
