"""A task as the tasks table stores it, and what its attributes say about its polling, archiving and confirmation."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from catchlight.models import (
    Failure,
    FailureReason,
    GenerationRequest,
    Image,
    ImageKind,
    LastAnswer,
    Metadata,
    Model,
    ProviderRecord,
    Reference,
    Reporter,
    SkippedOutput,
    TaskReport,
    TaskStatus,
    iso,
    parse_time,
)

# Outcomes that leave open whether the provider has a result: such tasks are polled again later.
UNANSWERED = (LastAnswer.BUSY, LastAnswer.NO_ANSWER, LastAnswer.NOT_ASKED)
# Timeout of the Lambda function ArchiveImages: a try that began longer ago is no longer running.
ARCHIVING_TIMEOUT = timedelta(seconds=20)


def _valid_or_none(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    # Users may have added attributes with these names to items by hand: an invalid value must not make the item
    # unreadable.
    try:
        return parse(value)
    except ValidationError:
        return None


StoredRequest = Annotated[GenerationRequest | None, WrapValidator(_valid_or_none)]
StoredRecord = Annotated[ProviderRecord | None, WrapValidator(_valid_or_none)]
StoredMetadata = Annotated[Metadata | None, WrapValidator(_valid_or_none)]
StoredReference = Annotated[Reference | None, WrapValidator(_valid_or_none)]


class Conflict(Model):
    """A report that contradicts another one, stored as evidence: it was not applied, or its result was replaced."""

    reported_by: Reporter
    reported_at: datetime
    status: TaskStatus
    urls: tuple[str, ...] = ()
    failure: Failure | None = None


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
        """The time of the last report. None if the task has no report, or if a user has written an invalid time."""
        return parse_time(self.reported_at, default_zone=UTC)

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
        """The start of the repeated archiving try that is running or was killed. None if the task has no such try.

        The item has it as `archivingSince`. A time before `updatedAt` belongs to a try that ended with that change.
        """
        since = self.archiving_since
        return since if since and (self.updated_at or "") <= since else None

    def interrupted_since(self, now: datetime) -> str | None:
        """Returns the start of the repeated archiving try whose process was killed. None if the task has no such try.

        A killed try has not ended, and began longer ago than ARCHIVING_TIMEOUT.
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


def _fingerprint(images: Iterable[Image]) -> list[tuple[ImageKind, str]]:
    # URLs without their query, which contains the signature: a newly signed URL of the same object is the same image.
    return [(image.kind, image.url.partition("?")[0]) for image in images]


def _reason(failure: Failure | None) -> FailureReason | None:
    return failure.reason if failure else None
