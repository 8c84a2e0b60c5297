"""Implements `catchlight resend-events`: republishes task events that EventBridge did not accept."""

import argparse
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.models import Model, iso
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.list import positive
from catchlight_cli.output import a_table
from catchlight_cli.repair.resending import Outcome, Told, tell

_DEFAULT_LIMIT = 1000
_WORDS = {
    Outcome.TOLD: ("told", "green"),
    Outcome.WAITING: ("would be told", "green"),
    Outcome.REFUSED: ("refused again: the log of PublishEvents says why", "red"),
    Outcome.FORGOTTEN: ("over a day old: the stream has forgotten them, `catchlight list --status` finds them", "red"),
    Outcome.UNREADABLE: ("a message that is none of Lambda's: look at it in the SQS console", "red"),
}


class Telling(Model):
    """Outcome of each message of the queue PublishDeadLetters."""

    dry_run: bool
    dead_letters: tuple[Told, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether the events of a message could not be republished."""
        return any(dead_letter.outcome not in (Outcome.TOLD, Outcome.WAITING) for dead_letter in self.dead_letters)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `resend-events` to its parser."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be told, tell nobody")
    parser.add_argument(
        "--limit",
        type=positive,
        default=_DEFAULT_LIMIT,
        metavar="N",
        help=f"as many messages at most ({_DEFAULT_LIMIT})",
    )


def run(session: Session) -> ExitStatus:
    """Republishes the events. Returns WRONG if those of a message could not be republished."""
    options = session.options
    dead_letters = tell(session.stack, limit=options.limit, dry_run=options.dry_run)
    result = Telling(dry_run=options.dry_run, dead_letters=tuple(session.screen.track(dead_letters, "Telling")))
    session.screen.show(result, lambda: page(result))
    return ExitStatus.WRONG if result.is_wrong else ExitStatus.FINE


def page(result: Telling) -> Iterable[RenderableType]:
    """Renders the outcome of each message as a table for the terminal."""
    if not result.dead_letters:
        yield Text("✓ Everything was told.", "green")
        return
    table = a_table("Put aside", "Tasks", "Outcome")
    for dead_letter in result.dead_letters:
        tasks = ", ".join(dead_letter.tasks)
        table.add_row(iso(dead_letter.sent_at), Text(tasks), Text(*_WORDS[dead_letter.outcome]))
    yield table


COMMAND = Command(
    name="resend-events",
    summary="tell of ends again that the event bus did not take",
    add_arguments=add_arguments,
    run=run,
    description="""\
Sends the task events in PublishDeadLetters, which EventBridge did not accept, to PublishEvents once more.
Whoever has heard of one already knows its eventId. The table's stream has the records for 24 hours; what is told is
deleted from the queue, all else stays.""",
)
