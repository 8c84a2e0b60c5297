"""Represents the results of a benchmark: figures, each with a peer of the same run and a goal."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for a figure, or for its ratio to its peer."""

    limit: float
    of: str = "ratio"  # or "value"
    at_least: bool = False

    def is_met_by(self, measured: float) -> bool:
        """Returns whether the measured value meets the goal."""
        return measured >= self.limit if self.at_least else measured <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{' ×' if self.of == 'ratio' else ''}"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Spread:
    """The quartiles: half of all measurements lie between them."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    peer: str = ""  # description of the compared variant
    peer_value: float | None = None
    ratio: float | None = None  # to the peer
    goal: Goal | None = None
    spread: Spread | None = None
    peer_spread: Spread | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        measured = self.ratio if self.goal.of == "ratio" else self.value
        return measured is not None and self.goal.is_met_by(measured)


@dataclass(frozen=True, slots=True)
class Samples:
    """Measurements of one thing, in the order in which they were taken."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def spread(self) -> Spread:
        """The quartiles."""
        lower, _, upper = quantiles(self.values, n=4, method="inclusive")
        return Spread(lower, upper)

    def ratio_to(self, peer: "Samples") -> float:
        """Returns the median ratio of measurements that were taken directly after one another.

        On a busy machine both halves of a pair slow down alike; the medians of all measurements would not.
        """
        return median(mine / theirs for mine, theirs in zip(self.values, peer.values, strict=True))


def compared(
    name: str, samples: Samples, unit: str, peer: str, peer_samples: Samples, goal: Goal | None = None, note: str = ""
) -> Figure:
    """Returns a figure of samples compared with a peer's, taken in turns."""
    return Figure(
        name,
        samples.median,
        unit,
        peer,
        peer_samples.median,
        samples.ratio_to(peer_samples),
        goal,
        samples.spread,
        peer_samples.spread,
        note,
    )
