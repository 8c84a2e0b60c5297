"""Soak-tests the local stack with thousands of tasks, faulty callbacks, killed functions and failing services.

python -m tests.searches.soak --tasks 10000 --seed 1
"""

import argparse
import sys
import time
from pathlib import Path

from local.environment import ignore_user_settings

if __name__ == "__main__":  # before boto3 or moto is imported
    ignore_user_settings()

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from local.artefact import built_artefact
from tests.searches.soak.planning import plan_tasks
from tests.searches.soak.report import Progress as SoakProgress
from tests.searches.soak.report import Report, Soak
from tests.searches.soak.run import run
from tests.searches.soak.table import table
from tests.searches.soak.task_traces import task_trace

PROGRESS_INTERVAL_SECONDS = 30
MAX_TRACES = 30


def main() -> int:
    """Runs the soak test; returns 0 if no guarantee was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000, help="number of tasks (default: 10000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed plans the same tasks and faults")
    parser.add_argument(
        "--in-flight",
        type=int,
        default=Soak.in_flight,
        help=f"maximum number of unfinished tasks (default: {Soak.in_flight})",
    )
    parser.add_argument(
        "--time-scale",
        type=float,
        default=Soak.time_scale,
        help=f"factor of all simulated times, such as the waits of the state machine (default: {Soak.time_scale})",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path(".local/soak"),
        help="folder for logs and for traces of tasks with violations (default: .local/soak)",
    )
    parser.add_argument("--built", action="store_true", help="run the output of `sam build` instead of the sources")
    options = parser.parse_args()
    console = Console()
    artefact = built_artefact(lambda message: console.print(message, markup=False)) if options.built else None
    soak = Soak(
        options.tasks,
        options.seed,
        options.state_dir,
        time_scale=options.time_scale,
        in_flight=options.in_flight,
        artefact=artefact,
    )
    report = _run_with_bar(soak, console) if console.is_terminal else _run_with_lines(soak, console)
    console.print(table(report))
    for violation in report.violations[:MAX_TRACES]:
        console.print(str(violation), style="red", soft_wrap=True, markup=False)
    if not report.violations:
        console.print("No guarantee was violated.", style="green")
        return 0
    path = soak.state_dir / "traces.txt"
    path.write_text("\n".join(_traces(report)) + "\n")
    console.print(f"{len(report.violations)} violations. The traces of their tasks are in {path}.", style="red")
    return 1


def _traces(report: Report) -> list[str]:
    plans = {plan.task: plan for plan in plan_tasks(report.soak.seed, report.soak.tasks)}
    lines = []
    for violation in report.violations[:MAX_TRACES]:
        lines.append(str(violation))
        if plan := plans.get(violation.task):
            lines += task_trace(plan, report.history, report.soak.state_dir / "logs")
    return lines


def _run_with_bar(soak: Soak, console: Console) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("starting", total=soak.tasks)

        def show(progress: SoakProgress) -> None:
            bar.update(shown, description=progress.phase, completed=progress.ended)

        return run(soak, show)


def _run_with_lines(soak: Soak, console: Console) -> Report:
    last = time.monotonic()

    def show(progress: SoakProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_INTERVAL_SECONDS:
            last = time.monotonic()
            console.print(
                f"{progress.seconds:5.0f} s  {progress.phase}: {progress.ended:,} of {soak.tasks:,} tasks ended, "
                f"{progress.begun - progress.ended:,} in progress, {progress.rss_mb} MB"
            )

    return run(soak, show)


if __name__ == "__main__":
    sys.exit(main())
