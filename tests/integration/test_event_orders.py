"""A sample of the searches in tests/searches/faults, for every day: `make faults` tries all of it."""

from collections.abc import Iterator

import pytest

from tests.searches.faults.explorer import explore
from tests.searches.faults.harness import Harness, a_harness
from tests.searches.faults.invocations import CRASHES
from tests.searches.faults.scenarios import SCENARIOS
from tests.searches.faults.state import State

by_name = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with a_harness() as harness:
        yield harness


@pytest.mark.parametrize("name", ["callback and poll say success", "nobody registered it"])
def test_with_a_crash_around_every_call_nothing_is_lost_double_or_wrong(harness: Harness, name: str) -> None:
    scenario = by_name[name]
    harness.prepare(scenario)

    seen = explore(State(harness, scenario, CRASHES), stop_at_first=True)

    assert list(map(str, seen.found)) == []
    assert seen.faults >= 6
