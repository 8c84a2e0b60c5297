"""Defines the settings, the progress and the result of a soak test."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.artefact import Artefact
from tests.searches.soak.aws_faults import Fault
from tests.searches.soak.checks import Violation
from tests.searches.soak.history import History
from tests.searches.soak.plans import Treatment

LOST = frozenset(
    {
        "every task ends",
        "what is acknowledged is known",
        "objects are those of successful tasks",
        "evidence stays",
        "what cannot be read is kept",
        "refused bytes are kept",
        "the request is kept",
        "no neighbour is taken along",
    }
)
DOUBLE = frozenset({"once", "an event is published once", "one run at a time"})
SILENT = frozenset(
    {
        "every final status is an event",
        "dead letters raise an alarm",
        "false failures are counted",
        "killed tries are reported",
    }
)


@dataclass(frozen=True)
class Soak:
    """The settings of a run. The same seed plans the same tasks with the same faults."""

    tasks: int
    seed: int
    state_dir: Path
    time_scale: float = 0.05
    in_flight: int = 120  # tasks that have started and not ended: more would only overload the machine
    # Polls are rarer than by default, to limit the load of the machine; giving up takes less time.
    parameters: Mapping[str, str] = field(
        default_factory=lambda: {
            "FirstPollAfterSeconds": "120",
            "PollIntervalSeconds": "120",
            "SlowPollIntervalSeconds": "120",
            "GiveUpAfterSeconds": "900",
            "LogLevel": "INFO",
        }
    )
    max_seconds: float = 3600  # until the next task ends, or the phase: a busy machine is slow, but tasks end on it
    artefact: Artefact | None = None  # the built functions; without it those of the source tree run


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
    deliveries: Mapping[Treatment, int]
    requests: Counter[str]  # sent deliveries, by response
    polls: Mapping[str, int]
    image_requests: int
    calls: int  # number of AWS calls by functions
    faults: Mapping[tuple[str, Fault], int]
    kills: Mapping[str, int]
    weather: Mapping[str, int]  # what was out or late for minutes, and how often
    outcomes_before: Mapping[str, int]  # before the redrive
    outcomes: Mapping[str, int]
    dead: Mapping[str, int]  # tasks by failure queue, before the redrive
    objects: int
    acknowledged: int
    changes: int
    events: int
    resolved_by: Mapping[str, int]  # source of the first effective result
    violations: list[Violation]
    history: History
    seconds: float
    rss_mb: list[int]

    @property
    def lost(self) -> int:
        """Number of violations in which data is lost."""
        return sum(violation.promise in LOST for violation in self.violations)

    @property
    def double(self) -> int:
        """Number of violations in which work was done twice."""
        return sum(violation.promise in DOUBLE for violation in self.violations)

    @property
    def silent(self) -> int:
        """Number of violations that nobody is told of."""
        return sum(violation.promise in SILENT for violation in self.violations)

    @property
    def treated_share(self) -> float:
        """Share of the deliveries that met a fault."""
        return 1 - self.deliveries[Treatment.NONE] / sum(self.deliveries.values())
