"""Represents the results of a benchmark: figures, each with a peer of the same run and a goal."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
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

    def best_for(self, goal: Goal) -> float:
        """Returns the quartile that is nearer to the goal, or beyond it."""
        return self.upper if goal.at_least else self.lower


class GoalResult(StrEnum):
    """Whether a figure meets its goal. The noise of a ratio is the spread of its measurements."""

    MET = "met"
    WITHIN_NOISE = "within noise"  # the median misses the goal, but a quarter of the measurements meet it
    NOT_MET = "NOT MET"


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
    ratio_spread: Spread | None = None
    note: str = ""

    @property
    def verdict(self) -> GoalResult | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        is_ratio = self.goal.of == "ratio"
        measured, spread = (self.ratio, self.ratio_spread) if is_ratio else (self.value, self.spread)
        assert measured is not None, f"{self.name} has a goal for a ratio, and no peer"
        if self.goal.is_met_by(measured):
            return GoalResult.MET
        if spread is not None and self.goal.is_met_by(spread.best_for(self.goal)):
            return GoalResult.WITHIN_NOISE
        return GoalResult.NOT_MET

    @property
    def is_missed(self) -> bool:
        """Whether the figure misses its goal by more than the noise."""
        return self.verdict is GoalResult.NOT_MET


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

    def ratios_to(self, peer: "Samples") -> "Samples":
        """Returns the ratio of each measurement to the peer's measurement that was taken directly before or after it.

        On a busy machine, both measurements of a pair slow down alike. The medians of all measurements do not.
        """
        return Samples([mine / theirs for mine, theirs in zip(self.values, peer.values, strict=True)])


def compared(
    name: str, samples: Samples, unit: str, peer: str, peer_samples: Samples, goal: Goal | None = None, note: str = ""
) -> Figure:
    """Returns the figure of samples and a peer's samples, which were measured in turns."""
    ratios = samples.ratios_to(peer_samples)
    return Figure(
        name,
        samples.median,
        unit,
        peer,
        peer_samples.median,
        ratios.median,
        goal,
        samples.spread,
        peer_samples.spread,
        ratios.spread,
        note,
    )
