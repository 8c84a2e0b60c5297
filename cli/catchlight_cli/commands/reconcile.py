"""Implements `catchlight reconcile`: restarts polling and archiving of tasks that are stuck."""

import argparse
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.aws_errors import reason_of
from catchlight.client.stack import Stack
from catchlight.models import Model
from catchlight.recovery.reconcile import ARCHIVING_TAKES_AT_MOST, MAX_TASKS_PER_RUN, Reconciliation, Repaired
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.list import positive, tell_unreadable
from catchlight_cli.durations import duration, in_words
from catchlight_cli.factories import longest_polling, reconciliation
from catchlight_cli.output import a_table


class FailedBatch(Model):
    """Tasks whose polling or archiving was not restarted, or possibly not restarted, and the reason."""

    tasks: tuple[str, ...]
    reason: str


class Reconciled(Model):
    """Tasks whose polling or archiving was restarted (in a dry run: would be), and those where that failed."""

    dry_run: bool
    pending_longer_than_seconds: float
    polling_restarted: tuple[str, ...]  # in a dry run: would be restarted
    archiving_repeated: tuple[str, ...]
    failed: tuple[FailedBatch, ...] = ()  # the next run retries them
    unreadable: tuple[str, ...] = ()  # malformed items that were left out
    more: bool  # the limit was reached

    @property
    def is_wrong(self) -> bool:
        """Whether a restart failed or an item was malformed."""
        return bool(self.failed or self.unreadable)


def dry_run(repair: Reconciliation, older_than: timedelta, limit: int) -> Reconciled:
    """Lists the tasks that `gather` would restart, without changing anything."""
    overdue = tuple(task.task for task in islice(repair.overdue(older_than), limit))
    unarchived = tuple(task.task for task in islice(repair.due_for_archiving(), limit))
    return Reconciled(
        dry_run=True,
        pending_longer_than_seconds=older_than.total_seconds(),
        polling_restarted=overdue,
        archiving_repeated=unarchived,
        unreadable=tuple(repair.unreadable),
        more=limit in (len(overdue), len(unarchived)),
    )


def gather(repair: Reconciliation, older_than: timedelta, limit: int, session: Session) -> Reconciled:
    """Restarts polling and archiving with progress bars, the same way as the hourly run does."""

    failed: list[FailedBatch] = []
    tried: list[int] = []

    def tasks(batches: Iterator[Repaired], description: str) -> tuple[str, ...]:
        done: list[str] = []
        number = 0
        with session.screen.progress() as progress:
            bar = progress.add_task(description, total=None)
            for batch in batches:
                if batch.error:
                    failed.append(FailedBatch(tasks=batch.tasks, reason=reason_of(batch.error)))
                else:
                    done += batch.tasks
                number += len(batch.tasks)
                progress.advance(bar, len(batch.tasks))
        tried.append(number)
        return tuple(done)

    restarted = tasks(repair.restart_polling(older_than, limit=limit), "Starting polling")
    repeated = tasks(repair.repeat_archiving(limit=limit), "Queueing archiving")
    return Reconciled(
        dry_run=False,
        pending_longer_than_seconds=older_than.total_seconds(),
        polling_restarted=restarted,
        archiving_repeated=repeated,
        failed=tuple(failed),
        unreadable=tuple(repair.unreadable),
        more=limit in tried,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `reconcile` to its parser."""
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="SPAN",
        help="PENDING for longer than this, as 30m or 7h (as long as polling can take)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, do nothing")
    parser.add_argument(
        "--limit",
        type=positive,
        default=MAX_TASKS_PER_RUN,
        metavar="N",
        help=f"at most so many tasks of each kind ({MAX_TASKS_PER_RUN}, what providers bear at once)",
    )


def run(session: Session) -> ExitStatus:
    """Restarts polling and archiving of stuck tasks. Returns WRONG if a restart failed or an item was malformed."""
    options, stack = session.options, session.stack
    older_than = longest_polling(stack) if options.older_than is None else options.older_than
    repair = reconciliation(stack)
    if options.dry_run:
        result = dry_run(repair, older_than, options.limit)
    else:
        result = gather(repair, older_than, options.limit, session)
    session.screen.show(result, lambda: page(result, stack))
    tell_unreadable(session.screen, result.unreadable)
    return ExitStatus.WRONG if result.is_wrong else ExitStatus.FINE


def page(result: Reconciled, stack: Stack) -> Iterable[RenderableType]:
    """Renders the result for the terminal: restarted tasks, failed batches, and whether there may be more."""
    pending = in_words(result.pending_longer_than_seconds)
    if not (result.polling_restarted or result.archiving_repeated or result.failed):
        others = "other " if result.unreadable else ""
        yield Text(
            f"✓ No {others}task in {stack} is pending for longer than {pending} or waits for its archiving.", "green"
        )
        return
    would = "would be " if result.dry_run else ""
    table = a_table("Task", "Because of", "Would be done" if result.dry_run else "Done")
    for task in result.polling_restarted:
        table.add_row(task, f"pending for over {pending}", Text(f"{would}polled for again", "green"))
    archiving = in_words(ARCHIVING_TAKES_AT_MOST)
    for task in result.archiving_repeated:
        table.add_row(task, f"not archived for over {archiving}", Text(f"{would}queued again", "green"))
    if table.rows:
        yield table
    for batch in result.failed:
        yield Text(f"✗ Not started again: {', '.join(batch.tasks)}. {batch.reason}", "red")
    if result.more:
        yield Text("There may be more: repeat the command, or raise --limit.", "yellow")


COMMAND = Command(
    name="reconcile",
    summary="start the work on tasks again that nobody works on any more",
    add_arguments=add_arguments,
    run=run,
    description="""\
Starts polling again for tasks that are PENDING longer than polling can take, and queues tasks again that wait for
their archiving for over an hour, each at most once a day. The stack does the same by itself every hour.""",
)
