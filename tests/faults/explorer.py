"""Explores every order in which the requests of a scenario may be made, and every fault at every call.

Two orders that have come to equal worlds have the same future, which is looked at once. A world is all that AWS holds,
all that is on its way, and all that every invocation has been given and has heard.
"""

import random
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from tests.faults.checks import Harm, Violation
from tests.faults.invocations import Fault


class Choice(Protocol):
    """What happens next."""

    @property
    def fault(self) -> Fault | None:
        """What goes wrong with it."""


C = TypeVar("C", bound=Choice)


class Explorable(Protocol[C]):
    """A moment from which others follow."""

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What has not held on the way here from the moment before."""

    def key(self) -> Hashable:
        """Equal for two moments whose futures are the same."""

    def choices(self) -> list[C]:
        """What may happen next; nothing if all is at rest."""

    def after(self, choice: C) -> Self:
        """The moment when it has happened."""

    def tell(self, choice: C) -> str:
        """What a choice means, for people."""

    def check_end(self) -> tuple[Violation, ...]:
        """What does not hold when nothing more can happen."""


@dataclass(frozen=True, slots=True)
class Found:
    """A violation, and what has led to it."""

    violation: Violation
    story: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join((f"{self.violation.harm}: {self.violation.what}", *self.story))


@dataclass(frozen=True, slots=True)
class _Step:
    """How one world follows from another, by their numbers."""

    before: int
    after: int
    is_fault: bool
    story: str


@dataclass(slots=True)
class Exploration:
    """What an exploration has seen. Worlds are numbered as they were found, from 0 on."""

    found: list[Found] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    endings: set[Hashable] = field(default_factory=set)  # worlds in which nothing more can happen
    worlds: int = 0
    faults: int = 0

    def count(self, harm: Harm) -> int:
        """How many violations of this kind were found."""
        return sum(each.violation.harm is harm for each in self.found)

    def orders(self, *, with_faults: bool) -> int:
        """How many different orders of events there are from the beginning to an end.

        Raises:
            ValueError: one of them never ends.
        """
        following: list[list[int]] = [[] for _ in range(self.worlds)]
        open_ways = [0] * self.worlds  # that lead to a world and were not counted yet
        for step in self.steps:
            if with_faults or not step.is_fault:
                following[step.before].append(step.after)
                open_ways[step.after] += 1
        ways = [0] * self.worlds
        ways[0] = 1
        # Without faults some worlds are never reached, and their ways to others never counted.
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
    """Every order of events, breadth first: what is found has the shortest story there is."""
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
    """One order of events by chance, to its end, whatever was seen before: where it ends, and what has not held."""
    chance = random.Random(seed)
    world, violations = beginning, list(beginning.violations)
    while choices := world.choices():
        world = world.after(chance.choice(choices))
        violations += world.violations
    return world.key(), [*violations, *world.check_end()]
