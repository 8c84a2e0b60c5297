"""Explores every order in which the requests of a scenario can be made, and every fault at every call.

Two orders that lead to equal states have the same future, which is explored once. A state consists of everything that
AWS stores, everything in transit, and the input and received answers of every invocation.
"""

import random
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from tests.searches.faults.checks import Harm, Violation
from tests.searches.faults.invocations import Fault


class Choice(Protocol):
    """The next event."""

    @property
    def fault(self) -> Fault | None:
        """The fault that the event includes, or None."""


C = TypeVar("C", bound=Choice)


class Explorable(Protocol[C]):
    """A state with successor states."""

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The violations on the step from the previous state."""

    def key(self) -> Hashable:
        """Returns a key that is equal for two states with the same future."""

    def choices(self) -> list[C]:
        """Returns the possible next events; empty if nothing can happen any more."""

    def after(self, choice: C) -> Self:
        """Returns the state after the event."""

    def describe(self, choice: C) -> str:
        """Describes an event in plain language."""

    def check_end(self) -> tuple[Violation, ...]:
        """Returns the violations when nothing more can happen."""


@dataclass(frozen=True, slots=True)
class Found:
    """A violation and the events that led to it."""

    violation: Violation
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join((f"{self.violation.harm}: {self.violation.what}", *self.trace))


@dataclass(frozen=True, slots=True)
class _Step:
    """A transition between two states, given by their numbers."""

    before: int
    after: int
    is_fault: bool
    trace: str


@dataclass(slots=True)
class Exploration:
    """The result of an exploration. States are numbered in the order in which they were found, from 0."""

    found: list[Found] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    endings: set[Hashable] = field(default_factory=set)  # states in which nothing more can happen
    states: int = 0
    faults: int = 0

    def count(self, harm: Harm) -> int:
        """Returns the number of violations of this kind."""
        return sum(each.violation.harm is harm for each in self.found)

    def orders(self, *, with_faults: bool) -> int:
        """Returns the number of different orders of events from the first state to a final one.

        Raises:
            ValueError: one of them never ends.
        """
        following: list[list[int]] = [[] for _ in range(self.states)]
        open_ways = [0] * self.states  # incoming paths of a state that are not counted yet
        for step in self.steps:
            if with_faults or not step.is_fault:
                following[step.before].append(step.after)
                open_ways[step.after] += 1
        ways = [0] * self.states
        ways[0] = 1
        # Without faults some states are never reached, and their paths to others are never counted.
        ready = deque(state for state in range(self.states) if open_ways[state] == 0)
        ended = counted = 0
        while ready:
            state = ready.popleft()
            counted += 1
            ended += 0 if following[state] else ways[state]
            for after in following[state]:
                ways[after] += ways[state]
                open_ways[after] -= 1
                if open_ways[after] == 0:
                    ready.append(after)
        if counted < self.states:
            raise ValueError("an order of events that never ends")
        return ended


def explore(beginning: Explorable[C], *, stop_at_first: bool = False) -> Exploration:
    """Explores every order of events, breadth first: each violation is found with its shortest sequence of events."""
    seen = Exploration()
    numbers = {beginning.key(): 0}
    way_to: list[_Step | None] = [None]
    waiting = deque([beginning])
    while waiting and not (seen.found and stop_at_first):
        state = waiting.popleft()
        number = seen.states
        seen.states += 1
        choices = state.choices()
        if not choices:
            seen.endings.add(state.key())
            seen.found += [Found(violation, _trace(way_to, number)) for violation in state.check_end()]
        for choice in choices:
            after = state.after(choice)
            key = after.key()
            is_new = key not in numbers
            step = _Step(
                number, numbers.setdefault(key, len(numbers)), choice.fault is not None, state.describe(choice)
            )
            if is_new:
                way_to.append(step)
                waiting.append(after)
            seen.steps.append(step)
            seen.faults += step.is_fault
            trace = (*_trace(way_to, number), step.trace) if after.violations else ()
            seen.found += [Found(violation, trace) for violation in after.violations]
    return seen


def _trace(way_to: list[_Step | None], number: int) -> tuple[str, ...]:
    def backwards() -> Iterator[str]:
        step = way_to[number]
        while step is not None:
            yield step.trace
            step = way_to[step.before]

    return tuple(backwards())[::-1]


def walk(beginning: Explorable[C], seed: int) -> tuple[Hashable, list[Violation]]:
    """Follows one random order of events to its end, and returns the final state's key and the violations."""
    chance = random.Random(seed)
    state, violations = beginning, list(beginning.violations)
    while choices := state.choices():
        state = state.after(chance.choice(choices))
        violations += state.violations
    return state.key(), [*violations, *state.check_end()]
