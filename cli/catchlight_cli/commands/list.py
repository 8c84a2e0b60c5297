"""Implements `catchlight list`: lists tasks by status, provider and time."""

import argparse
from collections.abc import Iterable

from rich.console import RenderableType

from catchlight.api.schemas import TaskResponse
from catchlight.client import TasksClient
from catchlight.models import Model
from catchlight_cli.arguments import add_filters, add_limit, filters
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.output_tasks import render_tasks

_DEFAULT_LIMIT = 50


class TaskList(Model):
    """Listed tasks, the newest first; with a status filter, the latest change first."""

    tasks: tuple[TaskResponse, ...]
    has_more: bool  # whether older tasks exist beyond the limit
    unreadable: tuple[str, ...] = ()  # keys of malformed items in the table, for example written by hand


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `list` to its parser."""
    add_filters(parser)
    add_limit(parser, _DEFAULT_LIMIT, "tasks")


def run(session: Session) -> ExitStatus:
    """Lists tasks, the newest first."""
    options, output = session.options, session.output
    with TasksClient.of(session.stack) as api:
        # One task more than is shown, to know whether there are older ones.
        pages = list(api.pages(**filters(options), limit=options.limit + 1))
    found = tuple(task for page in pages for task in page.tasks)
    result = TaskList(
        tasks=found[: options.limit],
        has_more=len(found) > options.limit,
        unreadable=tuple(item for page in pages for item in page.unreadable),
    )
    output.show(result, lambda: render(result))
    if result.has_more:
        output.info(f"There are older tasks; --limit is {options.limit}.")
    output.malformed_items(result.unreadable)
    return ExitStatus.SUCCESS


def render(result: TaskList) -> Iterable[RenderableType]:
    """Renders the tasks as a table for the terminal."""
    return [render_tasks(result.tasks)] if result.tasks else ["No task matches."]


COMMAND = Command(
    name="list",
    summary="list tasks by status, provider and time, the newest first",
    add_arguments=add_arguments,
    run=run,
)
