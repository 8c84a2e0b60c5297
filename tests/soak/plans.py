"""What each task of a soak is, and what goes wrong with it.

Times are simulated seconds, as in the template's parameters: the run's time scale makes them shorter.
"""

from dataclasses import dataclass
from enum import StrEnum

from tests.soak.claims import Claim

FLUX_KONTEXT, NANOBANANA, ACEDATA = PROVIDERS = ("flux-kontext", "nanobanana", "acedata")
REASONS = ("CONTENT_POLICY", "INTERNAL", "GENERATION_FAILED")


class Treatment(StrEnum):
    """What is done to a callback on its way."""

    NONE = "as it should be"
    DROPPED = "dropped"
    REPEATED = "repeated"
    REORDERED = "reordered"
    CONTRADICTED = "contradicted"
    DELAYED = "delayed"
    CUT = "cut"


class Cut(StrEnum):
    """How a delivery is cut."""

    CONNECTION = "the connection ends in the middle of the body"
    BODY = "the body ends early, and says so"
    ANSWER = "nobody waits for the answer"


class Registration(StrEnum):
    """When the user puts the task's item."""

    FIRST = "before any callback"
    LATE = "after the callbacks"
    NEVER = "never"


class ImageFate(StrEnum):
    """How an image is served."""

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
        """Whether patience brings the image."""
        return self not in (ImageFate.GONE, ImageFate.PAGE)


class PollFault(StrEnum):
    """How one request about a task is answered otherwise than it should be."""

    ERROR = "HTTP 500"
    BUSY = "busy"
    CUT = "cut"
    GARBAGE = "no JSON"
    SLOW = "slow"
    UNKNOWN = "unknown for a moment"
    LAGGING = "still running for a moment"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image: `path` is that of its URL, `troubles` how many requests meet its fate where that passes."""

    path: str
    kind: str  # origin or result
    index: int  # within its kind
    format: str  # JPEG, PNG or WEBP, whatever the path's extension says
    fate: ImageFate
    troubles: int


@dataclass(frozen=True, slots=True)
class CallbackPlan:
    """One callback: what it says, when it is sent, and what happens to it."""

    says: Claim
    treatment: Treatment
    at: tuple[float, ...]  # seconds after the task's end, one for each copy; empty: never sent
    cut: Cut | None = None
    cut_attempts: int = 0  # so many of a copy's attempts are cut; the fourth is the last


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task, from its creation to what should be known of it in the end."""

    number: int
    provider: str
    task_id: str
    truth: Claim  # what the provider itself says once the task has ended; RUNNING: it never does
    ends_after: float
    registration: Registration
    images: tuple[ImagePlan, ...]
    callbacks: tuple[CallbackPlan, ...]
    poll_faults: tuple[PollFault, ...]  # of the first requests about it, one each
    is_record_shaped: bool  # its callbacks have the shape of a poll's record
    forgery: Claim | None  # what a stranger without the token says

    @property
    def task(self) -> str:
        """The item's key."""
        return f"{self.provider}#{self.task_id}"

    @property
    def ending(self) -> str:
        """The status in which it belongs, once everything that can be repaired is."""
        match self.truth.status:
            case "SUCCEEDED":
                return "ARCHIVED" if all(image.fate.ends_well for image in self.images) else "INCOMPLETE"
            case "PENDING":
                return "TIMED_OUT"
            case status:
                return status
