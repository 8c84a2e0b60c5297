"""Writes figures as a table for a terminal, as JSON, and as a table in Markdown."""

import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Figure, Goal, Spread

BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
COLUMNS = ("measured", "quartiles", "against", "ratio", "quartiles of the ratio", "goal", "")


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one benchmark, all of one run."""

    machine: str
    date: str  # YYYY-MM-DD, UTC
    figures: Sequence[Figure]

    @property
    def origin(self) -> str:
        """The date and the machine of the run."""
        return f"{self.date}, {self.machine}"


def run_of(figures: Sequence[Figure]) -> Run:
    """Returns figures with this machine and today's date."""
    return Run(_machine(), datetime.now(UTC).date().isoformat(), figures)


def print_table(runs: Mapping[str, Run]) -> None:
    """Prints all figures in one table, by benchmark; goals that are missed by more than the noise are highlighted."""
    table = Table(title="Catchlight's figures", title_justify="left", caption=_machine(), caption_justify="left")
    for column in ("figure", *COLUMNS):
        table.add_column(column, justify="left" if column in ("figure", "against", "") else "right")
    for benchmark, run in runs.items():
        table.add_section()
        table.add_row(benchmark.replace("_", " "), style="bold")
        for figure in run.figures:
            table.add_row(*_cells(figure), style="red" if figure.is_missed else None)
    Console(width=190).print(table)


def write_json(path: Path, runs: Mapping[str, Run]) -> Mapping[str, Run]:
    """Writes these runs and the earlier runs of all other benchmarks to a file, and returns all of them."""
    merged = {**(read_json(path) if path.exists() else {}), **runs}
    document = {name: asdict(run) for name, run in merged.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return merged


def read_json(path: Path) -> dict[str, Run]:
    """Reads the figures of earlier runs."""
    document = json.loads(path.read_text())
    return {
        name: Run(**{**run, "figures": [figure_of(each) for each in run["figures"]]}) for name, run in document.items()
    }


def write_markdown(path: Path, tables: str) -> None:
    """Replaces the text between the markers of a page."""
    before, _, after = split_page(path.read_text())
    path.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")


def split_page(page: str) -> tuple[str, str, str]:
    """Splits a page into the parts before, between and after the markers."""
    before, _, rest = page.partition(BEGIN)
    between, _, after = rest.partition(END)
    return before, between.strip("\n"), after


def goals(runs: Mapping[str, Run]) -> str:
    """Returns the figures with a goal as one Markdown table, and the machine and date of each run.

    Of wall-clock time and CPU time of the same work, only the wall-clock time is included.
    """
    lines = ["| | measured | against | ratio | quartiles of the ratio | goal | |", "|---|--:|---|--:|--:|--:|---|"]
    measured: dict[str, list[str]] = {}  # names of benchmarks by origin
    for benchmark, run in runs.items():
        figures_with_goal = [figure for figure in run.figures if figure.goal and not figure.name.endswith(", CPU time")]
        for figure in figures_with_goal:
            name, value, _, *rest = _cells(figure)
            cells = (f"{benchmark.replace('_', ' ')}: {name}", value, *rest)
            lines.append(_row(cells, is_bold=figure.is_missed))
        if figures_with_goal:
            measured.setdefault(run.origin, []).append(benchmark.replace("_", " "))
    origins = (f"{', '.join(names)}: {origin}" for origin, names in measured.items())
    return "\n".join([*lines, "", f"Measured in one run each. {'. '.join(origins)}."])


def markdown(runs: Mapping[str, Run]) -> str:
    """Returns the Markdown tables of all figures."""
    lines = []
    for benchmark, run in runs.items():
        lines += [f"| {benchmark.replace('_', ' ')} | {' | '.join(COLUMNS)} |"]
        lines += ["|---|--:|--:|---|--:|--:|--:|---|"]
        lines += [_row(_cells(figure), is_bold=figure.is_missed) for figure in run.figures]
        lines += ["", f"Measured in one run: {run.origin}.", ""]
    return "\n".join(lines).rstrip()


def _row(cells: Iterable[str], *, is_bold: bool) -> str:
    return "| " + " | ".join(f"**{cell}**" if is_bold and cell else cell for cell in cells) + " |"


def _cells(figure: Figure) -> tuple[str, ...]:
    peer = figure.peer
    if figure.peer_value is not None:
        peer = f"{peer}: {_number(figure.peer_value)} {figure.unit}"
    return (
        figure.name + (f" ({figure.note})" if figure.note else ""),
        f"{_number(figure.value)} {figure.unit}".rstrip(),
        _range(figure.spread, _number),
        peer,
        f"{figure.ratio:.2f} ×" if figure.ratio is not None else "",  # noqa: RUF001
        _range(figure.ratio_spread, "{:.2f}".format),
        str(figure.goal) if figure.goal else "",
        figure.verdict or "",
    )


def _range(spread: Spread | None, form: Callable[[float], str]) -> str:
    return f"{form(spread.lower)}-{form(spread.upper)}" if spread else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _machine() -> str:
    # The machine's load: if it exceeds the number of cores, wall-clock times include waiting.
    load = os.getloadavg()[0]
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {_processor()}, {system}, load {load:.1f}"


def _processor() -> str:
    """Returns the processor's name from /proc/cpuinfo, or else its architecture."""
    try:
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return " ".join((names or [platform.machine()])[0].split())


def figure_of(document: dict[str, Any]) -> Figure:
    """Converts the result of `asdict` back to a figure."""
    nested = {"goal": Goal, "spread": Spread, "peer_spread": Spread, "ratio_spread": Spread}
    parts = {name: kind(**document[name]) if document.get(name) else None for name, kind in nested.items()}
    return Figure(**{**document, **parts})
