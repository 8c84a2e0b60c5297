"""What a command shows: one document for machines or a page for people on stdout, progress and remarks on stderr."""

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

# Of a line that goes to a file or another program: nothing is folded, so that a task's id stays one word. An id has 128
# characters, a reason why an image is missing some hundreds.
PIPED_WIDTH = 2000


class Output:
    """Where a command's output goes. Nothing but the result goes to stdout, so that it can be piped."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        is_read_by_people = sys.stdout.isatty() or "COLUMNS" in os.environ
        self._out = Console(soft_wrap=False, width=None if is_read_by_people else PIPED_WIDTH)
        self._aside = Console(stderr=True)

    def show(self, result: BaseModel, page: Callable[[], Iterable[RenderableType]]) -> None:
        """The result: itself as JSON, or the page that is made of it."""
        if self.as_json:
            self.show_json(result.model_dump(mode="json", by_alias=True))
            return
        for part in page():
            self._out.print(part)

    def show_json(self, document: Any) -> None:
        """One JSON document in one line."""
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")

    def info(self, text: str | Text) -> None:
        """A line beside the result. What providers and tasks are called is never taken for markup."""
        self._aside.print(Text(text) if isinstance(text, str) else text, style="dim", soft_wrap=True)

    def error(self, text: str) -> None:
        """What is wrong."""
        self._aside.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)

    def progress(self) -> Progress:
        """Progress of something long, on stderr; it vanishes when it is done."""
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
        """The items, with a progress bar while they are worked on."""
        with self.progress() as progress:
            bar = progress.add_task(description, total=total)
            for item in items:
                yield item
                progress.advance(bar)


def a_table(*columns: str, title: str | None = None) -> Table:
    """A table for people; what does not fit is folded, never cut."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", header_style="dim")
    return table
