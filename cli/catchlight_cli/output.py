"""Prints a command's result to stdout, as text or JSON, and progress and messages to stderr."""

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, Self, TypeVar

from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from catchlight.client.errors import CatchlightError
from catchlight_cli.console import SafeConsole, json_text
from catchlight_cli.durations import format_duration

Item = TypeVar("Item")

# Line width for output to a file or another program: wide enough that no line is wrapped. A task id has up to 128
# characters, the reason why an image is missing some hundreds.
PIPED_WIDTH = 2000
_COLUMN_GAP = 2
# Rows that are produced within this time are printed together, so that their columns are aligned. No row waits longer.
_PAGE_SECONDS = 0.5
# Where stderr is no terminal, a progress line is printed after the first time, then one at this interval.
_FIRST_LINE_SECONDS = 2
_NEXT_LINES_SECONDS = 10


class Output:
    """Writes a command's output. Only the result is written to stdout, so that it can be piped."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
        self._stdout = SafeConsole(soft_wrap=False, width=None if has_width else PIPED_WIDTH)
        self._stderr = SafeConsole(stderr=True)
        self._bar: Progress | None = None  # the one that the terminal shows now
        self._bar_lock = threading.Lock()  # rows are printed by two threads

    def show(self, result: BaseModel, render: Callable[[], Iterable[RenderableType]]) -> None:
        """Prints the result: with --json as JSON in one line, else the parts that `render` returns."""
        if self.as_json:
            self.show_text(json_text(result.model_dump(mode="json", by_alias=True)) + "\n")
            return
        for part in render():
            self.show_part(part)

    def show_part(self, part: RenderableType) -> None:
        """Prints a part of a text result at once, while the command still runs."""
        with _reported_write_errors(), self._hidden_bar():
            self._stdout.print(part, overflow="ignore", crop=False)
            sys.stdout.flush()

    @contextmanager
    def _hidden_bar(self) -> Iterator[None]:
        """Removes the progress bar while a result is printed to the same terminal; it continues below the result."""
        with self._bar_lock:
            bar = self._bar
            if bar is None or not sys.stdout.isatty():
                yield
                return
            bar.stop()
            try:
                yield
            finally:
                bar.start()

    def show_rows(
        self, rows: Generator[Item, None, None], cells: Callable[[Item], Sequence[RenderableType]], *columns: str
    ) -> tuple[Item, ...]:
        """Prints a table while its rows are produced, and returns the items of `rows`. Prints nothing with --json."""
        with closing(rows):  # a closed pipe or Ctrl-C closes the generator at once
            if self.as_json:
                return tuple(rows)
            items: list[Item] = []
            with _RowPrinter(PagedTable(*columns), self.show_part) as printer:
                for item in rows:
                    items.append(item)
                    printer.add(cells(item))
            return tuple(items)

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return self._stdout.is_terminal

    def clear(self) -> None:
        """Clears the terminal, before a result that replaces the one shown."""
        self._stdout.clear()

    def show_text(self, text: str) -> None:
        """Prints text unchanged and at once, for another program."""
        with _reported_write_errors(), self._hidden_bar():
            sys.stdout.write(text)
            sys.stdout.flush()

    def info(self, text: str) -> None:
        """Prints a message to stderr."""
        self._stderr.print(_one_message(text), style="dim", soft_wrap=True)

    def error(self, text: str) -> None:
        """Prints an error message to stderr."""
        self._stderr.print(Text.assemble(("error: ", "bold red"), _one_message(text)), soft_wrap=True)

    def malformed_items(self, reasons: Mapping[str, str]) -> None:
        """Prints to stderr which malformed items of the table were skipped and why, one a line, and their number.

        `reasons` has the names of the malformed attributes by the key of the item.
        """
        for key, attributes in reasons.items():
            self.info(f"Skipped {task_path(key)}: its item in the table is malformed ({attributes}).")
        if reasons:
            self.info(f"{plural(len(reasons), 'malformed item')} skipped. Correct them in the table.")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Shows a progress bar on stderr, which disappears at the end; prints lines if stderr is no terminal."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with self._shown(*columns) as progress:
            yield progress

    @contextmanager
    def _shown(self, *columns: ProgressColumn) -> Iterator[Progress]:
        if not self._stderr.is_terminal:
            with _ProgressLines(self.info, columns, self._stderr) as lines:
                yield lines
            return
        # stdout is not redirected: rich would print the piped result above the bar on stderr instead.
        with Progress(*columns, console=self._stderr, transient=True, redirect_stdout=False) as bar:
            outer, self._bar = self._bar, bar
            try:
                yield bar
            finally:
                with self._bar_lock:
                    bar.stop()
                    self._bar = outer

    @contextmanager
    def working(self, description: str) -> Iterator[None]:
        """Shows on stderr what the command is doing, for work without countable steps."""
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with self._shown(*columns) as progress:
            progress.add_task(description, total=None)
            yield

    def track(self, items: Iterable[Item], description: str, total: int | None = None) -> Generator[Item, None, None]:
        """Yields the items and shows a progress bar while the caller processes them."""
        with self.progress() as progress:
            bar = progress.add_task(description, total=total)
            for item in items:
                yield item
                progress.advance(bar)


class _ProgressLines(Progress):
    """Prints progress as lines: the first one after two seconds, then one every ten seconds."""

    def __init__(self, write: Callable[[str], None], columns: Iterable[Any], console: Console) -> None:
        super().__init__(*columns, console=console, disable=True)
        self._write = write
        self._begun = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, name="progress", daemon=True)

    def start(self) -> None:
        """Starts the thread that prints the lines."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the printing of lines."""
        self._stopped.set()

    def _write_lines(self) -> None:
        pause = _FIRST_LINE_SECONDS
        while not self._stopped.wait(pause):
            pause = _NEXT_LINES_SECONDS
            for task in self.tasks:
                number = f" {task.completed:g}" if task.completed or task.total else ""
                of_total = f" of {task.total:g}" if task.total else ""
                taken = format_duration(time.monotonic() - self._begun)
                self._write(f"{task.description}{':' if number else ''}{number}{of_total}, {taken}")


@contextmanager
def _reported_write_errors() -> Iterator[None]:
    """Converts an OSError, such as that of a full disk, into a CatchlightError; a BrokenPipeError (`| head`) stays."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CatchlightError(f"The output cannot be written: {exc.strerror or exc}.") from exc


def _one_message(text: str) -> Text:
    """Indents all lines but the first, so that no line of untrusted text looks like a message of the command."""
    return Text(text.replace("\n", "\n  "))


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Formats a number with its noun: `1 task`, `2,000 tasks`. `nouns` is the plural if it is not `noun` with an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def task_path(key: str) -> str:
    """Formats the key of a task, `provider#taskId`, as all commands print and accept it: `provider/taskId`."""
    return key.replace("#", "/", 1)


def format_time(moment: datetime) -> str:
    """Formats a time for text output: local time with its offset from UTC."""
    local = moment.astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S} {local:%z}"


class WordTable(Table):
    """A table that breaks lines between words only: ids and keys stay whole, even if the table exceeds the terminal."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Sets the widths of the columns, and renders the table."""
        unlimited = options.update(width=PIPED_WIDTH)
        least, most = [], []
        for column in self.columns:
            cells = [*column.cells, column.header] if self.show_header else list(column.cells)
            ranges = [Measurement.get(console, unlimited, cell) for cell in cells]
            least.append(max([column.min_width or 0, *(each.minimum for each in ranges)]))
            most.append(max([column.min_width or 0, *(each.maximum for each in ranges)]))
        spare = max(0, options.max_width - sum(least) - _COLUMN_GAP * len(least))
        needed = sum(most) - sum(least)
        for column, low, high in zip(self.columns, least, most, strict=True):
            column.width = high if spare >= needed else low + (high - low) * spare // needed
        return super().__rich_console__(console, unlimited)


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Returns an empty table with these columns, those in `right` right-aligned. Long cells are wrapped, never cut."""
    table = WordTable(box=None, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0))
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, overflow="fold", header_style="dim", justify=justify)
    return table


class PagedTable:
    """A table that is printed page by page. The columns of a page are at least as wide as those of the page before."""

    def __init__(self, *columns: str) -> None:
        self._columns = columns
        self._last: Table | None = None

    @property
    def has_rows(self) -> bool:
        """Whether a page was rendered."""
        return self._last is not None

    def page(self, rows: Iterable[Sequence[RenderableType]]) -> Table:
        """Renders the next page; only the first one has a header."""
        table = new_table(*self._columns)
        if self._last:
            table.show_header = False
            for column, printed in zip(table.columns, self._last.columns, strict=True):
                column.min_width = printed.width
        for row in rows:
            table.add_row(*row)
        self._last = table
        return table


class _RowPrinter:
    """Prints the rows of a table while they are produced; rows that are produced within _PAGE_SECONDS form one page."""

    def __init__(self, table: PagedTable, show: Callable[[RenderableType], None]) -> None:
        self._table = table
        self._show = show
        self._rows: list[Sequence[RenderableType]] = []
        self._printed_at = time.monotonic()
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        # The last rows must not wait until the next one is produced, which may take minutes.
        self._thread = threading.Thread(target=self._print_waiting_rows, name="rows", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._error and not exc:
            raise self._error
        self._print()  # also after Ctrl-C: the rows report work that is done

    def add(self, row: Sequence[RenderableType]) -> None:
        """Prints a row within _PAGE_SECONDS.

        Raises:
            OSError, CatchlightError: the output cannot be written.
        """
        with self._lock:
            if self._error:
                raise self._error
            self._rows.append(row)
            if time.monotonic() - self._printed_at >= _PAGE_SECONDS:
                self._print()

    def _print(self) -> None:
        rows, self._rows = self._rows, []
        self._printed_at = time.monotonic()
        if rows and not self._error:
            self._show(self._table.page(rows))

    def _print_waiting_rows(self) -> None:
        while not self._ended.wait(_PAGE_SECONDS):
            with self._lock:
                try:
                    self._print()
                except Exception as exc:  # noqa: BLE001 - `add` raises it in the command's own thread
                    self._error = exc
                    return
