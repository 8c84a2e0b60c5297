"""What a soak is told, where it is, and what it came to."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.artefact import Artefact
from local.moto.faults import Fault
from tests.soak.checks import Violation
from tests.soak.history import History
from tests.soak.plans import Treatment

LOST = frozenset(
    {
        "every task ends",
        "what is acknowledged is known",
        "objects are those of successful tasks",
        "evidence stays",
        "what cannot be read is kept",
    }
)


@dataclass(frozen=True)
class Soak:
    """What a run is like. The same seed plans the same tasks with the same faults."""

    tasks: int
    seed: int
    state_dir: Path
    time_scale: float = 0.05
    in_flight: int = 120  # tasks that have begun and not ended: more would only wait for this machine
    # Polls are rarer than by default, as this machine can bear; giving up is not waited for as long.
    parameters: Mapping[str, str] = field(
        default_factory=lambda: {
            "FirstPollAfterSeconds": "120",
            "PollIntervalSeconds": "120",
            "SlowPollIntervalSeconds": "120",
            "GiveUpAfterSeconds": "900",
            "LogLevel": "INFO",
        }
    )
    max_seconds: float = 3600
    artefact: Artefact | None = None  # the built functions; without them those of the source tree run


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    stage: str
    begun: int
    ended: int
    seconds: float
    rss_mb: int


@dataclass
class Report:
    """What a run came to."""

    soak: Soak
    deliveries: Mapping[Treatment, int]
    requests: Counter[str]  # deliveries as they were sent, by what was answered
    polls: Mapping[str, int]
    image_requests: int
    calls: int  # of functions, to AWS
    faults: Mapping[tuple[str, Fault], int]
    kills: Mapping[str, int]
    outcomes_before: Mapping[str, int]  # a redrive
    outcomes: Mapping[str, int]
    dead: Mapping[str, int]  # tasks, by failure queue, before the redrive
    objects: int
    acknowledged: int
    changes: int
    resolved_by: Mapping[str, int]  # who brought the first result that counted
    violations: list[Violation]
    history: History
    seconds: float
    rss_mb: list[int]

    @property
    def lost(self) -> int:
        """Violations that mean that something is lost."""
        return sum(violation.promise in LOST for violation in self.violations)

    @property
    def double(self) -> int:
        """Violations that mean that something was done twice."""
        return sum(violation.promise == "once" for violation in self.violations)

    @property
    def treated_share(self) -> float:
        """Of the deliveries, those that something was done to."""
        return 1 - self.deliveries[Treatment.NONE] / sum(self.deliveries.values())
