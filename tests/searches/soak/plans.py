"""Defines the plan of each task in a soak test, with all faults that affect it.

Times are simulated seconds, as in the template's parameters; the run's time scale shortens them.
"""

from dataclasses import dataclass
from enum import StrEnum

from tests.searches.soak.reported_state import ReportedState

FLUX_KONTEXT, NANOBANANA, ACEDATA = PROVIDERS = ("flux-kontext", "nanobanana", "acedata")
REASONS = ("CONTENT_POLICY", "INTERNAL", "GENERATION_FAILED")


class CallbackFault(StrEnum):
    """The fault in the delivery of a callback."""

    NONE = "no fault"
    DROPPED = "dropped"
    REPEATED = "repeated"
    REORDERED = "reordered"
    CONTRADICTED = "contradicted"
    DELAYED = "delayed"
    CUT = "cut"


class Cut(StrEnum):
    """The point at which the sender breaks off a delivery."""

    CONNECTION = "the connection ends in the middle of the body"
    BODY = "the body is truncated, with the matching Content-Length"
    RESPONSE = "the sender does not wait for the response"


class Registration(StrEnum):
    """The time at which the user registers the task."""

    FIRST = "before any callback"
    LATE = "after the callbacks"
    NEVER = "never"
    # Registered eight hours ago, without a stream record and without callbacks: only ReconcileTasks can find the task.
    NOT_STREAMED = "without a stream record"


class ImageFault(StrEnum):
    """The fault in the responses to requests for an image."""

    NONE = "no fault"
    SLOW = "slow"
    ERRORS_FIRST = "5xx at first"
    TRUNCATED_FIRST = "truncated at first"
    RESET_FIRST = "connection reset at first"
    NOT_YET = "404 at first"
    STALE = "the first URL has expired, a fresh one works"
    GONE = "always 404"
    PAGE = "an HTML page"

    @property
    def is_recoverable(self) -> bool:
        """Whether repeated attempts can download the image."""
        return self not in (ImageFault.GONE, ImageFault.PAGE)


class PollFault(StrEnum):
    """The fault in the response to one poll."""

    ERROR = "HTTP 500"
    BUSY = "busy"
    CUT = "cut"
    GARBAGE = "not JSON"
    SLOW = "slow"
    UNKNOWN = "task temporarily unknown"
    LAGGING = "result reported late"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image. `path`: of its URL; `faulty_requests`: the number of requests that a temporary fault affects."""

    path: str
    kind: str  # origin or result
    index: int  # within its kind
    format: str  # JPEG, PNG or WEBP, independent of the path's extension
    fault: ImageFault
    faulty_requests: int


@dataclass(frozen=True, slots=True)
class CallbackPlan:
    """One callback: its report, the times at which it is sent, and the fault in its delivery."""

    reported: ReportedState
    fault: CallbackFault
    at: tuple[float, ...]  # seconds after the task's end, one for each copy; empty: never sent
    cut: Cut | None = None
    cut_attempts: int = 0  # number of each copy's attempts that are cut; a sender makes at most four


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task, from its creation to its required final state."""

    number: int
    provider: str
    task_id: str
    provider_outcome: ReportedState  # what polls report after the task has ended; RUNNING: it never ends
    ends_after: float
    registration: Registration
    images: tuple[ImagePlan, ...]
    callbacks: tuple[CallbackPlan, ...]
    poll_faults: tuple[PollFault, ...]  # one for each of its first polls
    is_record_shaped: bool  # its callbacks have the JSON structure of a poll's record
    forgery: ReportedState | None  # the report in a callback without a valid token
    # All polls of this task fail until the faults end, which is longer than polling takes.
    is_provider_out: bool = False
    # Each run of ArchiveImages that handles it is killed, as if its images exceeded the function's memory.
    is_oversized: bool = False

    @property
    def task(self) -> str:
        """The item's key."""
        return f"{self.provider}#{self.task_id}"

    @property
    def expected_status(self) -> str:
        """The required final status, after the hourly run and the redrive."""
        match self.provider_outcome.status:
            case "SUCCEEDED":
                return "ARCHIVED" if all(map(_is_archived_or_optional, self.images)) else "INCOMPLETE"
            case "PENDING":
                # Only a callback reports success; polls still report that the task is running.
                return "UNCONFIRMED" if self.callbacks else "TIMED_OUT"
            case status:
                return status


def _is_archived_or_optional(image: ImagePlan) -> bool:
    # With the default of the parameter Originals, a task is ARCHIVED without an original whose URL had expired before
    # the first report.
    return image.fault.is_recoverable or (image.kind, image.fault) == ("origin", ImageFault.GONE)
