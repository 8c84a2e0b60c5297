"""What is known of a task: the same model whether a callback or a poll brought the news."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

# Task ids become parts of keys in DynamoDB and S3. Hex, UUIDs and words were seen; anything else is refused.
TASK_ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"

# A callback of 64 KiB has room for hundreds of URLs; the largest order any of the providers takes is far below this.
MAX_IMAGES_PER_TASK = 32
MAX_URL_LENGTH = 2048
# Messages of providers are kept for people to read, not as a store for strangers.
MAX_MESSAGE_LENGTH = 500
# Longer than the providers take; an item has room for 400 KB.
MAX_PROMPT_LENGTH = 8000
# What `catchlight doctor` delivers callbacks to is no task: nothing follows from it, and nobody is told of it.
PROBE_STATUS = "PROBE"
# As many tasks as one request to Ace Data takes; one BatchGetItem takes twice that.
MAX_TASKS_PER_EXECUTION = 50

TaskId = Annotated[str, StringConstraints(pattern=TASK_ID_PATTERN)]


class TaskStatus(StrEnum):
    """Where a task stands. News only moves a task up: see `rank`."""

    PENDING = "PENDING"
    TIMED_OUT = "TIMED_OUT"
    FAILED = "FAILED"
    SUCCEEDED = "SUCCEEDED"
    INCOMPLETE = "INCOMPLETE"
    ARCHIVED = "ARCHIVED"

    @property
    def rank(self) -> int:
        """The order of statuses. A write is applied only where the stored rank is lower."""
        return _RANKS[self]


_RANKS = {
    TaskStatus.PENDING: 0,
    TaskStatus.TIMED_OUT: 10,  # polling gave up: any word of the provider is better
    TaskStatus.FAILED: 20,  # a late success heals it
    TaskStatus.SUCCEEDED: 30,  # a late failure does not harm it
    TaskStatus.INCOMPLETE: 40,  # every image was tried, at least one could not be had
    TaskStatus.ARCHIVED: 50,
}


class ImageKind(StrEnum):
    """What an image is: what the provider was given or first made, or what came out."""

    ORIGIN = "origin"
    RESULT = "result"


class ImageState(StrEnum):
    """Where one image stands."""

    PENDING = "PENDING"
    ARCHIVED = "ARCHIVED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


class FailureReason(StrEnum):
    """Why there are no images."""

    CONTENT_POLICY = "CONTENT_POLICY"
    INTERNAL = "INTERNAL"
    GENERATION_FAILED = "GENERATION_FAILED"
    CREATE_FAILED = "CREATE_FAILED"
    NO_NEWS = "NO_NEWS"  # polling gave up
    OTHER = "OTHER"  # a code that nobody documents


class Reporter(StrEnum):
    """Who brought the news."""

    CALLBACK = "callback"
    POLL = "poll"


class Model(BaseModel):
    """Frozen, and spelt in camelCase in DynamoDB as in the providers' JSON."""

    # Inputs stay out of error texts: they hold URLs and what strangers sent. Validators are built when they are needed:
    # a cold start needs few of them.
    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )


class Image(Model):
    """One image of a task, as it stands in the item's `images`."""

    kind: ImageKind
    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]
    expires_at: datetime
    state: ImageState = ImageState.PENDING
    bucket: str | None = None
    key: str | None = None
    bytes: int | None = None
    sha256: str | None = None  # hex
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    archived_at: datetime | None = None
    reason: str | None = None  # why it is EXPIRED or REJECTED


class GenerationRequest(Model):
    """What was asked of the provider, as far as it tells: kept with the images, which nobody can explain later."""

    prompt: Annotated[str, StringConstraints(max_length=MAX_PROMPT_LENGTH)] | None = None
    model: str | None = None
    size: str | None = None  # "1024x1024", or an aspect ratio: "16:9"
    seeds: tuple[int, ...] | None = None  # of the images, in their order; else the one that was asked for

    def besides(self, known: "GenerationRequest") -> "GenerationRequest":
        """What it says that `known` does not."""
        return self.model_copy(update={name: None for name, value in known if value is not None})

    def completed_by(self, told: "GenerationRequest | None") -> "GenerationRequest":
        """The same, and what it does not say as `told` has it."""
        return self.model_copy(update={name: value for name, value in told or () if getattr(self, name) is None})


class Failure(Model):
    """Why a task failed, with the provider's own words."""

    reason: FailureReason
    code: str | None = None
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE_LENGTH)] = ""


class Conflict(Model):
    """Evidence of news that contradicts what a task's item says. Never applied."""

    reported_by: Reporter
    reported_at: datetime
    status: TaskStatus
    urls: tuple[str, ...] = ()
    failure: Failure | None = None


class TaskReport(Model):
    """News of one task. PENDING says that the provider is still at work, or does not know the task (yet)."""

    provider: str
    task_id: TaskId
    status: TaskStatus
    reported_by: Reporter
    reported_at: datetime
    images: Annotated[tuple[Image, ...], Field(max_length=MAX_IMAGES_PER_TASK)] = ()
    failure: Failure | None = None
    request: GenerationRequest | None = None

    @property
    def task(self) -> str:
        """The item's key."""
        return task_key(self.provider, self.task_id)

    @model_validator(mode="after")
    def _status_agrees_with_content(self) -> Self:
        if (self.status is TaskStatus.SUCCEEDED) != bool(self.images):
            raise ValueError("images belong to a success, and a success has images")
        if (self.status in (TaskStatus.FAILED, TaskStatus.TIMED_OUT)) != (self.failure is not None):
            raise ValueError("a failure belongs to FAILED or TIMED_OUT, and those have one")
        return self


class Task(Model):
    """A task's item. Lenient where users write it: registering needs no more than the key and a status."""

    task: str
    status: TaskStatus
    rank: int = 0
    images: tuple[Image, ...] = ()
    failure: Failure | None = None
    request: GenerationRequest | None = None
    reported_by: Reporter | None = None
    confirmed_at: str | None = None  # when the provider itself said what the callback had said
    deliveries: int = 0
    conflicts: tuple[Conflict, ...] = ()
    registered_at: str | None = None
    reported_at: str | None = None
    archived_at: str | None = None
    updated_at: str | None = None
    reconciled_at: str | None = None  # when its work was started again last, because nobody did it any more

    @property
    def reported_time(self) -> datetime | None:
        """When the news came; None for none, and for what somebody put by hand that is no time."""
        try:
            time = datetime.fromisoformat(self.reported_at or "")
        except ValueError:
            return None
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    def with_images(self, images: Mapping[int, Image], *, now: datetime) -> "Task":
        """The task as `TasksTable.renew` leaves it."""
        renewed = tuple(images.get(index, image) for index, image in enumerate(self.images))
        return self.model_copy(
            update={"status": TaskStatus.SUCCEEDED, "rank": TaskStatus.SUCCEEDED.rank, "images": renewed}
            | {"updated_at": iso(now), "archived_at": None}
        )

    @property
    def is_unconfirmed(self) -> bool:
        """Whether its result rests on a callback alone: nobody has asked the provider yet."""
        return self.reported_by is Reporter.CALLBACK and self.confirmed_at is None

    def contradicts(self, report: TaskReport) -> bool:
        """Whether a report says something else than what is known, rather than the same again or less."""
        match report.status:
            case TaskStatus.SUCCEEDED:
                return _fingerprint(self.images) != _fingerprint(report.images)
            case TaskStatus.FAILED:
                return _reason(self.failure) != _reason(report.failure)
            case _:  # "still running" and "gave up" are no news once there is some
                return False

    def says_the_same_as(self, answer: TaskReport) -> bool:
        """Whether a provider's answer has the same result to the letter: the same URLs, or the same reason."""
        if answer.status is not self.status:
            return False
        urls, answered = ([(image.kind, image.url) for image in images] for images in (self.images, answer.images))
        return urls == answered and _reason(self.failure) == _reason(answer.failure)

    def is_contradicted_by(self, answer: TaskReport) -> bool:
        """Whether a provider's answer makes this task's result a false one.

        More images than the callback had, the same ones signed anew, or another reason for the same failure do not.
        """
        if answer.status is not self.status:
            return True
        return not set(_fingerprint(self.images)) <= set(_fingerprint(answer.images))


class PollState(Model):
    """The state machine's input and output: the tasks still running, the next wait, the time and polls so far.

    Time is counted in the machine's own waits, not by the clock: a scaled clock scales it, a late start does no harm.
    `polls` is missing where an execution was started by an earlier version: it counts from there on.
    """

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_TASKS_PER_EXECUTION)]
    wait_seconds: NonNegativeInt
    waited_seconds: NonNegativeInt = 0
    polls: NonNegativeInt = 0


def by_place(images: Iterable[Image]) -> dict[tuple[ImageKind, int], Image]:
    """Images by kind and number within their kind, in their order: the place that a further answer does not change."""
    seen: Counter[ImageKind] = Counter()
    places = {}
    for image in images:
        places[image.kind, seen[image.kind]] = image
        seen[image.kind] += 1
    return places


def _fingerprint(images: Iterable[Image]) -> list[tuple[ImageKind, str]]:
    # Without the query: the same object signed anew is the same image.
    return [(image.kind, image.url.partition("?")[0]) for image in images]


def _reason(failure: Failure | None) -> FailureReason | None:
    return failure.reason if failure else None


def task_key(provider: str, task_id: str) -> str:
    """`{provider}#{taskId}`, the partition key."""
    return f"{provider}#{task_id}"


def split_task_key(task: str) -> tuple[str, str]:
    """Provider and task id of a partition key.

    Raises:
        ValueError: it is no such key.
    """
    provider, _, task_id = task.partition("#")
    if not (provider and re.fullmatch(TASK_ID_PATTERN, task_id)):
        raise ValueError(f"no task key: {task!r}")
    return provider, task_id


def is_task_key(task: str) -> bool:
    """Whether `split_task_key` takes it: items are also put by hand."""
    try:
        split_task_key(task)
    except ValueError:
        return False
    return True


def utc_now() -> datetime:
    """Now, in UTC. The one clock of this package; functions that need a time take it as an argument."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, `2026-01-31T12:00:00.000Z`: of equal length, so that strings sort by time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
