"""Implements `catchlight replay`: processes kept deliveries again, unreadable ones or accepted ones."""

import argparse
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.models import Model
from catchlight.recovery.deliveries import ACCEPTED_PREFIX, PREFIX, DeliveryStore
from catchlight.tasks.reports import Reports
from catchlight_cli.arguments import add_dry_run, provider_id
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.factories import tasks_table
from catchlight_cli.output import plural, task_path
from catchlight_cli.repair.replaying import Replayed, replay


class Replay(Model):
    """Outcome of the replay of each kept delivery."""

    dry_run: bool
    deliveries: tuple[Replayed, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider",
        type=provider_id,
        metavar="PROVIDER",
        help="parse all deliveries as callbacks of this provider (default: the provider in the URL of each callback)",
    )
    parser.add_argument(
        "--accepted",
        action="store_true",
        help="process the accepted deliveries instead, which the stack keeps if its parameter KeepDeliveries is not 0",
    )
    add_dry_run(parser)


def run(session: Session) -> ExitStatus:
    """Replays all kept deliveries.

    Returns FAILURE if one of them was not processed: it still cannot be read, or names no result. A dry run succeeds.
    """
    stack, options = session.stack, session.options
    prefix = ACCEPTED_PREFIX if options.accepted else PREFIX
    deliveries = DeliveryStore(stack.client("s3"), stack.bucket, prefix)
    replayed = replay(
        deliveries,
        Reports(tasks_table(stack)),
        provider_id=options.provider,
        dry_run=options.dry_run,
        removes=not options.accepted,
    )
    shown = session.output.show_rows(
        session.output.track(replayed, "Replaying"), _cells, "Delivery", "Provider", "Task", "Outcome"
    )
    result = Replay(dry_run=options.dry_run, deliveries=shown)
    session.output.show(result, lambda: render(result))
    is_success = options.dry_run or all(each.is_processed for each in shown)
    return ExitStatus.SUCCESS if is_success else ExitStatus.FAILURE


def _cells(each: Replayed) -> tuple[Text, ...]:
    outcome = Text(each.outcome, "green" if each.is_processed else "yellow")
    return Text(each.key), Text(each.provider), Text(task_path(each.task or "")), outcome


def render(result: Replay) -> Iterable[RenderableType]:
    """Renders the summary for the terminal, below the table."""
    if not result.deliveries:
        yield "There are no kept deliveries to process."
        return
    processed = sum(each.is_processed for each in result.deliveries)
    yield ""
    if result.dry_run:
        yield f"Dry run: nothing was changed. {plural(len(result.deliveries), 'kept delivery', 'kept deliveries')}."
    else:
        yield f"{plural(processed, 'delivery', 'deliveries')} processed, {len(result.deliveries) - processed} kept."


COMMAND = Command(
    name="replay",
    summary="process deliveries that could not be read, with the current code",
    add_arguments=add_arguments,
    run=run,
    description="""\
Process deliveries that the stack could not read and keeps under rejected/ in the bucket: callbacks, and answers of
providers to polls. Each one is parsed with the code of this installation, its report is written to the tasks table, and
the delivery is removed; a delivery that still cannot be read stays. With --accepted, the deliveries under deliveries/
are processed instead, and none is removed.""",
)
