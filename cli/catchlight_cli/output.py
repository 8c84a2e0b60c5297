"""Prints a command's result to stdout, as text or JSON, and progress and messages to stderr."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from rich.console import JustifyMethod, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from catchlight_cli.console import SafeConsole, json_text

Item = TypeVar("Item")

# Line width for output to a file or another program: wide enough that no line is wrapped. A task id has up to 128
# characters, the reason why an image is missing some hundreds.
PIPED_WIDTH = 2000


class Output:
    """Writes a command's output. Only the result is written to stdout, so that it can be piped."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
        self._stdout = SafeConsole(soft_wrap=False, width=None if has_width else PIPED_WIDTH)
        self._stderr = SafeConsole(stderr=True)

    def show(self, result: BaseModel, render: Callable[[], Iterable[RenderableType]]) -> None:
        """Prints the result: as JSON with --json, else the parts that `render` returns."""
        if self.as_json:
            self.show_json(result.model_dump(mode="json", by_alias=True))
            return
        for part in render():
            self.show_part(part)

    def show_part(self, part: RenderableType) -> None:
        """Prints a part of a result for people at once, while the command still runs."""
        self._stdout.print(part)
        sys.stdout.flush()

    def show_json(self, document: Any) -> None:
        """Prints a JSON document in one line of ASCII."""
        sys.stdout.write(json_text(document) + "\n")

    def show_text(self, text: str) -> None:
        """Prints text as it is and at once, for another program."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def info(self, text: str | Text) -> None:
        """Prints a message to stderr."""
        self._stderr.print(_one_message(text) if isinstance(text, str) else text, style="dim", soft_wrap=True)

    def error(self, text: str) -> None:
        """Prints an error message to stderr."""
        self._stderr.print(Text.assemble(("error: ", "bold red"), _one_message(text)), soft_wrap=True)

    def malformed_items(self, keys: Sequence[str]) -> None:
        """Prints to stderr which malformed items of the table were skipped, if any."""
        if keys:
            self.info(f"Skipped malformed items of the table: {', '.join(keys)}. Correct them in the table.")

    def progress(self) -> Progress:
        """Returns a progress bar on stderr, which disappears when it is complete."""
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._stderr,
            transient=True,
            disable=not self._stderr.is_terminal,
        )

    def track(self, items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
        """Yields the items and shows a progress bar while the caller processes them."""
        with self.progress() as progress:
            bar = progress.add_task(description, total=total)
            for item in items:
                yield item
                progress.advance(bar)


def _one_message(text: str) -> Text:
    """Indents all lines but the first: a newline in the text of others cannot look like a message of ours."""
    return Text(text.replace("\n", "\n  "))


def plural(number: int, noun: str) -> str:
    """Formats a number of things: `1 task`, `2,000 tasks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Returns an empty table with these columns, those in `right` right-aligned. Long cells are wrapped, never cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, overflow="fold", header_style="dim", justify=justify)
    return table
