"""Defines the plan of each task in a soak test, and the faults that it meets.

Times are simulated seconds, as in the template's parameters: the run's time scale makes them shorter.
"""

from dataclasses import dataclass
from enum import StrEnum

from tests.searches.soak.reported_state import ReportedState

FLUX_KONTEXT, NANOBANANA, ACEDATA = PROVIDERS = ("flux-kontext", "nanobanana", "acedata")
REASONS = ("CONTENT_POLICY", "INTERNAL", "GENERATION_FAILED")


class Treatment(StrEnum):
    """The fault that a callback meets on its way."""

    NONE = "as it should be"
    DROPPED = "dropped"
    REPEATED = "repeated"
    REORDERED = "reordered"
    CONTRADICTED = "contradicted"
    DELAYED = "delayed"
    CUT = "cut"


class Cut(StrEnum):
    """The point at which a delivery is cut."""

    CONNECTION = "the connection ends in the middle of the body"
    BODY = "the body ends early, and says so"
    ANSWER = "nobody waits for the answer"


class Registration(StrEnum):
    """The time at which the user registers the task."""

    FIRST = "before any callback"
    LATE = "after the callbacks"
    NEVER = "never"
    # Hours ago, and DispatchChanges never saw it; the service never calls back: only the hourly run can find it.
    UNSEEN = "before any callback, unseen"


class ImageFate(StrEnum):
    """The way in which an image is served."""

    FINE = "fine"
    SLOW = "slow"
    ERRORS_FIRST = "5xx at first"
    TRUNCATED_FIRST = "truncated at first"
    RESET_FIRST = "connection reset at first"
    NOT_YET = "404 at first"
    STALE = "its first URL is dead, a fresh one works"
    GONE = "404 for ever"
    PAGE = "an HTML page"

    @property
    def ends_well(self) -> bool:
        """Whether repeated attempts get the image."""
        return self not in (ImageFate.GONE, ImageFate.PAGE)


class PollFault(StrEnum):
    """The fault in the response to one poll."""

    ERROR = "HTTP 500"
    BUSY = "busy"
    CUT = "cut"
    GARBAGE = "no JSON"
    SLOW = "slow"
    UNKNOWN = "unknown for a moment"
    LAGGING = "still running for a moment"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image: `path` is that of its URL, `troubles` the number of requests that a temporary fault affects."""

    path: str
    kind: str  # origin or result
    index: int  # within its kind
    format: str  # JPEG, PNG or WEBP, independent of the path's extension
    fate: ImageFate
    troubles: int


@dataclass(frozen=True, slots=True)
class CallbackPlan:
    """One callback: its report, the times at which it is sent, and the fault that it meets."""

    says: ReportedState
    treatment: Treatment
    at: tuple[float, ...]  # seconds after the task's end, one for each copy; empty: never sent
    cut: Cut | None = None
    cut_attempts: int = 0  # number of a copy's attempts that are cut; the fourth is the last


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task, from its creation to its required final state."""

    number: int
    provider: str
    task_id: str
    truth: ReportedState  # the provider's own report after the task has ended; RUNNING: it never ends
    ends_after: float
    registration: Registration
    images: tuple[ImagePlan, ...]
    callbacks: tuple[CallbackPlan, ...]
    poll_faults: tuple[PollFault, ...]  # of the first polls of it, one each
    is_record_shaped: bool  # its callbacks have the shape of a poll's record
    forgery: ReportedState | None  # the report in a callback without a valid token
    # Its service answers no poll about it until the end of the faults, longer than polling takes.
    is_service_out: bool = False
    # Each run of ArchiveImages that handles it is killed, as if its images needed too much memory.
    is_lethal: bool = False

    @property
    def task(self) -> str:
        """The item's key."""
        return f"{self.provider}#{self.task_id}"

    @property
    def ending(self) -> str:
        """The required final status, after all possible repairs."""
        match self.truth.status:
            case "SUCCEEDED":
                return "ARCHIVED" if all(map(_is_stored_or_not_needed, self.images)) else "INCOMPLETE"
            case "PENDING":
                # A success that only a callback has reported, while the service says that it is still running.
                return "UNCONFIRMED" if self.callbacks else "TIMED_OUT"
            case status:
                return status


def _is_stored_or_not_needed(image: ImagePlan) -> bool:
    # An original whose URL was dead before the first report is not needed, by the parameter Originals.
    return image.fate.ends_well or (image.kind, image.fate) == ("origin", ImageFate.GONE)
