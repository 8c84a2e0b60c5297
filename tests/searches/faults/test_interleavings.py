"""Explores all orders of one task's callbacks, polls, stream deliveries and archive runs, with crashes."""

from dataclasses import replace

import pytest

from tests.searches.faults.explorer import explore, random_walk
from tests.searches.faults.harness import Harness
from tests.searches.faults.invocations import CRASHES
from tests.searches.faults.mutants import MUTANTS, Mutant
from tests.searches.faults.scenarios import LARGE, SCENARIOS, SMALL, Scenario
from tests.searches.faults.state import State

by_name = {scenario.name: scenario for scenario in SCENARIOS}
RANDOM_WALKS = 150


@pytest.mark.parametrize("scenario", SMALL, ids=lambda scenario: scenario.name)
def test_with_a_crash_at_every_call_nothing_is_lost_duplicated_or_wrong(harness: Harness, scenario: Scenario) -> None:
    harness.prepare(scenario)

    seen = explore(State(harness, scenario, CRASHES), stop_at_first=True)

    assert list(map(str, seen.found)) == []
    assert seen.faults >= 6
    assert seen.orders(with_faults=True) > seen.orders(with_faults=False) >= 1


@pytest.mark.parametrize("scenario", LARGE, ids=lambda scenario: scenario.name)
def test_in_every_order_nothing_is_lost_duplicated_or_wrong(harness: Harness, scenario: Scenario) -> None:
    scenario = replace(scenario, records_tries=True)
    harness.prepare(scenario)

    seen = explore(State(harness, scenario), stop_at_first=True)

    assert list(map(str, seen.found)) == []
    assert seen.orders(with_faults=False) >= 10


def test_random_orders_end_in_explored_final_states(harness: Harness) -> None:
    """The exploration merges equal states; here each order is executed to its end."""
    scenario = by_name["callback and poll report success"]
    harness.prepare(scenario)
    seen = explore(State(harness, scenario, CRASHES))

    for seed in range(RANDOM_WALKS):
        end_state, violations = random_walk(State(harness, scenario, CRASHES), seed)
        assert violations == []
        assert end_state in seen.end_states


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_detected(harness: Harness, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = by_name[mutant.scenario]
    mutant.apply(monkeypatch)
    harness.prepare(scenario)

    seen = explore(State(harness, scenario, mutant.faults), stop_at_first=True)

    assert mutant.harm in {found.violation.harm for found in seen.found}
