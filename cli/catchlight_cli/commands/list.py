"""Implements `catchlight list`: lists tasks by status, provider and time."""

import argparse
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType

from catchlight.api.schemas import TaskResponse
from catchlight.client import TasksClient
from catchlight.models import Model, TaskStatus
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import duration
from catchlight_cli.lookup.api_tasks import provider_id
from catchlight_cli.output import Output
from catchlight_cli.output_tasks import tasks_table

DEFAULT_LIMIT = 50
_SPAN_UNITS = tuple("smhdw")


class Listed(Model):
    """Listed tasks, the newest first; with a status filter, the latest change first."""

    tasks: tuple[TaskResponse, ...]
    more: bool  # whether older tasks exist beyond the limit
    unreadable: tuple[str, ...] = ()  # malformed items in the table, for example written by hand


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Adds the filters --status, --provider and --since to a parser."""
    parser.add_argument(
        "--status", type=str.upper, choices=[status.value for status in TaskStatus], help="only tasks with this status"
    )
    parser.add_argument("--provider", type=provider_id, metavar="PROVIDER", help="only tasks of this provider")
    parser.add_argument(
        "--since",
        type=since,
        metavar="TIME",
        help="only tasks that arrived (with --status: changed) since then: 2h, 3d, 2026-01-31, 2026-01-31T12:00Z",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `list` to its parser."""
    add_filters(parser)
    parser.add_argument(
        "--limit", type=positive, default=DEFAULT_LIMIT, metavar="N", help=f"as many at most ({DEFAULT_LIMIT})"
    )


def run(session: Session) -> ExitStatus:
    """Lists tasks, the newest first."""
    options = session.options
    with TasksClient.of(session.stack) as api:
        # One task more than is shown tells whether there are older ones.
        pages = list(api.pages(**chosen(options), limit=options.limit + 1))
    found = tuple(task for each in pages for task in each.tasks)
    result = Listed(
        tasks=found[: options.limit],
        more=len(found) > options.limit,
        unreadable=tuple(item for each in pages for item in each.unreadable),
    )
    session.screen.show(result, lambda: page(result))
    if result.more:
        session.screen.info(f"There are older ones: --limit is {options.limit}.")
    tell_unreadable(session.screen, result.unreadable)
    return ExitStatus.FINE


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the filters of `add_filters` as keyword arguments of `TasksClient.pages`."""
    status = options.status and TaskStatus(options.status)
    return {"status": status, "provider": options.provider, "since": options.since}


def tell_unreadable(screen: Output, items: Sequence[str]) -> None:
    """Reports on stderr which malformed items were left out, if any."""
    if items:
        screen.info(f"Left out, because the table's items are malformed: {', '.join(items)}. Repair them there.")


def page(result: Listed) -> Iterable[RenderableType]:
    """Renders the tasks as a table for the terminal."""
    return [tasks_table(result.tasks)] if result.tasks else ["No task is like that."]


def since(text: str) -> datetime:
    """Parses a span before now (2h, 3d) or an ISO 8601 time for argparse; a time without a zone is local time.

    Raises:
        ArgumentTypeError: the text is neither.
    """
    try:
        if text[-1:] in _SPAN_UNITS:
            return datetime.now(UTC) - duration(text)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 2h, 3d, 2026-01-31 or 2026-01-31T12:00Z") from exc


def positive(text: str) -> int:
    """Parses a whole number above 0 for argparse.

    Raises:
        ArgumentTypeError: the text is not such a number.
    """
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


COMMAND = Command(
    name="list",
    summary="tasks, the newest first, by status, provider and time",
    add_arguments=add_arguments,
    run=run,
)
