"""Implements `catchlight reconcile`: restarts polling and archiving of stuck tasks."""

import argparse
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.aws_errors import describe_error
from catchlight.client.stack import Stack
from catchlight.models import Model
from catchlight.recovery.reconcile import MAX_ARCHIVING_TIME, MAX_TASKS_PER_RUN, Reconciliation, Repaired
from catchlight.tasks.task import Task
from catchlight_cli.arguments import add_dry_run, add_limit
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import duration, format_duration
from catchlight_cli.factories import longest_polling, reconciliation
from catchlight_cli.output import plural, task_path


class FailedBatch(Model):
    """Tasks whose polling or archiving was not restarted, or possibly not restarted, and the reason."""

    tasks: tuple[str, ...]
    reason: str


class Reconciled(Model):
    """Tasks whose polling or archiving was restarted (in a dry run: would be), and tasks whose restart failed."""

    dry_run: bool
    pending_longer_than_seconds: float
    polling_restarted: tuple[str, ...]
    confirming_restarted: tuple[str, ...]  # polling was restarted to confirm a callback
    archiving_repeated: tuple[str, ...]  # archiving was queued again
    failed: tuple[FailedBatch, ...] = ()  # the next run retries them
    unreadable: tuple[str, ...] = ()  # keys of malformed items, which were skipped
    has_more: bool  # the limit was reached: there may be more


_ARCHIVING_TAKES = format_duration(MAX_ARCHIVING_TIME)


@dataclass
class _Kind:
    """A kind of stuck tasks, and the outcome of the restarts."""

    reason: str  # why the tasks are stuck
    action: str  # which is restarted: "polling" or "archiving"
    batches: Iterable[Repaired]  # iterating over them restarts the tasks, unless it is a dry run
    restarted: list[str] = field(default_factory=list)
    failed: list[FailedBatch] = field(default_factory=list)

    @property
    def attempted(self) -> int:
        """Number of tasks whose restart was attempted."""
        return len(self.restarted) + sum(len(batch.tasks) for batch in self.failed)


def _kinds(repair: Reconciliation, older_than: timedelta, limit: int, *, dry_run: bool) -> tuple[_Kind, _Kind, _Kind]:
    """Returns the kinds of stuck tasks. Tasks are restarted in the same way as by the hourly run."""

    def planned(tasks: Iterable[Task]) -> Iterator[Repaired]:
        return (Repaired((task.task,)) for task in islice(tasks, limit))

    if dry_run:
        overdue = planned(repair.overdue(older_than))
        unconfirmed = planned(repair.unconfirmed(older_than))
        unarchived = planned(repair.due_for_archiving())
    else:
        overdue = repair.restart_polling(older_than, limit=limit)
        unconfirmed = repair.poll_unconfirmed(older_than, limit=limit)
        unarchived = repair.repeat_archiving(limit=limit)
    return (
        _Kind(f"pending for over {format_duration(older_than)}", "polling", overdue),
        _Kind("its callback's report is not confirmed", "polling", unconfirmed),
        _Kind(f"not archived for over {_ARCHIVING_TAKES}", "archiving", unarchived),
    )


def _restart(kinds: Iterable[_Kind], *, dry_run: bool) -> Generator[tuple[RenderableType, ...], None, None]:
    """Restarts tasks in batches, one kind after the other; yields the row of each task of a restarted batch."""
    for kind in kinds:
        for batch in kind.batches:
            if batch.error:
                kind.failed.append(FailedBatch(tasks=batch.tasks, reason=describe_error(batch.error)))
                outcome = Text(f"{kind.action} not restarted", "red")
            else:
                kind.restarted += batch.tasks
                outcome = Text(f"{kind.action} {'would be ' if dry_run else ''}restarted", "green")
            for task in batch.tasks:
                yield task_path(task), kind.reason, outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="DURATION",
        help="restart polling of tasks that have been PENDING for longer than this, such as 30m or 7h (default: the "
        "longest time that polling can take)",
    )
    add_dry_run(parser)
    add_limit(parser, MAX_TASKS_PER_RUN, "tasks of each kind: overdue, not confirmed, not archived")


def run(session: Session) -> ExitStatus:
    """Restarts polling and archiving of stuck tasks. Returns FAILURE if a restart failed or an item was malformed."""
    options, output, stack = session.options, session.output, session.stack
    older_than = longest_polling(stack) if options.older_than is None else options.older_than
    repair = reconciliation(stack)
    kinds = _kinds(repair, older_than, options.limit, dry_run=options.dry_run)
    rows = _restart(kinds, dry_run=options.dry_run)
    description = "Reading the tasks" if options.dry_run else "Restarting"
    output.show_rows(output.track(rows, description), lambda row: row, "Task", "Reason", "Action")
    polling, confirming, archiving = (tuple(kind.restarted) for kind in kinds)
    result = Reconciled(
        dry_run=options.dry_run,
        pending_longer_than_seconds=older_than.total_seconds(),
        polling_restarted=polling,
        confirming_restarted=confirming,
        archiving_repeated=archiving,
        failed=tuple(batch for kind in kinds for batch in kind.failed),
        unreadable=tuple(repair.unreadable),
        has_more=any(kind.attempted == options.limit for kind in kinds),
    )
    output.show(result, lambda: render(result, stack))
    output.malformed_items(repair.unreadable)
    return ExitStatus.FAILURE if result.failed or result.unreadable else ExitStatus.SUCCESS


def render(result: Reconciled, stack: Stack) -> Iterable[RenderableType]:
    """Renders the summary for the terminal, below the table: counts, failed batches, and whether there may be more."""
    pending = format_duration(result.pending_longer_than_seconds)
    restarted = (result.polling_restarted, result.confirming_restarted, result.archiving_repeated, result.failed)
    if not any(restarted):
        others = "other " if result.unreadable else ""
        yield Text(
            f"✓ No {others}task in {stack} has been pending for over {pending}, or has waited for archiving or for the "
            f"confirmation of its callback for over {_ARCHIVING_TAKES}.",
            "green",
        )
        return
    would = "would be " if result.dry_run else ""
    polling = len(result.polling_restarted) + len(result.confirming_restarted)
    yield ""
    yield f"Polling of {plural(polling, 'task')} and archiving of {len(result.archiving_repeated)} {would}restarted."
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
Restart the processing of stuck tasks, as the stack does every hour:
  polling    if a task has been PENDING for longer than polling can take, if its polling was not started within an hour,
             or if the provider has not confirmed its callback for over an hour
  archiving  if a task has waited for archiving for over an hour, at most once a day""",
)
