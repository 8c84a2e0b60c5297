"""Writes figures as a table for a terminal, as JSON, and as a table in Markdown."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Figure, Goal, Spread

BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
COLUMNS = ("figure", "measured", "quartiles", "against", "ratio", "goal", "")
MET, NOT_MET = "met", "NOT MET"


def print_table(figures: Mapping[str, Sequence[Figure]]) -> None:
    """Prints all figures in one table, by benchmark; goals that are not met are highlighted."""
    table = Table(title="Catchlight's figures", title_justify="left", caption=_machine(), caption_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("measured", "quartiles", "ratio", "goal") else "left")
    for benchmark, its_figures in figures.items():
        table.add_section()
        table.add_row(benchmark.replace("_", " "), style="bold")
        for figure in its_figures:
            table.add_row(*_cells(figure), style="red" if figure.is_met is False else None)
    Console(width=170).print(table)


def write_json(path: Path, figures: Mapping[str, Sequence[Figure]]) -> Mapping[str, Sequence[Figure]]:
    """Writes figures together with those of benchmarks that were not run this time, and returns all."""
    kept = read_json(path) if path.exists() else {}
    merged = {**kept, **figures}
    document = {
        "machine": _machine(),
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": {name: [asdict(figure) for figure in its_figures] for name, its_figures in merged.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return merged


def read_json(path: Path) -> dict[str, list[Figure]]:
    """Reads the figures of earlier runs."""
    document = json.loads(path.read_text())
    return {name: [figure_of(each) for each in its_figures] for name, its_figures in document["figures"].items()}


def write_markdown(path: Path, tables: str) -> None:
    """Replaces the part of a page between the markers."""
    before, _, after = split_page(path.read_text())
    path.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")


def split_page(page: str) -> tuple[str, str, str]:
    """Splits a page into the parts before, between and after the markers."""
    before, _, rest = page.partition(BEGIN)
    between, _, after = rest.partition(END)
    return before, between.strip("\n"), after


def goals(figures: Mapping[str, Sequence[Figure]]) -> str:
    """Returns the figures with a goal as one Markdown table.

    Of wall-clock time and CPU time of the same work, only the wall-clock time is included.
    """
    lines = ["| | measured | against | ratio | goal | |", "|---|--:|---|--:|--:|---|"]
    for benchmark, its_figures in figures.items():
        for figure in its_figures:
            if figure.goal and not figure.name.endswith(", CPU time"):
                name, value, _, *rest = _cells(figure)
                cells = (f"{benchmark.replace('_', ' ')}: {name}", value, *rest)
                lines.append(_row(cells, is_bold=figure.is_met is False))
    return "\n".join(lines)


def markdown(figures: Mapping[str, Sequence[Figure]]) -> str:
    """Returns the Markdown table of all figures."""
    lines = [f"Measured on {_machine()}.", ""]
    for benchmark, its_figures in figures.items():
        lines += [f"| {benchmark.replace('_', ' ')} | measured | quartiles | against | ratio | goal | |"]
        lines += ["|---|--:|--:|---|--:|--:|---|"]
        lines += [_row(_cells(figure), is_bold=figure.is_met is False) for figure in its_figures]
        lines += [""]
    return "\n".join(lines).rstrip()


def _row(cells: Iterable[str], *, is_bold: bool) -> str:
    return "| " + " | ".join(f"**{cell}**" if is_bold and cell else cell for cell in cells) + " |"


def _cells(figure: Figure) -> tuple[str, ...]:
    peer = figure.peer
    if figure.peer_value is not None:
        peer = f"{peer}: {_number(figure.peer_value)} {figure.unit}"
    verdict = {True: MET, False: NOT_MET, None: ""}[figure.is_met]
    return (
        figure.name + (f" ({figure.note})" if figure.note else ""),
        f"{_number(figure.value)} {figure.unit}".rstrip(),
        f"{_number(figure.spread.lower)}-{_number(figure.spread.upper)}" if figure.spread else "",
        peer,
        f"{figure.ratio:.2f} ×" if figure.ratio is not None else "",  # noqa: RUF001
        str(figure.goal) if figure.goal else "",
        verdict,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _machine() -> str:
    # The machine's load: if it exceeds the number of cores, wall-clock times include waiting.
    load = os.getloadavg()[0]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    return f"{machine}, load {load:.1f}"


def figure_of(document: dict[str, Any]) -> Figure:
    """Converts the result of `asdict` back to a figure."""
    nested = {"goal": Goal, "spread": Spread, "peer_spread": Spread}
    parts = {name: kind(**document[name]) if document[name] else None for name, kind in nested.items()}
    return Figure(**{**document, **parts})
