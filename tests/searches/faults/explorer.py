"""Explores every order of a scenario's requests, and every fault at every call.

If two orders lead to equal states, the events that follow are explored once. A state consists of all data that AWS
stores, all messages in transit, and the input and received answers of every invocation.
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
        """Returns a key; states with equal keys have the same possible later events and violations."""

    def choices(self) -> list[C]:
        """Returns the possible next events; empty in a final state."""

    def after(self, choice: C) -> Self:
        """Returns the state after the event."""

    def describe(self, choice: C) -> str:
        """Describes an event in plain language."""

    def check_end(self) -> tuple[Violation, ...]:
        """Returns the violations of a final state."""


@dataclass(frozen=True, slots=True)
class FoundViolation:
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

    found: list[FoundViolation] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    end_states: set[Hashable] = field(default_factory=set)  # keys of the final states
    states: int = 0
    faults: int = 0

    def count(self, harm: Harm) -> int:
        """Returns the number of violations of this kind."""
        return sum(each.violation.harm is harm for each in self.found)

    def orders(self, *, with_faults: bool) -> int:
        """Returns the number of different orders of events from the first state to a final one.

        Raises:
            ValueError: an order of events never ends.
        """
        following: list[list[int]] = [[] for _ in range(self.states)]
        uncounted_predecessors = [0] * self.states  # incoming steps of each state whose orders are not counted yet
        for step in self.steps:
            if with_faults or not step.is_fault:
                following[step.before].append(step.after)
                uncounted_predecessors[step.after] += 1
        orders_to = [0] * self.states
        orders_to[0] = 1
        # Without faults some states are unreachable; they have no predecessors and 0 orders.
        ready = deque(state for state in range(self.states) if uncounted_predecessors[state] == 0)
        ended = counted = 0
        while ready:
            state = ready.popleft()
            counted += 1
            ended += 0 if following[state] else orders_to[state]
            for after in following[state]:
                orders_to[after] += orders_to[state]
                uncounted_predecessors[after] -= 1
                if uncounted_predecessors[after] == 0:
                    ready.append(after)
        if counted < self.states:
            raise ValueError("an order of events never ends")
        return ended


def explore(start: Explorable[C], *, stop_at_first: bool = False) -> Exploration:
    """Explores all orders of events breadth-first, so that each violation has the shortest trace."""
    seen = Exploration()
    numbers = {start.key(): 0}
    steps_to: list[_Step | None] = [None]
    waiting = deque([start])
    while waiting and not (seen.found and stop_at_first):
        state = waiting.popleft()
        number = seen.states
        seen.states += 1
        choices = state.choices()
        if not choices:
            seen.end_states.add(state.key())
            seen.found += [FoundViolation(violation, _trace(steps_to, number)) for violation in state.check_end()]
        for choice in choices:
            after = state.after(choice)
            key = after.key()
            is_new = key not in numbers
            step = _Step(
                number, numbers.setdefault(key, len(numbers)), choice.fault is not None, state.describe(choice)
            )
            if is_new:
                steps_to.append(step)
                waiting.append(after)
            seen.steps.append(step)
            seen.faults += step.is_fault
            trace = (*_trace(steps_to, number), step.trace) if after.violations else ()
            seen.found += [FoundViolation(violation, trace) for violation in after.violations]
    return seen


def _trace(steps_to: list[_Step | None], number: int) -> tuple[str, ...]:
    def backwards() -> Iterator[str]:
        step = steps_to[number]
        while step is not None:
            yield step.trace
            step = steps_to[step.before]

    return tuple(backwards())[::-1]


def random_walk(start: Explorable[C], seed: int) -> tuple[Hashable, list[Violation]]:
    """Executes one random order of events to its end. Returns the final state's key and all violations."""
    rng = random.Random(seed)
    state, violations = start, list(start.violations)
    while choices := state.choices():
        state = state.after(rng.choice(choices))
        violations += state.violations
    return state.key(), [*violations, *state.check_end()]
