"""Implements `catchlight replay`: processes kept deliveries again that could not be read on arrival."""

import argparse
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.models import Model
from catchlight.recovery.rejected_deliveries import RejectedDeliveries
from catchlight.tasks.reports import Reports
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.factories import tasks_table
from catchlight_cli.output import a_table
from catchlight_cli.repair.replaying import Replayed, replay


class Replay(Model):
    """Outcome of the replay of each kept delivery."""

    dry_run: bool
    deliveries: tuple[Replayed, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether a delivery still cannot be read. Always False in a dry run."""
        return not (self.dry_run or all(each.is_settled for each in self.deliveries))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `replay` to its parser."""
    parser.add_argument("--provider", metavar="ID", help="read them as this provider's, whatever the URL had")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, write nothing")


def run(session: Session) -> ExitStatus:
    """Replays all kept deliveries. Returns WRONG if one of them still cannot be read."""
    stack, options = session.stack, session.options
    deliveries = RejectedDeliveries(stack.client("s3"), stack.bucket)
    reports = Reports(tasks_table(stack))
    replayed = replay(deliveries, reports, provider_id=options.provider, dry_run=options.dry_run)
    result = Replay(dry_run=options.dry_run, deliveries=tuple(session.screen.track(replayed, "Replaying")))
    session.screen.show(result, lambda: page(result))
    return ExitStatus.WRONG if result.is_wrong else ExitStatus.FINE


def page(result: Replay) -> Iterable[RenderableType]:
    """Renders the outcome of each delivery as a table for the terminal."""
    if not result.deliveries:
        yield "No delivery is kept: everything that came could be read."
        return
    table = a_table("Delivery", "Provider", "Task", "Outcome")
    for each in result.deliveries:
        outcome = Text(each.outcome, "green" if each.is_settled else "yellow")
        table.add_row(each.key, Text(each.provider), each.task or "", outcome)
    yield table


COMMAND = Command(
    name="replay",
    summary="put deliveries that could not be read through the current code again",
    add_arguments=add_arguments,
    run=run,
)
