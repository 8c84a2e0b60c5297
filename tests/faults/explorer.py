"""Explores every order in which the requests of a scenario can be made, and every fault at every call.

Two orders that lead to equal states have the same future, which is explored once. A state consists of everything that
AWS stores, everything in transit, and the input and received answers of every invocation.
"""

import random
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from tests.faults.checks import Harm, Violation
from tests.faults.invocations import Fault


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

    def tell(self, choice: C) -> str:
        """Describes an event in plain language."""

    def check_end(self) -> tuple[Violation, ...]:
        """Returns the violations when nothing more can happen."""


@dataclass(frozen=True, slots=True)
class Found:
    """A violation and the events that led to it."""

    violation: Violation
    story: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join((f"{self.violation.harm}: {self.violation.what}", *self.story))


@dataclass(frozen=True, slots=True)
class _Step:
    """A transition between two states, given by their numbers."""

    before: int
    after: int
    is_fault: bool
    story: str


@dataclass(slots=True)
class Exploration:
    """The result of an exploration. States are numbered in the order in which they were found, from 0."""

    found: list[Found] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    endings: set[Hashable] = field(default_factory=set)  # states in which nothing more can happen
    worlds: int = 0
    faults: int = 0

    def count(self, harm: Harm) -> int:
        """Returns the number of violations of this kind."""
        return sum(each.violation.harm is harm for each in self.found)

    def orders(self, *, with_faults: bool) -> int:
        """Returns the number of different orders of events from the first state to a final one.

        Raises:
            ValueError: one of them never ends.
        """
        following: list[list[int]] = [[] for _ in range(self.worlds)]
        open_ways = [0] * self.worlds  # incoming paths of a state that are not counted yet
        for step in self.steps:
            if with_faults or not step.is_fault:
                following[step.before].append(step.after)
                open_ways[step.after] += 1
        ways = [0] * self.worlds
        ways[0] = 1
        # Without faults some states are never reached, and their paths to others are never counted.
        ready = deque(world for world in range(self.worlds) if open_ways[world] == 0)
        ended = counted = 0
        while ready:
            world = ready.popleft()
            counted += 1
            ended += 0 if following[world] else ways[world]
            for after in following[world]:
                ways[after] += ways[world]
                open_ways[after] -= 1
                if open_ways[after] == 0:
                    ready.append(after)
        if counted < self.worlds:
            raise ValueError("an order of events that never ends")
        return ended


def explore(beginning: Explorable[C], *, stop_at_first: bool = False) -> Exploration:
    """Explores every order of events, breadth first: each violation is found with its shortest sequence of events."""
    seen = Exploration()
    numbers = {beginning.key(): 0}
    way_to: list[_Step | None] = [None]
    waiting = deque([beginning])
    while waiting and not (seen.found and stop_at_first):
        world = waiting.popleft()
        number = seen.worlds
        seen.worlds += 1
        choices = world.choices()
        if not choices:
            seen.endings.add(world.key())
            seen.found += [Found(violation, _story(way_to, number)) for violation in world.check_end()]
        for choice in choices:
            after = world.after(choice)
            key = after.key()
            is_new = key not in numbers
            step = _Step(number, numbers.setdefault(key, len(numbers)), choice.fault is not None, world.tell(choice))
            if is_new:
                way_to.append(step)
                waiting.append(after)
            seen.steps.append(step)
            seen.faults += step.is_fault
            told = (*_story(way_to, number), step.story) if after.violations else ()
            seen.found += [Found(violation, told) for violation in after.violations]
    return seen


def _story(way_to: list[_Step | None], number: int) -> tuple[str, ...]:
    def backwards() -> Iterator[str]:
        step = way_to[number]
        while step is not None:
            yield step.story
            step = way_to[step.before]

    return tuple(backwards())[::-1]


def walk(beginning: Explorable[C], seed: int) -> tuple[Hashable, list[Violation]]:
    """Follows one random order of events to its end, and returns the final state's key and the violations."""
    chance = random.Random(seed)
    world, violations = beginning, list(beginning.violations)
    while choices := world.choices():
        world = world.after(chance.choice(choices))
        violations += world.violations
    return world.key(), [*violations, *world.check_end()]
