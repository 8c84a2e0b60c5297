"""Defines the settings, the progress and the result of a soak test."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.artefact import Artefact
from tests.searches.soak.aws_faults import Fault
from tests.searches.soak.checks import Violation
from tests.searches.soak.history import History
from tests.searches.soak.plans import CallbackFault

LOST = frozenset(
    {
        "every task reaches its final status",
        "acknowledged callbacks are stored",
        "objects match the items",
        "conflicts are never removed",
        "unreadable callbacks are stored",
        "rejected images are in quarantine",
        "the generation request is stored",
        "other tasks of killed runs are archived",
    }
)
DUPLICATED = frozenset({"results are written once", "an event is published once", "one run per message at a time"})
UNREPORTED = frozenset(
    {
        "every final status is published",
        "every dead-letter queue has an alarm",
        "unconfirmed failures are counted",
        "oversized tasks are reported",
    }
)


@dataclass(frozen=True)
class Soak:
    """The settings of a run. The same seed plans the same tasks with the same faults."""

    tasks: int
    seed: int
    state_dir: Path
    time_scale: float = 0.05
    in_flight: int = 120  # maximum number of unfinished tasks; more would only overload the machine
    # Polls are less frequent than by default, to limit the machine's load; polling gives up earlier.
    parameters: Mapping[str, str] = field(
        default_factory=lambda: {
            "FirstPollAfterSeconds": "120",
            "PollIntervalSeconds": "120",
            "SlowPollIntervalSeconds": "120",
            "GiveUpAfterSeconds": "900",
            "LogLevel": "INFO",
        }
    )
    max_seconds: float = 3600  # in which a task or a phase must end; sufficient on a busy machine
    artefact: Artefact | None = None  # the built functions; None: the functions of the source tree


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    phase: str
    begun: int
    ended: int
    seconds: float
    rss_mb: int


@dataclass
class Report:
    """The result of a run."""

    soak: Soak
    deliveries: Mapping[CallbackFault, int]
    requests: Counter[str]  # sent callbacks, by response
    polls: Mapping[str, int]
    image_requests: int
    calls: int  # number of AWS calls by functions
    faults: Mapping[tuple[str, Fault], int]
    kills: Mapping[str, int]
    disruptions: Mapping[str, int]  # number of faults that lasted for minutes, by kind
    outcomes_before: Mapping[str, int]  # before the redrive
    outcomes: Mapping[str, int]
    dead_letters: Mapping[str, int]  # tasks by dead-letter queue, before the redrive
    objects: int
    acknowledged: int
    changes: int
    events: int
    resolved_by: Mapping[str, int]  # tasks by the source of their first result: callback or poll
    violations: list[Violation]
    history: History
    seconds: float
    rss_mb: list[int]

    @property
    def lost(self) -> int:
        """Number of violations in which data is lost."""
        return sum(violation.guarantee in LOST for violation in self.violations)

    @property
    def duplicated(self) -> int:
        """Number of violations in which work was repeated or a result stored twice."""
        return sum(violation.guarantee in DUPLICATED for violation in self.violations)

    @property
    def unreported(self) -> int:
        """Number of violations in which an event, an alarm or a log line is missing."""
        return sum(violation.guarantee in UNREPORTED for violation in self.violations)

    @property
    def faulty_share(self) -> float:
        """Share of the planned deliveries with a fault."""
        return 1 - self.deliveries[CallbackFault.NONE] / sum(self.deliveries.values())
