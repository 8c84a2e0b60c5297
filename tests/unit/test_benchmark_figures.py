"""Goals of benchmarks: met, met within the noise, or missed; figures name the machine and the date of their run."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import report
from tests.benchmarks.figures import Figure, Goal, GoalResult, Samples, compared


def figure(*ratios: float, goal: Goal | None = None) -> Figure:
    """Returns a figure whose measurements have these ratios to its peer's."""
    return compared("a figure", Samples(ratios), "s", "a peer", Samples([1.0] * len(ratios)), goal)


@pytest.mark.parametrize(
    ("ratios", "goal", "verdict"),
    [
        ((0.8, 0.9, 1.0, 1.1, 1.2), Goal(1.0), GoalResult.MET),
        ((0.8, 0.9, 1.1, 1.2, 1.3), Goal(1.0), GoalResult.WITHIN_NOISE),
        ((0.8, 1.1, 1.1, 1.2, 1.3), Goal(1.0), GoalResult.NOT_MET),
        ((0.4, 0.5, 0.6, 0.7, 0.8), Goal(0.6, at_least=True), GoalResult.MET),
        ((0.4, 0.4, 0.5, 0.6, 0.7), Goal(0.6, at_least=True), GoalResult.WITHIN_NOISE),
        ((0.4, 0.4, 0.5, 0.5, 0.7), Goal(0.6, at_least=True), GoalResult.NOT_MET),
        ((1.0, 2.0, 3.0, 4.0, 5.0), Goal(3.0, of="value"), GoalResult.MET),
        ((1.0, 2.0, 3.0, 4.0, 5.0), Goal(2.0, of="value"), GoalResult.WITHIN_NOISE),
        ((1.0, 2.0, 3.0, 4.0, 5.0), Goal(1.9, of="value"), GoalResult.NOT_MET),
        ((1.0, 2.0), None, None),
    ],
)
def test_a_goal_is_missed_if_the_nearer_quartile_misses_it(
    ratios: tuple[float, ...], goal: Goal | None, verdict: GoalResult | None
) -> None:
    measured = figure(*ratios, goal=goal)

    assert measured.verdict is verdict
    assert measured.is_missed == (verdict is GoalResult.NOT_MET)


def test_a_single_value_has_no_noise() -> None:
    assert Figure("queries", 2, "", goal=Goal(1, of="value")).is_missed
    assert not Figure("queries", 1, "", goal=Goal(1, of="value")).is_missed


def test_a_goal_for_a_ratio_needs_a_peer() -> None:
    with pytest.raises(AssertionError, match="and no peer"):
        _ = Figure("alone", 1, "s", goal=Goal(1.0)).verdict


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for figures, pictures and pages, with two empty pages."""
    for name in ("PAGE", "README"):
        page = tmp_path / f"{name}.md"
        page.write_text(f"before\n{report.BEGIN}\n{report.END}\nafter\n")
        monkeypatch.setattr(benchmarks, name, page)
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path / "performance")
    return tmp_path


@pytest.mark.parametrize(
    ("ratios", "status"),
    [((0.9, 0.9, 1.1, 1.2, 1.3), 0), ((1.1, 1.1, 1.1, 1.2, 1.3), 1)],
    ids=["within the noise", "missed"],
)
def test_the_exit_status_says_whether_a_goal_is_missed(
    folder: Path,
    ratios: tuple[float, ...],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = figure(*ratios, goal=Goal(1.0))
    monkeypatch.setattr(sys, "argv", ["bench", "polling"])
    module = SimpleNamespace(measure=lambda: [measured])
    monkeypatch.setitem(sys.modules, "tests.benchmarks.polling", module)

    assert benchmarks.main() == status

    spread = f"{ratios[1]:.2f}-{ratios[3]:.2f}"
    assert spread in capsys.readouterr().out
    run = report.read_json(folder / "performance" / "figures.json")["polling"]
    assert run.figures == [measured]
    for page in (benchmarks.PAGE, benchmarks.README):
        cells = page.read_text().replace("**", "")  # rows of missed goals are bold
        assert f"{spread} | ≤ 1 ×" in cells  # noqa: RUF001
        assert f"{run.date}, {run.machine}" in page.read_text()


def test_each_benchmark_has_the_machine_and_date_of_its_own_run(tmp_path: Path) -> None:
    earlier = report.Run("an older machine", "2026-01-31", [figure(1.0, 1.0, goal=Goal(1.0))])
    path = tmp_path / "figures.json"
    report.write_json(path, {"polling": earlier, "bill": earlier})

    merged = report.write_json(path, {"bill": replace(earlier, machine="this machine", date="2026-11-28")})

    assert report.read_json(path) == merged
    assert "polling: 2026-01-31, an older machine. bill: 2026-11-28, this machine." in report.goals(merged)
    assert "Measured in one run: 2026-01-31, an older machine." in report.markdown(merged)
