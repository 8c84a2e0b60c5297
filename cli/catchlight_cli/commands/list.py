"""Implements `catchlight list`: lists tasks by status, provider and time, page by page as they arrive."""

import argparse
import csv
import io
from collections.abc import Callable, Iterable, Iterator

from catchlight.api.response_models import TaskPage, TaskResponse
from catchlight.client import TasksClient
from catchlight.client.errors import UsageError
from catchlight.models import ImageState
from catchlight_cli.arguments import add_filters, add_limit, filters
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.console import json_text
from catchlight_cli.interruption import ended_by_closed_stdout
from catchlight_cli.output import Output
from catchlight_cli.output_tasks import TaskTable

_DEFAULT_LIMIT = 50
# A small first page shows its rows sooner: a local stack needs 0.25 s for a page of 100 tasks, 0.1 s for one of 20.
_FIRST_PAGE = 20
# Catchlight writes or validates the text of all columns, so none can contain a spreadsheet formula.
_CSV_COLUMNS: dict[str, Callable[[TaskResponse], object]] = {
    "task": lambda task: f"{task.provider}/{task.task_id}",
    "status": lambda task: task.status.value,
    "reason": lambda task: task.failure and task.failure.reason.value,
    "reportedBy": lambda task: task.reported_by,
    "arrivedAt": lambda task: task.arrived_at,
    "reportedAt": lambda task: task.reported_at,
    "archivedAt": lambda task: task.archived_at,
    "images": lambda task: len(task.images),
    "archivedImages": lambda task: sum(image.state is ImageState.ARCHIVED for image in task.images),
    "ref": lambda task: task.ref,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_filters(parser)
    number = parser.add_mutually_exclusive_group()
    add_limit(number, _DEFAULT_LIMIT, "tasks")
    number.add_argument("--all", action="store_true", help="list all tasks")
    parser.add_argument("--format", choices=list(_FORMATS), help="format of the output (default: table)")


def run(session: Session) -> ExitStatus:
    """Lists tasks, the newest first; prints each page before it requests the next one.

    Raises:
        UsageError: --json and another format are given.
    """
    options, output = session.options, session.output
    format_ = options.format or ("json" if output.as_json else "table")
    if output.as_json and format_ != "json":
        raise UsageError(f"Give either --json or --format {format_}, not both.")
    with TasksClient.of(session.stack) as api:
        limit = None if options.all else options.limit
        # One task more than is shown, to find out whether there are older ones.
        pages = api.pages(**filters(options), limit=limit and limit + 1, first_page=_FIRST_PAGE)
        with ended_by_closed_stdout(), output.progress() as progress:
            bar = progress.add_task("Listing", total=limit)
            listing = _Listing(pages, limit, on_progress=lambda more: progress.advance(bar, more))
            _FORMATS[format_](listing, output)
    if listing.has_more:
        output.info(f"There are older tasks: --limit is {options.limit}. To list all tasks, use --all.")
    output.malformed_items(listing.unreadable)
    return ExitStatus.SUCCESS


class _Listing:
    """The listed tasks, page by page. `has_more` and `unreadable` are complete after the last page."""

    def __init__(self, pages: Iterable[TaskPage], limit: int | None, *, on_progress: Callable[[int], None]) -> None:
        self._pages = pages
        self._limit = limit
        self._on_progress = on_progress
        self.has_more = False
        self.unreadable: dict[str, str] = {}  # by key: the malformed attributes

    def __iter__(self) -> Iterator[list[TaskResponse]]:
        left = self._limit
        for page in self._pages:
            self.unreadable |= page.unreadable_reasons
            tasks = list(page.tasks[:left])
            if left is not None:
                self.has_more = len(page.tasks) > left
                left -= len(tasks)
            self._on_progress(len(tasks))
            if tasks:
                yield tasks


def _as_table(listing: Iterable[list[TaskResponse]], output: Output) -> None:
    table = TaskTable()
    for tasks in listing:
        output.show_part(table.tasks(tasks))
    if not table.has_rows:
        output.show_part("No task matches.")


def _as_csv(listing: Iterable[list[TaskResponse]], output: Output) -> None:
    output.show_text(_csv_lines([list(_CSV_COLUMNS)]))
    is_empty = True
    for tasks in listing:
        is_empty = False
        output.show_text(_csv_lines([value(task) for value in _CSV_COLUMNS.values()] for task in tasks))
    if is_empty:
        output.info("No task matches.")


def _csv_lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _as_json(listing: _Listing, output: Output) -> None:
    """Prints one document, `{"tasks": [...], "hasMore": ..., "unreadable": [...]}`, with each task in a line."""
    pages = iter(listing)
    output.show_text(f'{{"tasks": [{_json_items(next(pages, []))}')
    for tasks in pages:
        output.show_text(f",\n{_json_items(tasks)}")
    end = json_text({"hasMore": listing.has_more, "unreadable": list(listing.unreadable)})
    output.show_text(f"], {end.removeprefix('{')}\n")


def _json_items(tasks: Iterable[TaskResponse]) -> str:
    return ",\n".join(json_text(task.model_dump(mode="json", by_alias=True)) for task in tasks)


_FORMATS: dict[str, Callable[[_Listing, Output], None]] = {"table": _as_table, "csv": _as_csv, "json": _as_json}

COMMAND = Command(
    name="list",
    summary="list tasks by status, provider and time, the newest first",
    add_arguments=add_arguments,
    run=run,
)
