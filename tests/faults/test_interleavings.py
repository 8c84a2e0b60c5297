"""Every order of a callback, a poll, a stream delivery and an archive run of one task, and a crash round every call."""

import pytest

from tests.faults.explorer import explore, walk
from tests.faults.invocations import CRASHES
from tests.faults.planted_bugs import PLANTED_BUGS, PlantedBug
from tests.faults.scenarios import LARGE, SCENARIOS, SMALL, Scenario
from tests.faults.stage import Stage
from tests.faults.world import World

by_name = {scenario.name: scenario for scenario in SCENARIOS}
WALKS = 150


@pytest.mark.parametrize("scenario", SMALL, ids=lambda scenario: scenario.name)
def test_with_a_crash_round_every_call_nothing_is_lost_double_or_wrong(stage: Stage, scenario: Scenario) -> None:
    stage.prepare(scenario)

    seen = explore(World(stage, scenario, CRASHES), stop_at_first=True)

    assert list(map(str, seen.found)) == []
    assert seen.faults >= 6
    assert seen.orders(with_faults=True) > seen.orders(with_faults=False) >= 1


@pytest.mark.parametrize("scenario", LARGE, ids=lambda scenario: scenario.name)
def test_in_every_order_nothing_is_lost_double_or_wrong(stage: Stage, scenario: Scenario) -> None:
    stage.prepare(scenario)

    seen = explore(World(stage, scenario), stop_at_first=True)

    assert list(map(str, seen.found)) == []
    assert seen.orders(with_faults=False) >= 10


def test_orders_by_chance_end_where_the_exploration_ended(stage: Stage) -> None:
    """It looks once at what follows from equal worlds. Here every order is played to its end."""
    scenario = by_name["callback and poll say success"]
    stage.prepare(scenario)
    seen = explore(World(stage, scenario, CRASHES))

    for seed in range(WALKS):
        ending, violations = walk(World(stage, scenario, CRASHES), seed)
        assert violations == []
        assert ending in seen.endings


@pytest.mark.parametrize("bug", PLANTED_BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(stage: Stage, bug: PlantedBug, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = by_name[bug.scenario]
    bug.plant(monkeypatch)
    stage.prepare(scenario)

    seen = explore(World(stage, scenario, bug.faults), stop_at_first=True)

    assert bug.harm in {found.violation.harm for found in seen.found}
