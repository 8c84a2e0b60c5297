"""Implements `catchlight status`: shows task counts, stuck tasks, queue depths and the callback miss rate."""

import argparse
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field
from rich.console import RenderableType
from rich.text import Text

from catchlight.client.stack import Stack
from catchlight.models import Model, TaskStatus, parse_time, utc_now
from catchlight_cli.arguments import seconds
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import duration, format_duration
from catchlight_cli.factories import longest_polling, reconciliation
from catchlight_cli.health.miss_rate import CallbackMissRate, Resolved, miss_rate
from catchlight_cli.health.queues import QueueDepth, queue_depths
from catchlight_cli.health.task_counts import TaskCounts, cost_of_counting, count_tasks, unknown_statuses
from catchlight_cli.output import Output, format_time, new_table, plural, task_path

# Period of the callback miss rate, unless --since is given.
_DEFAULT_PERIOD = timedelta(days=1)
_DEFAULT_WATCH_SECONDS = 5.0

_MEANINGS = {
    TaskStatus.PENDING: "no result yet",
    TaskStatus.TIMED_OUT: "polling ended without a result",
    TaskStatus.FAILED: "the provider reported a failure",
    TaskStatus.SUCCEEDED: "images are being archived",
    TaskStatus.UNCONFIRMED: "images are in quarantine: the provider has not confirmed the callback",
    TaskStatus.INCOMPLETE: "at least one image could not be archived",
    TaskStatus.ARCHIVED: "every image is in the bucket",
}


class OldestPending(Model):
    """The PENDING task that has not changed for the longest time."""

    task: str
    age_seconds: float | None  # since its registration, else since its last change; None if the item has neither time


class Status(Model):
    """State of a stack: task counts, stuck tasks, queue depths, callback miss rate and problems."""

    stack: str
    at: datetime
    since: datetime | None
    tasks: TaskCounts
    oldest_pending: OldestPending | None
    stuck_pending: int  # tasks that are PENDING for longer than polling takes
    stuck_archiving: int  # tasks that have waited for archiving for over an hour
    unconfirmed_failures: int  # FAILED tasks whose callback the provider has not confirmed for over an hour
    # Keys of malformed items: among the stuck tasks, older than the oldest PENDING one, or, without `since`, with an
    # unknown status.
    unreadable: tuple[str, ...]
    queues: tuple[QueueDepth, ...]
    webhook_url: str | None  # receiver of webhooks, without the query, which may be a secret. None: no webhooks
    callback_miss_rate: CallbackMissRate
    malformed: Annotated[Mapping[str, str], Field(exclude=True)]  # by key of `unreadable`: the malformed attributes
    problems: tuple[str, ...]  # each with the next step


def gather(stack: Stack, *, period: timedelta | None, now: datetime, output: Output) -> Status:
    """Reads the state of the stack. Counting tasks shows a progress bar, preceded by its cost on large tables."""
    since = None if period is None else now - period
    if period is None and (cost := cost_of_counting(stack)):
        output.info(cost)
    with output.progress() as progress:
        bar = progress.add_task("Counting tasks", total=None)
        tasks = count_tasks(stack, since=since, on_progress=lambda more: progress.advance(bar, more))
    repair = reconciliation(stack)
    with output.working("Reading queues and metrics"):
        pending, archiving = repair.pending_too_long(longest_polling(stack)), repair.archiving_too_long()
        unconfirmed = repair.unconfirmed_failures()
        oldest = repair.oldest_pending()
        if pending or archiving or unconfirmed:  # these counts include malformed items
            repair.read_stuck(longest_polling(stack))
        unreadable = repair.unreadable | {
            task: f"unknown status {status}"
            for task, status in (unknown_statuses(stack) if period is None else {}).items()
        }
        queues = tuple(queue_depths(stack))
        rate = miss_rate(stack, since=now - (period or _DEFAULT_PERIOD), now=now)
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
        stuck_pending=pending,
        stuck_archiving=archiving,
        unconfirmed_failures=unconfirmed,
        unreadable=tuple(unreadable),
        malformed=unreadable,
        queues=queues,
        webhook_url=stack.parameters.get("WebhookUrl", "").partition("?")[0] or None,
        callback_miss_rate=rate,
        problems=tuple(_problems(pending, archiving, unconfirmed, unreadable, queues)),
    )


def _problems(
    pending: int, archiving: int, unconfirmed: int, unreadable: Mapping[str, str], queues: Iterable[QueueDepth]
) -> Iterable[str]:
    if pending:
        yield f"{plural(pending, 'task')} pending for longer than polling takes: run `catchlight reconcile`"
    if archiving:
        yield f"{plural(archiving, 'task')} not archived for an hour: run `catchlight redrive --kind stuck-archiving`"
    if unconfirmed:
        yield f"{plural(unconfirmed, 'failure')} not confirmed by the provider for an hour: run `catchlight reconcile`"
    for task, reason in unreadable.items():
        yield f"{task_path(task)} has a malformed item ({reason}) and is not processed: correct the item by hand"
    for queue in queues:
        if queue.should_be_empty and queue.messages:
            yield f"{plural(queue.messages, 'message')} in {queue.queue} ({queue.content}): {queue.next_step}"


def render(status: Status) -> Iterable[RenderableType]:
    """Renders the status for the terminal: tasks, queues, callback miss rates and problems."""
    tasks = new_table("Status", "Tasks", "Meaning", right=["Tasks"])
    for each, count in status.tasks.by_status.items():
        tasks.add_row(each.value, f"{count:,}", Text(_MEANINGS[each], "dim"))
    yield tasks
    since = f"changed since {format_time(status.since)}, " if status.since else ""
    yield Text(f"{since}{status.tasks.read_units:,.1f} read units consumed", "dim")
    if status.oldest_pending:
        age = status.oldest_pending.age_seconds
        shown = format_duration(age) if age is not None else "unknown age"
        yield f"Oldest pending task: {task_path(status.oldest_pending.task)}, {shown}"
    yield ""
    queues = new_table("Queue", "Messages", "Content", right=["Messages"])
    for queue in status.queues:
        style = "red" if queue.should_be_empty and queue.messages else ""
        queues.add_row(queue.queue, Text(f"{queue.messages:,}", style), Text(queue.content, "dim"))
    yield queues
    if status.webhook_url:
        yield Text(f"Webhooks are sent to {status.webhook_url}")
    yield ""
    rate = status.callback_miss_rate
    source = "CloudWatch metrics" if rate.source == "metrics" else "the tasks' reportedBy"
    yield f"Results since {format_time(rate.since)}, from {source}:"
    columns = ("By callback", "By polling", "Callback miss rate")
    results = new_table("Provider", *columns, right=columns)
    for provider, resolved in {**rate.by_provider, "all": rate.all}.items():
        results.add_row(provider, f"{resolved.by_callback:,}", f"{resolved.by_poll:,}", _percent(resolved))
    yield results
    yield ""
    if not status.problems:
        yield Text("✓ No task is stuck, and the dead-letter queues are empty.", "green")
    for problem in status.problems:
        yield Text(f"✗ {problem}", "red")


def _percent(resolved: Resolved) -> str:
    return "-" if resolved.miss_rate is None else f"{resolved.miss_rate:.1%}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=duration,
        metavar="DURATION",
        help="count only tasks that have changed in this period, such as 90s, 12h or 7d; also the period of the "
        "callback miss rate (default: count all tasks, miss rate of 1d)",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=seconds,
        const=_DEFAULT_WATCH_SECONDS,
        metavar="SECONDS",
        help=f"show the state again every SECONDS, until Ctrl-C (default: {_DEFAULT_WATCH_SECONDS:g})",
    )


def run(session: Session) -> ExitStatus:
    """Shows the state of the stack. Returns FAILURE if tasks are stuck or a dead-letter queue has messages."""
    status = _show(session)
    if session.options.watch is None:
        return status
    # Ctrl-C is the regular end of --watch, not an interruption.
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(session.options.watch)
            status = _show(session, is_update=True)
    return status


def _show(session: Session, *, is_update: bool = False) -> ExitStatus:
    output = session.output
    status = gather(session.stack, period=session.options.since, now=utc_now(), output=output)
    if session.options.watch is not None and output.is_terminal and not output.as_json:
        output.clear()
    elif is_update and not output.as_json:
        output.show_part("")
    output.show(status, lambda: render(status))
    output.malformed_items(status.malformed)
    return ExitStatus.FAILURE if status.problems else ExitStatus.SUCCESS


COMMAND = Command(
    name="status",
    summary="show tasks by status, stuck tasks, queue depths and the callback miss rate",
    add_arguments=add_arguments,
    run=run,
    description="""\
Show tasks by status, the oldest pending task, stuck tasks, queue depths and the callback miss rate. DynamoDB charges
for counting tasks: use --since 1d on a large table. Without --since, the command also reads the whole table to find
items with an unknown status.""",
)
