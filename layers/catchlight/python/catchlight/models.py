"""Models of a task and of the reports that update it. Callbacks and polls produce the same `TaskReport`."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

# Task ids become parts of keys in DynamoDB and S3. Providers were seen to send hex, UUIDs and words; other characters
# are rejected.
TASK_ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"

# A callback of 64 KiB has room for hundreds of URLs; the providers accept requests for far fewer images than this.
MAX_IMAGES_PER_TASK = 32
# Signed URLs with session tokens of AWS have thousands of characters. Web servers accept 8 KB in a request line.
MAX_URL_LENGTH = 8192
# The URLs of all outputs of a task together: a callback of 64 KiB has at most this many bytes of URLs, because
# percent-encoding makes three bytes of one. What a task's item takes with them: see `tasks.reports.MAX_CONFLICTS`.
MAX_URL_BYTES_PER_TASK = 192 * 1024
# All printable characters of ASCII that a URL may hold, "%" of sequences that are encoded already among them. The
# backslash may not be there, but it has to be left for the URL policy to refuse: programs read it differently.
_URL_CHARACTERS = "!#$%&'()*+,-./:;=?@[\\]_~"
# Providers' messages are stored for people to read; the limit keeps senders of callbacks from storing arbitrary data.
MAX_MESSAGE_LENGTH = 500
# Longer than any prompt that the providers accept; a DynamoDB item may have 400 KB.
MAX_PROMPT_LENGTH = 8000
# Status of the item to which `catchlight doctor` delivers its probe callbacks. Probe items trigger neither polling nor
# archiving, and no event is published for them.
PROBE_STATUS = "PROBE"
# One poll request to Ace Data accepts this many task ids; one BatchGetItem accepts twice as many keys.
MAX_TASKS_PER_EXECUTION = 50
# ArchiveImages' timeout: a try that began earlier is no longer running.
ARCHIVING_TIMEOUT = timedelta(seconds=20)

TaskId = Annotated[str, StringConstraints(pattern=TASK_ID_PATTERN)]

# A user's own reference in the query of a callback URL, `?ref=`: an order number, a UUID, a short name. The pattern
# keeps senders of callbacks from storing arbitrary texts.
REFERENCE_PATTERN = r"^[A-Za-z0-9_.~:-]{1,128}$"
# A user's own metadata. The largest event without it and `ref` has 22,184 bytes, and an event has less than 25,000.
METADATA_NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
MAX_METADATA_VALUE_LENGTH = 256
MAX_METADATA_BYTES = 2048  # as JSON in UTF-8
# Of a provider's own record of a task. A time is at most 35 characters, an id at most a UUID; parameters repeat the
# prompt. Together less than 10 KB, so that a page of a hundred tasks stays below API Gateway's limit.
MAX_RECORD_TEXT_LENGTH = 64
MAX_TIMINGS_BYTES = 1024
MAX_PARAMETERS_BYTES = 8192


def _is_small(metadata: dict[str, str]) -> dict[str, str]:
    if len(to_json(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"should have at most {MAX_METADATA_BYTES} bytes as JSON")
    return metadata


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=METADATA_NAME_PATTERN)],
        Annotated[str, StringConstraints(max_length=MAX_METADATA_VALUE_LENGTH)],
    ],
    Field(min_length=1),
    AfterValidator(_is_small),
]


def _valid_or_none(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    # Users may have added attributes with these names to their items: other values do not make an item unreadable.
    try:
        return parse(value)
    except ValidationError:
        return None


Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
StoredMetadata = Annotated[Metadata | None, WrapValidator(_valid_or_none)]
StoredReference = Annotated[Reference | None, WrapValidator(_valid_or_none)]


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
    TaskStatus.TIMED_OUT: 10,  # polling gave up: any result of the provider replaces it
    TaskStatus.FAILED: 20,  # a later success replaces it
    TaskStatus.SUCCEEDED: 30,  # a later failure does not replace it
    # A callback reported a success, and the provider did not confirm it in time: its images are in quarantine.
    TaskStatus.UNCONFIRMED: 35,
    TaskStatus.INCOMPLETE: 40,  # every image was tried, at least one could not be archived
    TaskStatus.ARCHIVED: 50,
}


class ImageKind(StrEnum):
    """The role of an image: ORIGIN is the provider's input or its first version, RESULT is the output."""

    ORIGIN = "origin"
    RESULT = "result"


class ImageState(StrEnum):
    """The archiving state of one image."""

    PENDING = "PENDING"
    ARCHIVED = "ARCHIVED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


class Originals(StrEnum):
    """Whether an ARCHIVED task needs its original: the service's input or first version, whose URL expires first."""

    REQUIRED = "Required"
    BEST_EFFORT = "BestEffort"  # not if its URL had expired before Catchlight received the first report of it
    IGNORED = "Ignored"  # originals are not downloaded


class Media(StrEnum):
    """The kinds of output other than images."""

    VIDEO = "video"
    AUDIO = "audio"
    TEXT = "text"
    OTHER = "other"  # for example a 3D model or an archive


class FailureReason(StrEnum):
    """The reason why a task has no archived images."""

    CONTENT_POLICY = "CONTENT_POLICY"
    INTERNAL = "INTERNAL"
    GENERATION_FAILED = "GENERATION_FAILED"
    CREATE_FAILED = "CREATE_FAILED"
    NO_RESULT = "NO_RESULT"  # polling gave up
    UNCONFIRMED = "UNCONFIRMED"  # of UNCONFIRMED tasks: a callback reported a success, the provider has not
    OTHER = "OTHER"  # an undocumented code


class LastAnswer(StrEnum):
    """What a provider answered to the last request for the status of a task without a result."""

    STILL_RUNNING = "STILL_RUNNING"
    NOT_FOUND = "NOT_FOUND"
    ORIGINAL_ONLY = "ORIGINAL_ONLY"  # a success that names the original image and no result
    UNREADABLE = "UNREADABLE"
    REFUSED = "REFUSED"  # the key or the account is refused, or no key is configured
    REQUEST_REFUSED = "REQUEST_REFUSED"  # requests for this task id are refused
    BUSY = "BUSY"  # rate limit or maintenance
    NO_ANSWER = "NO_ANSWER"  # no connection, a timeout, HTTP 5xx
    NOT_ASKED = "NOT_ASKED"  # no request was sent in the last round
    UNCONFIRMED = "UNCONFIRMED"  # still running or not found, although a callback has come


# Answers that do not say whether there is a result. Later polls ask again.
UNANSWERED = (LastAnswer.BUSY, LastAnswer.NO_ANSWER, LastAnswer.NOT_ASKED)


class Reporter(StrEnum):
    """The source of a report."""

    CALLBACK = "callback"
    POLL = "poll"


class Model(BaseModel):
    """Base of all models: immutable, with field names in camelCase in DynamoDB, as in the providers' JSON."""

    # Validation errors omit the input, which may contain URLs and unverified data. Validators are built on first use,
    # because a cold start needs few of them.
    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )


class Quarantined(Model):
    """Where the bytes lie of an image that was refused: they were paid for, and a person may still use them."""

    key: str
    bytes: int
    sha256: str  # hex


class Image(Model):
    """One image of a task: an element of the item's list `images`."""

    kind: ImageKind
    # A longer URL is cut to one character more than the limit, so that the URL policy still rejects it.
    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH + 1)]
    expires_at: datetime
    state: ImageState = ImageState.PENDING
    bucket: str | None = None
    key: str | None = None
    bytes: int | None = None
    sha256: str | None = None  # hex
    content_type: str | None = None
    width: int | None = None  # as stored: `orientation` says how they are shown
    height: int | None = None
    orientation: int | None = None  # EXIF's number from 2 to 8; from 5 on, width and height are exchanged when shown
    trailing_bytes: int | None = None  # bytes that follow the image's own end, counted in `bytes` and `sha256`
    archived_at: datetime | None = None
    reason: str | None = None  # why the image is EXPIRED or REJECTED
    quarantine: Quarantined | None = None  # what its URL returned instead of an image that can be archived


class SkippedOutput(Model):
    """An output of a task that is no image and therefore not copied into the bucket: an element of `skipped`."""

    media: Media
    url: Annotated[str, StringConstraints(max_length=MAX_URL_LENGTH)] | None = None  # None: the output is no file


class GenerationRequest(Model):
    """The parameters of the request for images, as far as the provider reports them.

    Stored with the task, so that each archived image can be traced to its prompt and parameters.
    """

    prompt: Annotated[str, StringConstraints(max_length=MAX_PROMPT_LENGTH)] | None = None
    model: str | None = None
    size: str | None = None  # "1024x1024", or an aspect ratio: "16:9"
    seeds: tuple[int, ...] | None = None  # of the images, in their order; else the requested one

    def besides(self, known: "GenerationRequest") -> "GenerationRequest":
        """Returns a copy with only the fields that `known` lacks."""
        return self.model_copy(update={name: None for name, value in known if value is not None})

    def completed_by(self, reported: "GenerationRequest | None") -> "GenerationRequest":
        """Returns a copy whose missing fields are filled from `reported`."""
        return self.model_copy(update={name: value for name, value in reported or () if getattr(self, name) is None})


class RecordSummary(Model):
    """What a provider's own record says about the time of a task, and the number for questions to its support."""

    created_at: Annotated[str | None, Field(description="When the provider created the task.")] = None
    completed_at: Annotated[str | None, Field(description="When the provider completed the task.")] = None
    trace_id: Annotated[str | None, Field(description="The provider's number for questions to its support.")] = None


class ProviderRecord(RecordSummary):
    """What a provider's own record of a task says besides its result.

    Kept as it was told, for people: no decision depends on it. Times are ISO 8601 in UTC; one that cannot be read is
    kept as text.
    """

    timings: Annotated[
        str | None,
        Field(description="How long generating took, JSON: of Ace Data one entry per image, else seconds."),
    ] = None
    parameters: Annotated[
        str | None,
        Field(description=f"The whole request, as the provider returns it: JSON, cut at {MAX_PARAMETERS_BYTES} bytes."),
    ] = None

    def updated_by(self, newer: "ProviderRecord | None") -> "ProviderRecord":
        """Returns a copy with the fields that `newer` has."""
        return self.model_copy(update={name: value for name, value in newer or () if value is not None})

    @property
    def summary(self) -> RecordSummary:
        """Returns the part that is small enough for events."""
        return RecordSummary(created_at=self.created_at, completed_at=self.completed_at, trace_id=self.trace_id)


StoredRequest = Annotated[GenerationRequest | None, WrapValidator(_valid_or_none)]
StoredRecord = Annotated[ProviderRecord | None, WrapValidator(_valid_or_none)]


class Failure(Model):
    """Why a task failed, with the provider's code and message."""

    reason: FailureReason
    code: str | None = None
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE_LENGTH)] = ""
    last_answer: Annotated[
        LastAnswer | None,
        Field(description="Of TIMED_OUT and UNCONFIRMED: what the provider answered last."),
    ] = None


class Conflict(Model):
    """A report that contradicts a task's item. Stored as evidence and never applied."""

    reported_by: Reporter
    reported_at: datetime
    status: TaskStatus
    urls: tuple[str, ...] = ()
    failure: Failure | None = None


class TaskReport(Model):
    """The status of one task, as its provider reports it.

    PENDING means that the provider is still working on the task, or does not know it (yet). A success that names only
    the original image is a PENDING hint with this image.
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
    is_hint: bool = False  # of PENDING: the provider says that the task has succeeded, without naming a result
    remark: str = ""  # what is odd about the provider's answer; for the log
    # JSON of a callback with the result of a record that reports a success, but has no usable image URL: it is kept.
    unreadable: str | None = None

    @property
    def task(self) -> str:
        """Returns the partition key of the task's item."""
        return task_key(self.provider, self.task_id)

    @model_validator(mode="after")
    def _status_agrees_with_content(self) -> Self:
        is_success = self.status in (TaskStatus.SUCCEEDED, TaskStatus.UNCONFIRMED)
        if is_success != bool(self.images or self.skipped) and not (self.is_hint and not self.skipped):
            raise ValueError("outputs belong to a success or a hint, and a success has outputs")
        has_failure = (TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.UNCONFIRMED)
        if (self.status in has_failure) != (self.failure is not None):
            raise ValueError("a failure belongs to FAILED, TIMED_OUT or UNCONFIRMED, and those have one")
        return self


class Task(Model):
    """A task's item in the tasks table.

    Only the key and the status are required, because users may also register a task by writing the item themselves.
    """

    task: str
    status: TaskStatus
    rank: int = 0
    images: tuple[Image, ...] = ()
    skipped: tuple[SkippedOutput, ...] = ()
    failure: Failure | None = None
    request: StoredRequest = None
    provider_record: StoredRecord = None
    metadata: StoredMetadata = None  # the user's own, from the submission or registration
    ref: StoredReference = None  # the user's own, from the submission, the registration or the callback URL
    reported_by: Reporter | None = None
    confirmed_at: str | None = None  # when the provider's own answer confirmed the callback
    accepted_at: str | None = None  # when an operator accepted the result of a callback that was not confirmed
    # When a success without a result was reported: by a callback, which is polled for at once, or first by a poll.
    hinted_at: str | None = None
    deliveries: int = 0
    conflicts: tuple[Conflict, ...] = ()
    registered_at: str | None = None
    reported_at: str | None = None
    archived_at: str | None = None
    updated_at: str | None = None
    polling_since: str | None = None  # when an execution of the polling state machine was last started for the task
    # When the provider had answered several times that it does not know the task, which is not registered.
    not_found_at: str | None = None
    reconciled_at: str | None = None  # when polling or archiving, found stopped, was last restarted
    archive_tries: int = 0  # tries of archiving that have failed
    negative_tries: int = 0  # those of them in which the host of an image had no image there, or not all of it
    archiving_since: str | None = None  # when the last repeated try began; removed at its end

    @property
    def reported_time(self) -> datetime | None:
        """Returns the time of the last report; None without a report, or if a manual edit left an invalid time."""
        try:
            time = datetime.fromisoformat(self.reported_at or "")
        except ValueError:
            return None
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    def with_images(self, images: Mapping[int, Image], *, now: datetime) -> "Task":
        """Returns the task as `TaskImages.replace` stores it, with `images` replacing those at the same positions."""
        renewed = tuple(images.get(index, image) for index, image in enumerate(self.images))
        return self.model_copy(
            update={"status": TaskStatus.SUCCEEDED, "rank": TaskStatus.SUCCEEDED.rank, "images": renewed}
            | {"updated_at": iso(now), "archived_at": None}
        )

    @property
    def is_awaited(self) -> bool:
        """Whether polls are to find a result.

        The task is PENDING; or polling has given up while its provider did not answer, or a callback came later that
        reported a success without a result.
        """
        if self._is_not_found:
            return False
        if self.status is TaskStatus.TIMED_OUT:
            is_unanswered = self.failure is not None and self.failure.last_answer in UNANSWERED
            return is_unanswered or (self.hinted_at is not None and self.hinted_at > (self.reported_at or ""))
        return self.status is TaskStatus.PENDING

    @property
    def needs_polling(self) -> bool:
        """Whether polls ask the provider: for a result, or to confirm one of a callback that is not being archived."""
        is_unsettled = self.status in (TaskStatus.FAILED, TaskStatus.UNCONFIRMED) and self.is_unconfirmed
        return self.is_awaited or (is_unsettled and not self._is_not_found)

    @property
    def is_unregistered(self) -> bool:
        """Whether the task is known by callbacks only: everyone who knows the callback token can make up its id."""
        return self.registered_at is None and self.deliveries > 0

    @property
    def _is_not_found(self) -> bool:
        return self.is_unregistered and self.not_found_at is not None

    def is_being_polled(self, *, since: datetime) -> bool:
        """Decides whether an execution that polls for the task was started since its last change of status.

        Executions that were started before `since` have ended.
        """
        return self.polling_since is not None and self.polling_since >= max(iso(since), self.updated_at or "")

    def is_polled_by_another(self, since: str | None) -> bool:
        """Decides whether an execution polls for it that was started later than the one that was started at `since`."""
        return self.polling_since is not None and since is not None and self.polling_since > since

    @property
    def unended_try(self) -> str | None:
        """When a repeated try of archiving began that has not ended, according to its mark.

        A time before the last change is of a try that has ended with this change.
        """
        since = self.archiving_since
        return since if since and (self.updated_at or "") <= since else None

    def interrupted_since(self, now: datetime) -> str | None:
        """Returns when a try of archiving began that has not ended and is no longer running: its process was killed."""
        since = self.unended_try
        return since if since and since < iso(now - ARCHIVING_TIMEOUT) else None

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the result comes from a callback that neither the provider nor an operator has confirmed yet."""
        return self.reported_by is Reporter.CALLBACK and self.confirmed_at is None and self.accepted_at is None

    @property
    def is_confirmed(self) -> bool:
        """Whether the provider itself, asked with the user's API key, has reported the result.

        A task that a user wrote into the table is neither confirmed nor unconfirmed: it has no reporter.
        """
        return self.reported_by is Reporter.POLL or self.confirmed_at is not None

    def as_reported(self) -> "Task":
        """Returns an UNCONFIRMED task as its callback reported it: SUCCEEDED. Other tasks are returned unchanged."""
        if self.status is not TaskStatus.UNCONFIRMED:
            return self
        succeeded = TaskStatus.SUCCEEDED
        return self.model_copy(update={"status": succeeded, "rank": succeeded.rank, "failure": None})

    def contradicts(self, report: TaskReport) -> bool:
        """Decides whether a report conflicts with the stored result, instead of repeating it or adding nothing."""
        match report.status:
            case TaskStatus.SUCCEEDED:
                return _fingerprint(self.images) != _fingerprint(report.images)
            case TaskStatus.FAILED:
                return _reason(self.failure) != _reason(report.failure)
            case _:  # PENDING and TIMED_OUT carry no result, so they cannot contradict one
                return False

    def is_confirmed_by(self, answer: TaskReport) -> bool:
        """Decides whether a provider's answer has exactly the same result: the same outputs, or the same reason."""
        if answer.status is not self.status:
            return False
        urls, answered = ([(image.kind, image.url) for image in images] for images in (self.images, answer.images))
        is_same_outcome = _reason(self.failure) == _reason(answer.failure)
        return urls == answered and self.skipped == answer.skipped and is_same_outcome

    def is_contradicted_by(self, answer: TaskReport) -> bool:
        """Decides whether a provider's answer shows that this task's result is false.

        Additional images, the same images with new signatures in their URLs, and another reason for the failure do not
        contradict the result.
        """
        if answer.status is not self.status:
            return True
        return not set(_fingerprint(self.images)) <= set(_fingerprint(answer.images))


class PollState(Model):
    """Input and output of the polling state machine: the running tasks, the next wait, the time and polls so far.

    `polling_since` is the start of the execution as the tasks' items have it. A task whose item has a later one is
    polled by another execution. Executions that an operator or ReconcileTasks starts have none, and poll for all of
    their tasks.

    `waited_seconds` is the sum of the planned waits, not the elapsed time: tests can scale the clock, and an execution
    that starts late still polls for the full time. Executions started by an earlier version have no `polls`; their
    count starts at 0.
    """

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS_PER_EXECUTION)]
    wait_seconds: NonNegativeInt
    waited_seconds: NonNegativeInt = 0
    polls: NonNegativeInt = 0
    polling_since: str | None = None


def by_place(images: Iterable[Image]) -> dict[tuple[ImageKind, int], Image]:
    """Returns the images in their order, by their kind and their index within that kind.

    This key stays the same when a later answer of the provider has additional images of another kind.
    """
    seen: Counter[ImageKind] = Counter()
    places = {}
    for image in images:
        places[image.kind, seen[image.kind]] = image
        seen[image.kind] += 1
    return places


def _fingerprint(images: Iterable[Image]) -> list[tuple[ImageKind, str]]:
    # Without the query, which holds the signature: a newly signed URL of the same object is the same image.
    return [(image.kind, image.url.partition("?")[0]) for image in images]


def _reason(failure: Failure | None) -> FailureReason | None:
    return failure.reason if failure else None


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
        raise ValueError(f"no task key: {task!r}")
    return provider, task_id


def is_task_key(task: str) -> bool:
    """Decides whether `split_task_key` accepts the key: users can write items with invalid keys."""
    try:
        split_task_key(task)
    except ValueError:
        return False
    return True


def encode_url(url: str | bytes) -> str:
    """Percent-encodes the characters that no URL may hold as browsers do: blanks, and all beyond ASCII as UTF-8.

    A host that is not ASCII becomes one that the URL policy refuses.

    Raises:
        UnicodeEncodeError: the text has half of a character (a lone surrogate).
    """
    return quote(url, safe=_URL_CHARACTERS)


def utc_now() -> datetime:
    """Returns the current time in UTC. Functions that need the time take it, or a clock, as an argument."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Formats a time as ISO 8601 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.

    All results have the same length, so they sort by time as strings.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str | None) -> datetime | None:
    """Parses a time; None if it is missing, malformed or without a time zone: users can edit items."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
