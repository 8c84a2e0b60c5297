"""Prints a command's result to stdout, as JSON or as formatted text, and progress and messages to stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Item = TypeVar("Item")

# Line width for output to a file or another program: wide enough that no line is wrapped and no task id is split. An id
# has up to 128 characters, the reason why an image is missing some hundreds.
PIPED_WIDTH = 2000


class Output:
    """Writes a command's output. Only the result is written to stdout, so that it can be piped."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        is_read_by_people = sys.stdout.isatty() or "COLUMNS" in os.environ
        self._out = Console(soft_wrap=False, width=None if is_read_by_people else PIPED_WIDTH)
        self._aside = Console(stderr=True)

    def show(self, result: BaseModel, page: Callable[[], Iterable[RenderableType]]) -> None:
        """Prints the result: as JSON with --json, else the parts that `page` returns."""
        if self.as_json:
            self.show_json(result.model_dump(mode="json", by_alias=True))
            return
        for part in page():
            self._out.print(part)

    def show_json(self, document: Any) -> None:
        """Prints a JSON document in one line."""
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")

    def info(self, text: str | Text) -> None:
        """Prints a message to stderr. Names of tasks and providers in it are never interpreted as rich markup."""
        self._aside.print(Text(text) if isinstance(text, str) else text, style="dim", soft_wrap=True)

    def error(self, text: str) -> None:
        """Prints an error message to stderr."""
        self._aside.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)

    def progress(self) -> Progress:
        """Returns a progress bar for stderr, which disappears when it is complete."""
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._aside,
            transient=True,
            disable=not self._aside.is_terminal,
        )

    def track(self, items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
        """Yields the items and shows a progress bar while the caller processes them."""
        with self.progress() as progress:
            bar = progress.add_task(description, total=total)
            for item in items:
                yield item
                progress.advance(bar)


def a_table(*columns: str, title: str | None = None) -> Table:
    """Returns an empty table with these columns; cells that do not fit are wrapped, never cut."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", header_style="dim")
    return table
