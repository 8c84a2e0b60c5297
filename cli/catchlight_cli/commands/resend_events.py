"""Implements `catchlight resend-events`: republishes task events that EventBridge did not accept."""

import argparse
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.models import Model, iso
from catchlight_cli.arguments import add_dry_run, add_limit
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.output import new_table
from catchlight_cli.repair.resending import Outcome, ResentMessage, resend

_DEFAULT_LIMIT = 1000
_OUTCOMES = {
    Outcome.PUBLISHED: ("published", "green"),
    Outcome.READY: ("would be published", "green"),
    Outcome.FAILED: ("not published: see the log of PublishEvents", "red"),
    Outcome.EXPIRED: ("expired from the stream after 24 hours: find the tasks with `catchlight list --status`", "red"),
    Outcome.UNREADABLE: ("not a message of Lambda: inspect it in the SQS console", "red"),
}


class ResentEvents(Model):
    """Outcome of each message of the queue PublishDeadLetters."""

    dry_run: bool
    dead_letters: tuple[ResentMessage, ...]

    @property
    def has_failed(self) -> bool:
        """Whether the events of a message could not be republished."""
        return any(message.outcome not in (Outcome.PUBLISHED, Outcome.READY) for message in self.dead_letters)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `resend-events` to its parser."""
    add_dry_run(parser)
    add_limit(parser, _DEFAULT_LIMIT, "messages")


def run(session: Session) -> ExitStatus:
    """Republishes the events. Returns FAILURE if those of a message could not be republished."""
    options = session.options
    messages = resend(session.stack, limit=options.limit, dry_run=options.dry_run)
    result = ResentEvents(dry_run=options.dry_run, dead_letters=tuple(session.output.track(messages, "Republishing")))
    session.output.show(result, lambda: render(result))
    return ExitStatus.FAILURE if result.has_failed else ExitStatus.SUCCESS


def render(result: ResentEvents) -> Iterable[RenderableType]:
    """Renders the outcome of each message as a table for the terminal."""
    if not result.dead_letters:
        yield Text("✓ PublishDeadLetters is empty.", "green")
        return
    table = new_table("Message sent at", "Tasks", "Outcome")
    for message in result.dead_letters:
        table.add_row(iso(message.sent_at), Text(", ".join(message.tasks)), Text(*_OUTCOMES[message.outcome]))
    yield table


COMMAND = Command(
    name="resend-events",
    summary="republish task events that EventBridge did not accept",
    add_arguments=add_arguments,
    run=run,
    description="""\
Passes the records that the messages in PublishDeadLetters refer to to PublishEvents again, and deletes a message when
its events are published. Subscribers recognize repeated events by their eventId. The table's stream keeps the records
for 24 hours; all other messages stay in the queue.""",
)
