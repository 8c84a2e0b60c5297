"""Runs all benchmarks, or the named ones: `python -m tests.benchmarks [NAME ...]`.

A benchmark is a module of this package with `measure() -> list[Figure]`, and `draw(figures) -> dict[name, SVG]` if it
has its own pictures. The results are printed as one table. All figures and pictures are written to docs/performance.md
and docs/performance/, the figures with a goal also to the README.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

from local.environment import ignore_user_settings
from local.lambda_.sandbox import hide_packages_of_sam
from tests.benchmarks import report
from tests.benchmarks.bars import bars

# In the order of the documentation page.
BENCHMARKS = ("cold_start", "warm_callback", "polling", "archiving", "pages", "scale", "latency", "bill")
README = Path(__file__).parents[2] / "README.md"
PAGE = README.parent / "docs" / "performance.md"
FOLDER = PAGE.with_suffix("")


def main() -> int:
    """Runs the benchmarks; returns exit status 1 if a goal is missed by more than the noise of its measurements."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Runs benchmarks and compares the results with their goals."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    measured = {}
    for name in names:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        started_at = time.monotonic()
        measured[name] = report.run_of(module.measure())
        sys.stderr.write(f"{name}: measured in {time.monotonic() - started_at:.0f} s\n")
        figures = measured[name].figures
        pictures = {name: bars(name.replace("_", " "), figures)}
        if hasattr(module, "draw"):
            pictures |= module.draw(figures)
        FOLDER.mkdir(exist_ok=True)
        for picture, svg in pictures.items():
            (FOLDER / f"{picture}.svg").write_text(svg)
    all_runs = report.write_json(FOLDER / "figures.json", measured)
    all_runs = {name: all_runs[name] for name in BENCHMARKS if name in all_runs}
    report.write_markdown(PAGE, report.markdown(all_runs))
    report.write_markdown(README, report.goals(all_runs))
    report.print_table(measured)
    return any(figure.is_missed for run in measured.values() for figure in run.figures)


if __name__ == "__main__":
    # Before a benchmark is imported, which imports moto.
    ignore_user_settings()
    hide_packages_of_sam()
    sys.exit(main())
