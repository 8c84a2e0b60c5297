"""Models of the reports that update a task. Callbacks and polls produce the same `TaskReport`.

`tasks.task` has the model of a stored task.
"""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

# Task ids become parts of keys in DynamoDB and S3. Providers were seen to send hexadecimal digits, UUIDs and words.
# Other characters are rejected.
TASK_ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"

# A callback of 64 KiB could contain hundreds of URLs. The providers generate far fewer images per request than this.
MAX_IMAGES_PER_TASK = 32
# Presigned URLs with an AWS session token can have thousands of characters. Web servers accept request lines of 8 KB.
MAX_URL_LENGTH = 8192
# Limit for the URLs of all outputs of a task together. A callback of 64 KiB cannot exceed it: percent-encoding turns
# one byte into three. For the size of a task's whole item see `tasks.reports.MAX_CONFLICTS`.
MAX_URL_BYTES_PER_TASK = 192 * 1024
# The ASCII characters that are not encoded: those that a URL may contain, including the "%" of existing
# percent-encoding, and the backslash. No URL may contain a backslash, but the URL policy must be able to reject it,
# because programs disagree on its meaning.
_URL_CHARACTERS = "!#$%&'()*+,-./:;=?@[\\]_~"
# Providers' messages are stored for people to read. The limit prevents senders of callbacks from storing other data.
MAX_MESSAGE_LENGTH = 500
# Longer than any prompt that the providers accept; a DynamoDB item may have 400 KB.
MAX_PROMPT_LENGTH = 8000
# Status of the item to which `catchlight doctor` delivers its probe callbacks. Probe items trigger neither polling nor
# archiving, and no event is published for them.
PROBE_STATUS = "PROBE"
TaskId = Annotated[str, StringConstraints(pattern=TASK_ID_PATTERN)]

# The user's own reference, for example an order number, a UUID or a short name. It may come from the query of a
# callback URL (`?ref=`): the pattern prevents senders of callbacks from storing arbitrary texts.
REFERENCE_PATTERN = r"^[A-Za-z0-9_.~:-]{1,128}$"
# The user's own metadata. The largest event without metadata and `ref` has 22,184 bytes; an event must have less than
# 25,000.
METADATA_NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
MAX_METADATA_VALUE_LENGTH = 256
MAX_METADATA_BYTES = 2048  # as JSON in UTF-8
# Limits for fields of a provider's own record of a task. Times have at most 35 characters, ids at most those of a UUID;
# the parameters repeat the prompt. Together they have less than 10 KB, so that a page of a hundred tasks stays below
# Lambda's limit for a response.
MAX_RECORD_TEXT_LENGTH = 64
MAX_TIMINGS_BYTES = 1024
MAX_PARAMETERS_BYTES = 8192


def _check_metadata_size(metadata: dict[str, str]) -> dict[str, str]:
    if len(to_json(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"should have at most {MAX_METADATA_BYTES} bytes as JSON")
    return metadata


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=METADATA_NAME_PATTERN)],
        Annotated[str, StringConstraints(max_length=MAX_METADATA_VALUE_LENGTH)],
    ],
    Field(min_length=1),
    AfterValidator(_check_metadata_size),
]


Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]


class TaskStatus(StrEnum):
    """The status of a task. Reports only move a task to a status of a higher `rank`."""

    PENDING = "PENDING"
    TIMED_OUT = "TIMED_OUT"
    FAILED = "FAILED"
    SUCCEEDED = "SUCCEEDED"
    UNCONFIRMED = "UNCONFIRMED"
    INCOMPLETE = "INCOMPLETE"
    ARCHIVED = "ARCHIVED"

    @property
    def rank(self) -> int:
        """Returns the position in the order of statuses. A report is applied only if the stored rank is lower."""
        return _RANKS[self]


_RANKS = {
    TaskStatus.PENDING: 0,
    TaskStatus.TIMED_OUT: 10,  # polling has ended without a result: any later result replaces it
    TaskStatus.FAILED: 20,  # a later success replaces it
    TaskStatus.SUCCEEDED: 30,  # a later failure does not replace it
    # A callback reported a success that the provider did not confirm in time: the images are in quarantine.
    TaskStatus.UNCONFIRMED: 35,
    TaskStatus.INCOMPLETE: 40,  # every image was tried, at least one could not be archived
    TaskStatus.ARCHIVED: 50,
}


class ImageKind(StrEnum):
    """The role of an image: `origin` is the provider's input or its first version, `result` is the output."""

    ORIGIN = "origin"
    RESULT = "result"


class ImageState(StrEnum):
    """The archiving state of one image."""

    PENDING = "PENDING"
    ARCHIVED = "ARCHIVED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


class Originals(StrEnum):
    """Whether a task needs its archived original (`ImageKind.ORIGIN`) to become ARCHIVED."""

    REQUIRED = "Required"
    BEST_EFFORT = "BestEffort"  # needed, unless its URL had expired before Catchlight received the task's report
    IGNORED = "Ignored"  # not needed, and not downloaded


class Media(StrEnum):
    """The type of an output that is not an image."""

    VIDEO = "video"
    AUDIO = "audio"
    TEXT = "text"
    OTHER = "other"  # for example a 3D model or an archive


class FailureReason(StrEnum):
    """The reason why a task has no archived images, in terms that are the same for all providers."""

    CONTENT_POLICY = "CONTENT_POLICY"
    INTERNAL = "INTERNAL"
    GENERATION_FAILED = "GENERATION_FAILED"
    CREATE_FAILED = "CREATE_FAILED"
    NO_RESULT = "NO_RESULT"  # of TIMED_OUT tasks: polling has ended without a result
    UNCONFIRMED = "UNCONFIRMED"  # of UNCONFIRMED tasks: a callback reported a success that the provider did not confirm
    OTHER = "OTHER"  # the provider's code is not documented, or the URLs of its result cannot be read


class LastAnswer(StrEnum):
    """The outcome of the last status request for a task that has no result or no confirmed one."""

    STILL_RUNNING = "STILL_RUNNING"
    NOT_FOUND = "NOT_FOUND"
    ORIGINAL_ONLY = "ORIGINAL_ONLY"  # a success with the original image, but without a result image
    UNREADABLE = "UNREADABLE"  # an answer in an unknown format
    REFUSED = "REFUSED"  # the provider refused the API key or the account, or no API key is configured
    REQUEST_REFUSED = "REQUEST_REFUSED"  # the provider refuses requests with this task id
    BUSY = "BUSY"  # rate limit or maintenance
    NO_ANSWER = "NO_ANSWER"  # no connection, a timeout, HTTP 5xx
    NOT_ASKED = "NOT_ASKED"  # no request was sent in the last round of polling
    UNCONFIRMED = "UNCONFIRMED"  # no result at the provider, although a callback has arrived


class Reporter(StrEnum):
    """The source of a report: a callback, or a status request (poll)."""

    CALLBACK = "callback"
    POLL = "poll"


class Model(BaseModel):
    """Base of all models: immutable, with field names in camelCase in DynamoDB and JSON."""

    # Validation errors omit the input, because it may contain URLs and unverified data. Validators are built on first
    # use, because a cold start uses only a few of them.
    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )


class Quarantined(Model):
    """The S3 object with the downloaded bytes of an image that was not archived, so that a person can examine them."""

    key: str
    bytes: int
    sha256: str  # hex


class Image(Model):
    """One image of a task: an element of the item's list `images`."""

    kind: ImageKind
    # A URL over the limit is cut to one character more than the limit, so that the URL policy still rejects it.
    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH + 1)]
    expires_at: datetime
    state: ImageState = ImageState.PENDING
    bucket: str | None = None
    key: str | None = None
    bytes: int | None = None
    sha256: str | None = None  # hex
    content_type: str | None = None
    width: int | None = None  # in pixels, before `orientation` is applied
    height: int | None = None
    orientation: int | None = None  # EXIF orientation, 2 to 8; from 5 on, width and height are swapped for display
    trailing_bytes: int | None = None  # bytes after the end of the image data, included in `bytes` and `sha256`
    archived_at: datetime | None = None
    reason: str | None = None  # why the image is EXPIRED or REJECTED
    quarantine: Quarantined | None = None  # the downloaded bytes, if they were refused or are not confirmed yet


class SkippedOutput(Model):
    """An output of a task that is not an image and therefore not archived: an element of the item's list `skipped`."""

    media: Media
    # None: the output is not a file, or its URL is not stored because all URLs of the task would be too long.
    url: Annotated[str, StringConstraints(max_length=MAX_URL_LENGTH)] | None = None


class GenerationRequest(Model):
    """The parameters of the request for images, from the submission or from the provider's reports.

    They are stored with the task, so that each archived image can be traced to its prompt and parameters.
    """

    prompt: Annotated[str, StringConstraints(max_length=MAX_PROMPT_LENGTH)] | None = None
    model: str | None = None
    size: str | None = None  # "1024x1024", or an aspect ratio: "16:9"
    seeds: tuple[int, ...] | None = None  # one per image in their order, or only the requested seed

    def missing_in(self, known: "GenerationRequest") -> "GenerationRequest":
        """Returns a copy with only the fields that `known` lacks."""
        return self.model_copy(update={name: None for name, value in known if value is not None})

    def completed_by(self, reported: "GenerationRequest | None") -> "GenerationRequest":
        """Returns a copy whose missing fields are filled from `reported`."""
        return self.model_copy(update={name: value for name, value in reported or () if getattr(self, name) is None})


# The part of a provider's record that is small enough for events.
class RecordSummary(Model):
    """The times and the trace id of a task in the provider's own record."""

    created_at: Annotated[str | None, Field(description="Time at which the provider created the task.")] = None
    completed_at: Annotated[str | None, Field(description="Time at which the provider completed the task.")] = None
    trace_id: Annotated[
        str | None, Field(description="The provider's id of the task for questions to its support.")
    ] = None


class ProviderRecord(RecordSummary):
    """The fields of a provider's own record of a task, other than its result.

    They are stored for people: no decision depends on them. Times are ISO 8601 in UTC; a time that cannot be parsed is
    stored as the provider sent it.
    """

    timings: Annotated[
        str | None,
        Field(description="Duration of the generation, as JSON. Ace Data: one entry per image; kie-market: seconds."),
    ] = None
    parameters: Annotated[
        str | None,
        Field(description=f"The request as the provider reports it: JSON, cut off at {MAX_PARAMETERS_BYTES} bytes."),
    ] = None

    def updated_by(self, newer: "ProviderRecord | None") -> "ProviderRecord":
        """Returns a copy in which the fields that `newer` has replace the earlier ones."""
        return self.model_copy(update={name: value for name, value in newer or () if value is not None})


class Failure(Model):
    """Why a task failed, with the provider's code and message."""

    reason: FailureReason
    code: str | None = None
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE_LENGTH)] = ""
    last_answer: Annotated[
        LastAnswer | None,
        Field(description="Outcome of the last status request. Only for the statuses TIMED_OUT and UNCONFIRMED."),
    ] = None


class TaskReport(Model):
    """The status and result of one task, as a callback or a poll reports them.

    PENDING means that there is no result: `answer` has the reason. A report of a success without a result image is
    PENDING, with `is_hint`, and with the original image if it has one.
    """

    provider: str
    task_id: TaskId
    status: TaskStatus
    reported_by: Reporter
    reported_at: datetime
    images: Annotated[tuple[Image, ...], Field(max_length=MAX_IMAGES_PER_TASK)] = ()
    skipped: Annotated[tuple[SkippedOutput, ...], Field(max_length=MAX_IMAGES_PER_TASK)] = ()
    failure: Failure | None = None
    request: GenerationRequest | None = None
    provider_record: ProviderRecord | None = None
    answer: LastAnswer = LastAnswer.STILL_RUNNING  # of PENDING: why there is no result
    ref: Reference | None = None  # the user's own reference, from the callback URL
    is_hint: bool = False  # of PENDING: the report says that the task has succeeded, but contains no result image
    remark: str = ""  # an anomaly of the report, for the log
    # Set if a poll reports a success without any readable image URL: JSON of a callback with the same result, which is
    # stored with the rejected deliveries.
    unreadable: str | None = None

    @property
    def task(self) -> str:
        """Returns the partition key of the task's item."""
        return task_key(self.provider, self.task_id)

    @model_validator(mode="after")
    def _status_agrees_with_content(self) -> Self:
        is_success = self.status in (TaskStatus.SUCCEEDED, TaskStatus.UNCONFIRMED)
        if is_success != bool(self.images or self.skipped) and not (self.is_hint and not self.skipped):
            raise ValueError("a success must have outputs, and only a success or a hint may have them")
        has_failure = (TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.UNCONFIRMED)
        if (self.status in has_failure) != (self.failure is not None):
            raise ValueError("FAILED, TIMED_OUT and UNCONFIRMED must have a failure, and other statuses must not")
        return self


def by_place(images: Iterable[Image]) -> dict[tuple[ImageKind, int], Image]:
    """Returns the images in their order, by their kind and their index among the images of that kind.

    This index stays the same if a later answer of the provider has additional images of another kind.
    """
    seen: Counter[ImageKind] = Counter()
    places = {}
    for image in images:
        places[image.kind, seen[image.kind]] = image
        seen[image.kind] += 1
    return places


def task_key(provider: str, task_id: str) -> str:
    """Returns the partition key of a task: `{provider}#{taskId}`."""
    return f"{provider}#{task_id}"


def split_task_key(task: str) -> tuple[str, str]:
    """Splits a partition key into provider and task id.

    Raises:
        ValueError: the key has another format.
    """
    provider, _, task_id = task.partition("#")
    if not (provider and re.fullmatch(TASK_ID_PATTERN, task_id)):
        raise ValueError(f"not a task key: {task!r}")
    return provider, task_id


def is_task_key(task: str) -> bool:
    """Decides whether `split_task_key` accepts the key: users can write items with invalid keys."""
    try:
        split_task_key(task)
    except ValueError:
        return False
    return True


def encode_url(url: str | bytes) -> str:
    """Percent-encodes the characters that a URL must not contain, as browsers do; non-ASCII characters as UTF-8.

    The URL policy rejects a host name with non-ASCII characters, because these are encoded, too.

    Raises:
        UnicodeEncodeError: the text contains a lone surrogate (half a character).
    """
    return quote(url, safe=_URL_CHARACTERS)


def utc_now() -> datetime:
    """Returns the current time in UTC. Other functions have the time, or a clock like this one, as an argument."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Formats a time as ISO 8601 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.

    All results have the same length, so they sort by time as strings.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str | None, *, default_zone: tzinfo | None = None) -> datetime | None:
    """Parses a time. Returns None if it is missing or malformed: users can edit items.

    `default_zone` is the zone of a time that states none. Without `default_zone`, such a time counts as malformed.
    """
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=default_zone)
    return moment if moment.tzinfo else None
