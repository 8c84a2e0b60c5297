"""Implements `catchlight status`: shows task counts, stuck tasks, queue depths and the callback miss rate."""

import argparse
from collections.abc import Iterable
from datetime import datetime, timedelta

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.stack import Stack
from catchlight.models import Model, TaskStatus, utc_now
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.list import tell_unreadable
from catchlight_cli.durations import duration, in_words, parse_time
from catchlight_cli.factories import longest_polling, reconciliation
from catchlight_cli.health.miss_rate import CallbackMissRate, Resolved, miss_rate
from catchlight_cli.health.queues import QueueDepth, queue_depths
from catchlight_cli.health.task_counts import TaskCounts, count_tasks, price_of_counting
from catchlight_cli.output import Output, a_table

# Period of the callback miss rate, unless --since is given.
_DEFAULT_SPAN = timedelta(days=1)

_MEANINGS = {
    TaskStatus.PENDING: "no news yet",
    TaskStatus.TIMED_OUT: "polling gave up",
    TaskStatus.FAILED: "the service says so",
    TaskStatus.SUCCEEDED: "images on their way into the bucket",
    TaskStatus.INCOMPLETE: "some image could not be had",
    TaskStatus.ARCHIVED: "every image in the bucket",
}


class OldestPending(Model):
    """The PENDING task whose last change is the oldest."""

    task: str
    age_seconds: float | None  # since its registration, else since its last change; None if its item has neither time


class Status(Model):
    """State of a stack: task counts, stuck tasks, queue depths, callback miss rate and problems."""

    stack: str
    at: datetime
    since: datetime | None
    tasks: TaskCounts
    oldest_pending: OldestPending | None
    pending_too_long: int
    archiving_too_long: int
    unreadable: tuple[str, ...]  # malformed items that are older than the oldest PENDING task
    queues: tuple[QueueDepth, ...]
    misses: CallbackMissRate
    problems: tuple[str, ...]  # each with the next step


def gather(stack: Stack, *, span: timedelta | None, now: datetime, screen: Output) -> Status:
    """Reads the state of the stack. Counting tasks shows a progress bar, preceded by its cost on large tables."""
    since = None if span is None else now - span
    if span is None and (price := price_of_counting(stack)):
        screen.info(price)
    with screen.progress() as progress:
        bar = progress.add_task("Counting tasks", total=None)
        tasks = count_tasks(stack, since=since, on_progress=lambda more: progress.advance(bar, more))
    repair = reconciliation(stack)
    pending, archiving = repair.pending_too_long(longest_polling(stack)), repair.archiving_too_long()
    oldest = repair.oldest_pending()
    queues = tuple(queue_depths(stack))
    registered_at = parse_time(oldest.registered_at or oldest.updated_at) if oldest else None
    return Status(
        stack=str(stack),
        at=now,
        since=since,
        tasks=tasks,
        oldest_pending=OldestPending(
            task=oldest.task, age_seconds=(now - registered_at).total_seconds() if registered_at else None
        )
        if oldest
        else None,
        pending_too_long=pending,
        archiving_too_long=archiving,
        unreadable=tuple(repair.unreadable),
        queues=queues,
        misses=miss_rate(stack, since=now - (span or _DEFAULT_SPAN), now=now),
        problems=tuple(_problems(pending, archiving, queues)),
    )


def _problems(pending: int, archiving: int, queues: Iterable[QueueDepth]) -> Iterable[str]:
    if pending:
        yield f"{pending} pending longer than polling takes: `catchlight reconcile`; the hourly run does it as well"
    if archiving:
        yield f"{archiving} wait for their archiving for over an hour: `catchlight redrive --kind stuck`"
    for queue in queues:
        if queue.should_be_empty and queue.messages:
            yield f"{queue.messages} in {queue.queue}, {queue.holds}: {queue.next_step}"


def page(status: Status) -> Iterable[RenderableType]:
    """Renders the status for the terminal: tasks, queues, misses by provider and problems."""
    tasks = a_table("Status", "Tasks", "")
    tasks.columns[1].justify = "right"
    for each, count in status.tasks.by_status.items():
        tasks.add_row(each.value, f"{count:,}", Text(_MEANINGS[each], "dim"))
    yield tasks
    since = f"changed since {status.since:%Y-%m-%d %H:%M} UTC, " if status.since else ""
    yield Text(f"{since}{status.tasks.read_units:,.1f} read units", "dim")
    if status.oldest_pending:
        age = status.oldest_pending.age_seconds
        yield f"Oldest pending: {status.oldest_pending.task}, {in_words(age) if age is not None else 'of unknown age'}"
    yield ""
    queues = a_table("Queue", "Messages", "")
    queues.columns[1].justify = "right"
    for queue in status.queues:
        style = "red" if queue.should_be_empty and queue.messages else ""
        queues.add_row(queue.queue, Text(f"{queue.messages:,}", style), Text(queue.holds, "dim"))
    yield queues
    yield ""
    source = "CloudWatch's metrics" if status.misses.source == "metrics" else "reportedBy of the tasks"
    yield f"Found by polling since {status.misses.since:%Y-%m-%d %H:%M} UTC, by {source}:"
    misses = a_table("Provider", "By callback", "By polling", "Misses")
    for column in misses.columns[1:]:
        column.justify = "right"
    rows = {**status.misses.by_provider, "all": status.misses.all}
    for provider, resolved in rows.items():
        misses.add_row(provider, f"{resolved.by_callback:,}", f"{resolved.by_poll:,}", _percent(resolved))
    yield misses
    yield ""
    if not status.problems:
        yield Text("✓ Nothing is stuck.", "green")
    for problem in status.problems:
        yield Text(f"✗ {problem}", "red")


def _percent(resolved: Resolved) -> str:
    return "-" if resolved.miss_rate is None else f"{resolved.miss_rate:.1%}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `status` to its parser."""
    parser.add_argument(
        "--since",
        type=duration,
        metavar="SPAN",
        help="count only what has changed in this span, as 90s, 12h or 7d; also for the callback miss rate (all; 1d)",
    )


def run(session: Session) -> ExitStatus:
    """Shows the state of the stack. Returns WRONG if tasks are stuck or a dead-letter queue has messages."""
    status = gather(session.stack, span=session.options.since, now=utc_now(), screen=session.screen)
    session.screen.show(status, lambda: page(status))
    tell_unreadable(session.screen, status.unreadable)
    return ExitStatus.WRONG if status.problems else ExitStatus.FINE


COMMAND = Command(
    name="status",
    summary="how the stack is: tasks by status, what is stuck, queues, lost callbacks",
    add_arguments=add_arguments,
    run=run,
    description="How the stack is: tasks by status, the oldest pending one, queues, and how many callbacks got lost.\n"
    "DynamoDB charges for what is counted: on a large table, --since 1d.",
)
