"""Prints the demo's progress and its final table. Without a terminal, the progress is printed as lines."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from catchlight.models import TaskStatus
from catchlight_cli.console import SafeConsole
from local.demo.runner import DemoTask
from local.simulator import Simulator

_STYLES: Mapping[str | None, str] = {
    TaskStatus.PENDING: "yellow",
    TaskStatus.SUCCEEDED: "cyan",
    TaskStatus.ARCHIVED: "green",
    TaskStatus.FAILED: "magenta",
    TaskStatus.UNCONFIRMED: "magenta",
    TaskStatus.INCOMPLETE: "red",
    TaskStatus.TIMED_OUT: "red",
}
_PLAIN_WIDTH = 120
# Narrower terminals do not show the column "Scenario".
_TITLE_WIDTH = 100
_TASK_WIDTH, _NARROW_TASK_WIDTH = 13, 9
_IMAGES_WIDTH = 20  # width of `result-0.webp  64 kB`


def make_console() -> Console:
    """Creates a console. Without a terminal, its width is that of the full table."""
    console = SafeConsole(soft_wrap=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


class Progress:
    """Shows the current status of each task while the demo runs."""

    def __init__(self, console: Console, tasks: Sequence[DemoTask], simulator: Simulator) -> None:
        self._console = console
        self._tasks = tasks
        self._simulator = simulator
        self._begun = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, changed: Sequence[DemoTask]) -> None:
        """Updates the display after a change of these tasks: redraws the table, or prints a line for each of them."""
        if self._live:
            self._live.update(self._table())
            return
        for task in changed:
            if task.item and task.status is TaskStatus.PENDING:
                continue  # its submission has already been printed
            text = _progress_text(task).plain
            if self._shown.get(task.case.key) != text:
                self._shown[task.case.key] = text
                seconds = time.monotonic() - self._begun
                self._console.print(f"{seconds:6.1f} s  {task.case.provider:<12}  {task.case.task_id:<36}  {text}")

    def _table(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for task in self._tasks:
            case = task.case
            table.add_row(case.provider, _short(case.task_id), Text(case.title, "dim"), _progress_text(task))
        ended = sum(task.is_final for task in self._tasks)
        statuses = Counter(sent.status for sent in self._simulator.deliveries)
        callbacks = ", ".join(f"{count} answered {status or 'not at all'}" for status, count in statuses.items())
        footer = f"{ended} of {len(self._tasks)} tasks final · callbacks: {callbacks or 'none yet'}"
        polls = f"{len(self._simulator.polls)} polls · {time.monotonic() - self._begun:.1f} s"
        return Group(table, Text(), Text(f"{footer} · {polls}", "bold"))


def result_table(tasks: Sequence[DemoTask], width: int) -> Table:
    """Builds the final table: one row per task, one line per image. Narrow terminals get fewer columns."""
    is_wide, shows_title = width >= _PLAIN_WIDTH, width >= _TITLE_WIDTH
    if is_wide:
        table = Table(header_style="bold", box=ROUNDED)
    else:
        table = Table(header_style="bold", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("Provider", "Task", "Scenario", "Reported by", "Status"):
        if shows_title or heading != "Scenario":
            table.add_column(heading, no_wrap=True)
    table.add_column("Images or reason", min_width=_IMAGES_WIDTH)
    table.add_column("Time", justify="right", no_wrap=True)
    for task in tasks:
        case, item, seconds = task.case, task.item or {}, task.seconds
        table.add_row(
            case.provider,
            _short(case.task_id, _TASK_WIDTH if is_wide else _NARROW_TASK_WIDTH),
            *([case.title] if shows_title else []),
            _report(item, "\n"),
            Text(str(item.get("status", "no item")), _STYLES.get(item.get("status"), "red")),
            _images_text(item),
            f"{seconds:.{int(seconds < 10)}f} s" if seconds is not None else "",
        )
    return table


def _progress_text(task: DemoTask) -> Text:
    if task.item is None:
        return Text("" if task.submitted_at is None else "submitted and registered", "dim")
    text = Text(str(task.status), _STYLES.get(task.status, ""))
    if "reportedBy" in task.item:
        text.append(f"  by {_report(task.item)}", "dim")
    return text


def _report(item: Mapping[str, Any], separator: str = ", ") -> str:
    if "reportedBy" not in item:
        return ""
    deliveries, conflicts = int(item.get("deliveries", 0)), len(item.get("conflicts", []))
    times = f" ×{deliveries}" if item["reportedBy"] == "callback" and deliveries > 1 else ""  # noqa: RUF001
    return f"{item['reportedBy']}{times}" + (
        f"{separator}{conflicts} conflict{'s' * (conflicts > 1)}" if conflicts else ""
    )


def _images_text(item: Mapping[str, Any]) -> Text:
    if "failure" in item:
        return Text(item["failure"]["reason"], "dim")
    lines = []
    for image in item.get("images", []):
        if "key" in image:
            name = image["key"].rpartition("/")[2]
            lines.append(f"{name:<13} {int(image['bytes']) / 1000:3.0f} kB")
        else:
            lines.append(f"{image['kind']} {image['state']}: {image.get('reason', '')}")
    return Text("\n".join(lines))


def _short(task_id: str, width: int = _TASK_WIDTH) -> str:
    return task_id if len(task_id) <= width else f"{task_id[: width - 1]}…"
