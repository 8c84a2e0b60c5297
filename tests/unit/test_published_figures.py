"""README and docs have the figures of the last measurement."""

from pathlib import Path

import pytest

from tests.benchmarks import report
from tests.benchmarks.__main__ import BENCHMARKS, FOLDER, PAGE, README

every = report.read_json(FOLDER / "figures.json")
RUNS = {name: every[name] for name in BENCHMARKS}


def between(page: Path) -> str:
    return report.split_page(page.read_text())[1]


def test_the_readme_has_the_figures_with_a_goal() -> None:
    assert between(README) == report.goals(RUNS)


def test_the_page_has_every_figure() -> None:
    assert between(PAGE) == report.markdown(RUNS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_its_picture(name: str) -> None:
    assert (FOLDER / f"{name}.svg").read_text().startswith("<svg")
    assert f"](performance/{name}.svg)" in PAGE.read_text()


def test_figures_that_miss_their_goal_are_bold() -> None:
    for run in RUNS.values():
        for figure in run.figures:
            if figure.is_missed:
                assert f"**{figure.name}**" in between(PAGE)
