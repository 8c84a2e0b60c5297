"""Implements `catchlight reconcile`: restarts polling and archiving of stuck tasks."""

import argparse
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.aws_errors import describe_error
from catchlight.client.stack import Stack
from catchlight.models import Model
from catchlight.recovery.reconcile import MAX_ARCHIVING_TIME, MAX_TASKS_PER_RUN, Reconciliation, Repaired
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


@dataclass(frozen=True)
class _Kind:
    """A kind of stuck tasks: why they are stuck, and which action is restarted."""

    reason: str
    action: str  # "polling" or "archiving"


_ARCHIVING_TAKES = format_duration(MAX_ARCHIVING_TIME)
_UNCONFIRMED = _Kind("its callback's report is not confirmed", "polling")
_UNARCHIVED = _Kind(f"not archived for over {_ARCHIVING_TAKES}", "archiving")


class _Restarts:
    """Restarts polling and archiving in the same way as the hourly run, and collects the outcome for each task."""

    def __init__(self, repair: Reconciliation, older_than: timedelta, limit: int, *, dry_run: bool) -> None:
        self._repair = repair
        self._older_than = older_than
        self._limit = limit
        self._dry_run = dry_run
        self._overdue = _Kind(f"pending for over {format_duration(older_than)}", "polling")
        self._restarted: dict[_Kind, list[str]] = {self._overdue: [], _UNCONFIRMED: [], _UNARCHIVED: []}
        self._failed: list[FailedBatch] = []
        self._has_more = False

    def rows(self) -> Generator[tuple[RenderableType, ...], None, None]:
        """Restarts tasks in batches, one kind after the other; yields the row of each task of a restarted batch."""
        for kind, batches in zip(self._restarted, self._batches(), strict=True):
            attempted = 0
            for batch in batches:
                attempted += len(batch.tasks)
                if batch.error:
                    self._failed.append(FailedBatch(tasks=batch.tasks, reason=describe_error(batch.error)))
                else:
                    self._restarted[kind] += batch.tasks
                for task in batch.tasks:
                    yield task_path(task), kind.reason, self._action(kind, is_failed=batch.error is not None)
            self._has_more |= attempted == self._limit

    def _batches(self) -> Iterator[Iterable[Repaired]]:
        repair, older_than, limit = self._repair, self._older_than, self._limit
        if self._dry_run:
            for tasks in (repair.overdue(older_than), repair.unconfirmed(older_than), repair.due_for_archiving()):
                yield (Repaired((task.task,)) for task in islice(tasks, limit))
            return
        yield repair.restart_polling(older_than, limit=limit)
        yield repair.poll_unconfirmed(older_than, limit=limit)
        yield repair.repeat_archiving(limit=limit)

    def _action(self, kind: _Kind, *, is_failed: bool) -> Text:
        if is_failed:
            return Text(f"{kind.action} not restarted", "red")
        return Text(f"{kind.action} {'would be ' if self._dry_run else ''}restarted", "green")

    def result(self) -> Reconciled:
        """Returns the outcome, after all rows were yielded."""
        polling, confirming, archiving = map(tuple, self._restarted.values())
        return Reconciled(
            dry_run=self._dry_run,
            pending_longer_than_seconds=self._older_than.total_seconds(),
            polling_restarted=polling,
            confirming_restarted=confirming,
            archiving_repeated=archiving,
            failed=tuple(self._failed),
            unreadable=tuple(self._repair.unreadable),
            has_more=self._has_more,
        )


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
    restarts = _Restarts(repair, older_than, options.limit, dry_run=options.dry_run)
    description = "Reading the tasks" if options.dry_run else "Restarting"
    output.show_rows(output.track(restarts.rows(), description), lambda row: row, "Task", "Reason", "Action")
    result = restarts.result()
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
