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
# Ace Data accepts this many task ids in one status request; one BatchGetItem accepts twice as many keys.
MAX_TASKS_PER_EXECUTION = 50
# Timeout of the Lambda function ArchiveImages: a try that began longer ago is no longer running.
ARCHIVING_TIMEOUT = timedelta(seconds=20)

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


def _valid_or_none(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    # Users may have added attributes with these names to items by hand: an invalid value must not make the item
    # unreadable.
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


# Outcomes that leave open whether the provider has a result: such tasks are polled again later.
UNANSWERED = (LastAnswer.BUSY, LastAnswer.NO_ANSWER, LastAnswer.NOT_ASKED)


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
        Field(description="Outcome of the last status request. Only for the statuses TIMED_OUT and UNCONFIRMED."),
    ] = None


class Conflict(Model):
    """A report that contradicts another one, stored as evidence: it was not applied, or its result was replaced."""

    reported_by: Reporter
    reported_at: datetime
    status: TaskStatus
    urls: tuple[str, ...] = ()
    failure: Failure | None = None


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
    metadata: StoredMetadata = None  # the user's own metadata, from the submission or registration
    ref: StoredReference = None  # the user's own reference, from the submission, the registration or the callback URL
    reported_by: Reporter | None = None
    confirmed_at: str | None = None  # when the provider's answer to a status request confirmed the callback's result
    accepted_at: str | None = None  # when an operator accepted an unconfirmed result
    # When a callback last reported a success without a result, or a poll first did, or when the callback of an
    # UNCONFIRMED task was last repeated. A callback's hint starts a poll at once.
    hinted_at: str | None = None
    deliveries: int = 0  # callbacks that were written to the item; others that repeat them are not counted
    conflicts: tuple[Conflict, ...] = ()
    registered_at: str | None = None
    reported_at: str | None = None
    archived_at: str | None = None
    updated_at: str | None = None
    polling_since: str | None = None  # when an execution of the polling state machine was last started for the task
    # Of an unregistered task: when polling ended because the provider does not know the task or cannot be queried.
    not_found_at: str | None = None
    reconciled_at: str | None = None  # when polling or archiving that had stopped was last restarted
    archive_tries: int = 0  # number of failed archiving tries
    negative_tries: int = 0  # number of failed tries in which an image's host returned no image or an incomplete one
    archiving_since: str | None = None  # when the running repeated try began; removed at its end

    @property
    def reported_time(self) -> datetime | None:
        """Returns the time of the last report; None if there is none, or if it was edited by hand and is invalid."""
        try:
            time = datetime.fromisoformat(self.reported_at or "")
        except ValueError:
            return None
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    def with_images(self, images: Mapping[int, Image], *, now: datetime) -> "Task":
        """Returns the task as `TaskImages.replace` stores it: `images` replace those at the same positions."""
        renewed = tuple(images.get(index, image) for index, image in enumerate(self.images))
        return self.model_copy(
            update={"status": TaskStatus.SUCCEEDED, "rank": TaskStatus.SUCCEEDED.rank, "images": renewed}
            | {"updated_at": iso(now), "archived_at": None}
        )

    @property
    def is_awaited(self) -> bool:
        """Whether the task has no result and a poll may still find one.

        The task is PENDING, or TIMED_OUT in one of two cases: its provider did not answer when polling ended, or a
        later callback reported a success without a result.
        """
        if self._is_not_found:
            return False
        if self.status is TaskStatus.TIMED_OUT:
            is_unanswered = self.failure is not None and self.failure.last_answer in UNANSWERED
            return is_unanswered or (self.hinted_at is not None and self.hinted_at > (self.reported_at or ""))
        return self.status is TaskStatus.PENDING

    @property
    def needs_polling(self) -> bool:
        """Whether to poll the provider: for a result, or to confirm a callback's result that is not being archived."""
        is_unsettled = self.status in (TaskStatus.FAILED, TaskStatus.UNCONFIRMED) and self.is_unconfirmed
        return self.is_awaited or (is_unsettled and not self._is_not_found)

    @property
    def is_unregistered(self) -> bool:
        """Whether the task is known from callbacks only: anyone who has the callback token can invent such a task."""
        return self.registered_at is None and self.deliveries > 0

    @property
    def _is_not_found(self) -> bool:
        return self.is_unregistered and self.not_found_at is not None

    def is_being_polled(self, *, since: datetime) -> bool:
        """Decides whether an execution is polling for the task: it was started since `updatedAt` and since `since`.

        `since`: all executions that were started before this time have ended.
        """
        return self.polling_since is not None and self.polling_since >= max(iso(since), self.updated_at or "")

    def is_polled_by_another(self, since: str | None) -> bool:
        """Decides whether an execution polls for the task that was started later than the caller's, at `since`."""
        return self.polling_since is not None and since is not None and self.polling_since > since

    @property
    def unended_try(self) -> str | None:
        """Returns when a repeated archiving try began that has not ended, from `archivingSince`; None if there is none.

        A time before `updatedAt` belongs to a try that ended with that change.
        """
        since = self.archiving_since
        return since if since and (self.updated_at or "") <= since else None

    def interrupted_since(self, now: datetime) -> str | None:
        """Returns when an archiving try began whose process was killed; None if there is none.

        Such a try has not ended, and began longer ago than ARCHIVING_TIMEOUT.
        """
        since = self.unended_try
        return since if since and since < iso(now - ARCHIVING_TIMEOUT) else None

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the result comes from a callback that neither the provider nor an operator has confirmed yet."""
        return self.reported_by is Reporter.CALLBACK and self.confirmed_at is None and self.accepted_at is None

    @property
    def is_confirmed(self) -> bool:
        """Whether the provider has reported the result in response to a request with the user's API key.

        A task that a user wrote into the table has no reporter: it is neither confirmed nor unconfirmed.
        """
        return self.reported_by is Reporter.POLL or self.confirmed_at is not None

    def as_reported(self) -> "Task":
        """Returns an UNCONFIRMED task as its callback reported it: SUCCEEDED. Other tasks are returned unchanged."""
        if self.status is not TaskStatus.UNCONFIRMED:
            return self
        succeeded = TaskStatus.SUCCEEDED
        return self.model_copy(update={"status": succeeded, "rank": succeeded.rank, "failure": None})

    def contradicts(self, report: TaskReport) -> bool:
        """Decides whether a report contradicts the stored result. A repetition of the result does not."""
        match report.status:
            case TaskStatus.SUCCEEDED:
                return _fingerprint(self.images) != _fingerprint(report.images)
            case TaskStatus.FAILED:
                return _reason(self.failure) != _reason(report.failure)
            case _:  # PENDING and TIMED_OUT contain no result that could contradict another one
                return False

    def is_confirmed_by(self, answer: TaskReport) -> bool:
        """Decides whether a provider's answer has exactly the same result: the same outputs and reason of a failure."""
        if answer.status is not self.status:
            return False
        urls, answered = ([(image.kind, image.url) for image in images] for images in (self.images, answer.images))
        is_same_outcome = _reason(self.failure) == _reason(answer.failure)
        return urls == answered and self.skipped == answer.skipped and is_same_outcome

    def is_contradicted_by(self, answer: TaskReport) -> bool:
        """Decides whether a provider's answer contradicts this task's result.

        Additional images, new signatures in the URLs of the same images, and another reason of a failure are no
        contradiction.
        """
        if answer.status is not self.status:
            return True
        return not set(_fingerprint(self.images)) <= set(_fingerprint(answer.images))


class PollState(Model):
    """Input and output of the polling state machine: the tasks without a result, the next wait, past waits and polls.

    `polling_since` is the start time of the execution, as the tasks' items have it. If an item has a later time,
    another execution polls for its task. Executions that an operator or ReconcileTasks starts have no `polling_since`
    and poll for all of their tasks.

    `waited_seconds` is the sum of the planned waits, not the elapsed time: tests can scale the clock, and an execution
    that starts late still polls for the full time. Executions that an earlier version started have no `polls`: the
    count starts at 0.
    """

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS_PER_EXECUTION)]
    wait_seconds: NonNegativeInt
    waited_seconds: NonNegativeInt = 0
    polls: NonNegativeInt = 0
    polling_since: str | None = None


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


def _fingerprint(images: Iterable[Image]) -> list[tuple[ImageKind, str]]:
    # URLs without their query, which contains the signature: a newly signed URL of the same object is the same image.
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


def parse_time(text: str | None) -> datetime | None:
    """Parses a time. Returns None if it is missing, malformed or without a time zone: users can edit items."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
