"""Tests the explorer on a model whose states can be counted by hand."""

from dataclasses import dataclass, replace

import pytest

from tests.searches.faults.checks import Harm, Violation
from tests.searches.faults.explorer import explore, random_walk
from tests.searches.faults.invocations import Fault


@dataclass(frozen=True)
class Move:
    """One of two tokens advances by one step; with a fault it returns to its start."""

    token: int
    fault: Fault | None = None


@dataclass(frozen=True)
class Tokens:
    """Two independent tokens that advance three steps each."""

    places: tuple[int, int] = (0, 0)
    faults_left: int = 0
    forbidden: tuple[int, int] | None = None
    is_endless: bool = False
    violations: tuple[Violation, ...] = ()

    def key(self) -> tuple[object, ...]:
        return self.places, self.faults_left

    def choices(self) -> list[Move]:
        movable = [token for token in (0, 1) if self.places[token] < 3]
        return [Move(token) for token in movable] + [
            Move(token, Fault.CRASHED_BEFORE) for token in movable if self.faults_left
        ]

    def after(self, move: Move) -> "Tokens":
        place = 0 if move.fault else self.places[move.token] + 1
        places = (place, self.places[1]) if move.token == 0 else (self.places[0], place)
        if self.is_endless and places == (3, 3):
            places = (0, 0)
        broken = (Violation(Harm.WRONG, "forbidden"),) if places == self.forbidden else ()
        return replace(self, places=places, faults_left=self.faults_left - (move.fault is not None), violations=broken)

    def describe(self, move: Move) -> str:
        return f"{move.token} from {self.places[move.token]}"

    def check_end(self) -> tuple[Violation, ...]:
        return ()


def test_every_order_of_independent_steps_is_counted() -> None:
    seen = explore(Tokens())

    assert seen.states == 4 * 4
    assert len(seen.steps) == 2 * 3 * 4
    assert seen.orders(with_faults=False) == seen.orders(with_faults=True) == 20  # 6 over 3
    assert len(seen.end_states) == 1
    assert seen.found == []


def test_faults_are_separate_steps() -> None:
    seen = explore(Tokens(faults_left=1))

    assert seen.states == 2 * 4 * 4
    assert seen.faults == 2 * 3 * 4
    assert seen.orders(with_faults=False) == 20
    assert seen.orders(with_faults=True) > 20
    assert len(seen.end_states) == 2


def test_a_violation_is_reported_with_its_shortest_sequence_of_events() -> None:
    seen = explore(Tokens(forbidden=(2, 1)), stop_at_first=True)

    assert str(seen.found[0]).splitlines()[0] == "wrong: forbidden"
    assert len(seen.found[0].trace) == 3


def test_an_endless_order_is_an_error() -> None:
    with pytest.raises(ValueError, match="never ends"):
        explore(Tokens(is_endless=True)).orders(with_faults=False)


def test_a_random_order_is_repeatable_and_ends() -> None:
    assert {random_walk(Tokens(), seed)[0] for seed in range(20)} == {((3, 3), 0)}
    assert random_walk(Tokens(faults_left=1), 7) == random_walk(Tokens(faults_left=1), 7)
