"""Explores all scenarios with every fault at every call, and compares the table with its model: `make faults`.

    .venv/bin/python -m tests.searches.faults [SCENARIO ... | table]

The exit status is 1 if there was a violation: a lost, duplicated or wrong result.
"""

import sys
import time

from rich.console import Console
from rich.table import Table

from tests import conftest  # noqa: F401 - first: it sets the environment in which other modules are imported
from tests.integration.conftest import a_store, an_account
from tests.project_template import project_template
from tests.searches.faults.checks import Harm
from tests.searches.faults.explorer import Exploration, explore
from tests.searches.faults.harness import Harness, a_harness
from tests.searches.faults.invocations import Fault
from tests.searches.faults.scenarios import SCENARIOS
from tests.searches.faults.state import State
from tests.searches.faults.table_machine import WITH_FAULT, check_table

TABLE = "table"
TABLE_EXAMPLES = 1000
_COLUMNS = ("orders", "with a fault", "states", "steps", "faults", "lost", "duplicated", "wrong", "seconds")


def main(names: list[str]) -> int:
    """Prints a line for each scenario and the violations found; returns the exit status."""
    console = Console(width=150)
    harm = _explore(names, console) if names != [TABLE] else 0
    if not names or TABLE in names:
        _compare_table_with_model(console)
    return harm


def _compare_table_with_model(console: Console) -> None:
    """Compares the table with its model; fails with the steps that show a difference."""
    started = time.monotonic()
    with an_account():
        seen = check_table(a_store(project_template()), examples=TABLE_EXAMPLES)
    with_fault = seen.pop(WITH_FAULT)
    counts = ", ".join(f"{count:,} {status}" for status, count in seen.most_common())
    console.print(
        f"The tasks table and its model: {TABLE_EXAMPLES:,} examples, {seen.total():,} steps, {with_fault:,} of them "
        "with a fault. After each step the item equalled the model's item; steps by its status: "
        f"{counts}. {time.monotonic() - started:.0f} seconds.",
        markup=False,
    )


def _explore(names: list[str], console: Console) -> int:
    table = Table(title="Every order of events, every fault at every call")
    table.add_column("scenario", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    explorations = []
    with a_harness() as harness:
        for scenario in SCENARIOS:
            if names and scenario.name not in names:
                continue
            harness.prepare(scenario)
            started = time.monotonic()
            seen = explore(State(harness, scenario, Fault))
            explorations.append(seen)
            seconds = time.monotonic() - started
            table.add_row(scenario.name, *_figures(seen), f"{seconds:.1f}")
            sys.stderr.write(f"{scenario.name}: {len(seen.steps):,} steps in {seconds:.0f} s\n")
            for found in seen.found[:3]:
                console.print(f"{scenario.name}: {found}", markup=False)
        console.print(table)
        console.print(_summary(explorations, harness), markup=False)
    return int(any(seen.found for seen in explorations))


def _figures(seen: Exploration) -> list[str]:
    orders = (seen.orders(with_faults=False), seen.orders(with_faults=True))
    counts = (*orders, seen.states, len(seen.steps), seen.faults, *(seen.count(harm) for harm in Harm))
    return [f"{count:,}" for count in counts]


def _summary(explorations: list[Exploration], harness: Harness) -> str:
    return (
        f"{sum(seen.orders(with_faults=True) for seen in explorations):,} orders of events; "
        f"{sum(len(seen.steps) for seen in explorations):,} steps checked, "
        f"{sum(seen.faults for seen in explorations):,} of them faults; "
        f"{sum(len(seen.end_states) for seen in explorations):,} end states checked; "
        + ", ".join(f"{sum(seen.count(harm) for seen in explorations)} {harm}" for harm in Harm)
        + f".\nThe functions were run {harness.runner.runs:,} times, moto executed {harness.aws.calls_made:,} calls."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
