"""Implements `catchlight reconcile`: restarts polling and archiving of stuck tasks."""

import argparse
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.aws_errors import describe_error
from catchlight.client.stack import Stack
from catchlight.models import Model
from catchlight.recovery.reconcile import ARCHIVING_TAKES_AT_MOST, MAX_TASKS_PER_RUN, Reconciliation, Repaired
from catchlight_cli.arguments import add_dry_run, add_limit
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import duration, format_duration
from catchlight_cli.factories import longest_polling, reconciliation
from catchlight_cli.output import Output, new_table, task_path


class FailedBatch(Model):
    """Tasks whose polling or archiving was not restarted, or possibly not restarted, and the reason."""

    tasks: tuple[str, ...]
    reason: str


class Reconciled(Model):
    """Tasks whose polling or archiving was restarted (in a dry run: would be), and those where that failed."""

    dry_run: bool
    pending_longer_than_seconds: float
    polling_restarted: tuple[str, ...]
    confirming_restarted: tuple[str, ...]  # failures that the provider has not confirmed
    archiving_repeated: tuple[str, ...]
    failed: tuple[FailedBatch, ...] = ()  # the next run retries them
    unreadable: tuple[str, ...] = ()  # keys of malformed items, which were skipped
    has_more: bool  # the limit was reached: there may be more

    @property
    def has_failed(self) -> bool:
        """Whether a restart failed or an item was malformed."""
        return bool(self.failed or self.unreadable)


def dry_run(repair: Reconciliation, older_than: timedelta, limit: int) -> Reconciled:
    """Lists the tasks that `restart` would restart, without changing anything."""
    overdue = tuple(task.task for task in islice(repair.overdue(older_than), limit))
    unconfirmed = tuple(task.task for task in islice(repair.unconfirmed(older_than), limit))
    unarchived = tuple(task.task for task in islice(repair.due_for_archiving(), limit))
    return Reconciled(
        dry_run=True,
        pending_longer_than_seconds=older_than.total_seconds(),
        polling_restarted=overdue,
        confirming_restarted=unconfirmed,
        archiving_repeated=unarchived,
        unreadable=tuple(repair.unreadable),
        has_more=limit in (len(overdue), len(unconfirmed), len(unarchived)),
    )


def restart(repair: Reconciliation, older_than: timedelta, limit: int, output: Output) -> Reconciled:
    """Restarts polling and archiving with progress bars, the same way as the hourly run does."""
    failed: list[FailedBatch] = []
    attempted: list[int] = []

    def restarted(batches: Iterator[Repaired], description: str) -> tuple[str, ...]:
        done: list[str] = []
        number = 0
        with output.progress() as progress:
            bar = progress.add_task(description, total=None)
            for batch in batches:
                if batch.error:
                    failed.append(FailedBatch(tasks=batch.tasks, reason=describe_error(batch.error)))
                else:
                    done += batch.tasks
                number += len(batch.tasks)
                progress.advance(bar, len(batch.tasks))
        attempted.append(number)
        return tuple(done)

    polling = restarted(repair.restart_polling(older_than, limit=limit), "Restarting polling")
    confirming = restarted(repair.poll_unconfirmed(older_than, limit=limit), "Confirming failures")
    archiving = restarted(repair.repeat_archiving(limit=limit), "Restarting archiving")
    return Reconciled(
        dry_run=False,
        pending_longer_than_seconds=older_than.total_seconds(),
        polling_restarted=polling,
        confirming_restarted=confirming,
        archiving_repeated=archiving,
        failed=tuple(failed),
        unreadable=tuple(repair.unreadable),
        has_more=limit in attempted,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `reconcile` to its parser."""
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="DURATION",
        help="restart polling of tasks that have been PENDING for longer than this, such as 30m or 7h (default: the "
        "longest time that polling can take)",
    )
    add_dry_run(parser)
    add_limit(parser, MAX_TASKS_PER_RUN, "tasks for polling, and of tasks for archiving")


def run(session: Session) -> ExitStatus:
    """Restarts polling and archiving of stuck tasks. Returns FAILURE if a restart failed or an item was malformed."""
    options, output, stack = session.options, session.output, session.stack
    older_than = longest_polling(stack) if options.older_than is None else options.older_than
    repair = reconciliation(stack)
    if options.dry_run:
        with output.working("Reading the tasks"):
            result = dry_run(repair, older_than, options.limit)
    else:
        result = restart(repair, older_than, options.limit, output)
    output.show(result, lambda: render(result, stack))
    output.malformed_items(result.unreadable)
    return ExitStatus.FAILURE if result.has_failed else ExitStatus.SUCCESS


def render(result: Reconciled, stack: Stack) -> Iterable[RenderableType]:
    """Renders the result for the terminal: restarted tasks, failed batches, and whether there may be more."""
    pending = format_duration(result.pending_longer_than_seconds)
    archiving = format_duration(ARCHIVING_TAKES_AT_MOST)
    restarted = (result.polling_restarted, result.confirming_restarted, result.archiving_repeated, result.failed)
    if not any(restarted):
        others = "other " if result.unreadable else ""
        yield Text(
            f"✓ No {others}task in {stack} has been pending for over {pending}, or waits for its archiving or the "
            f"confirmation of its failure for over {archiving}.",
            "green",
        )
        return
    would = "would be " if result.dry_run else ""
    table = new_table("Task", "Reason", "Action")
    for task in result.polling_restarted:
        table.add_row(task_path(task), f"pending for over {pending}", Text(f"polling {would}restarted", "green"))
    for task in result.confirming_restarted:
        table.add_row(task_path(task), "its failure is not confirmed", Text(f"polling {would}restarted", "green"))
    for task in result.archiving_repeated:
        table.add_row(
            task_path(task), f"not archived for over {archiving}", Text(f"archiving {would}restarted", "green")
        )
    if table.rows:
        yield table
    for batch in result.failed:
        yield Text(f"✗ Not restarted: {', '.join(map(task_path, batch.tasks))}. {batch.reason}", "red")
    if result.has_more:
        yield Text("There may be more: repeat the command, or raise --limit.", "yellow")


COMMAND = Command(
    name="reconcile",
    summary="restart polling and archiving of stuck tasks",
    add_arguments=add_arguments,
    run=run,
    description="""\
Restarts polling of tasks that have been PENDING for longer than polling can take and of failures that a callback
reported and the provider has not confirmed for over an hour, and archiving of tasks that have waited for it for over an
hour, each task at most once a day. The stack does the same every hour.""",
)
