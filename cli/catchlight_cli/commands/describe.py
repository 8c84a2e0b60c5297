"""Implements `catchlight describe`: shows a task's history and images, the reason for its state, and the next step."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.aws_errors import CatchlightError
from catchlight.client.stack import Stack
from catchlight.models import ImageState, Task, TaskStatus, utc_now
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import in_words, parse_time
from catchlight_cli.factories import longest_polling, tasks_table
from catchlight_cli.health.archive_log import failed_tries
from catchlight_cli.health.explanation import DeadLetter, Explanation, explain
from catchlight_cli.health.polling_executions import Search, find_executions
from catchlight_cli.lookup.task_keys import find_task
from catchlight_cli.output import a_table
from catchlight_cli.repair.dead_letters import DeadLetterQueue

# Long enough to read the messages, short enough not to block other consumers of the queue for long.
_HOLD_SECONDS = 30
_MAX_LETTERS = 500

_COLOURS = {ImageState.ARCHIVED: "green", ImageState.PENDING: "yellow"}


def gather(stack: Stack, name: str, *, now: datetime, remark: Callable[[str], None]) -> Explanation:
    """Reads the task, its polling executions, its archiving log and its dead letters, and explains its state.

    Raises:
        UsageError: no task matches this name.
        CatchlightError: the table has no task with this key.
    """
    table = tasks_table(stack)
    key = find_task(table, name)
    task = table.get(key)
    if task is None:
        raise CatchlightError(
            f"There is no task {key} in {stack}. Was it registered? `catchlight import` registers tasks of another day."
        )
    is_archived_now = task.status is TaskStatus.SUCCEEDED
    since = task.reported_time or now - timedelta(days=1)
    return explain(
        task,
        polling=_polling(stack, task),
        dead_letters=_dead_letters(stack, key) if is_archived_now else (),
        failed_tries=failed_tries(stack, key, since=since, remark=remark) if is_archived_now else (),
        longest_polling=longest_polling(stack),
        now=now,
    )


def _polling(stack: Stack, task: Task) -> Search | None:
    if task.status is not TaskStatus.PENDING:
        return None
    times = filter(None, map(parse_time, (task.registered_at, task.updated_at, task.reconciled_at)))
    machine = stack.resource("PollTasksStateMachine")
    return find_executions(stack.client("stepfunctions"), machine, task.task, started_near=times)


def _dead_letters(stack: Stack, task: str) -> Iterator[DeadLetter]:
    box = DeadLetterQueue(stack.client("sqs"), stack.resource("ArchiveDeadLetters"))
    dead_letters = []
    try:
        for dead_letter in box.take(limit=_MAX_LETTERS, hold_seconds=_HOLD_SECONDS):
            dead_letters.append(dead_letter)
            if dead_letter.task == task:
                yield DeadLetter(id=dead_letter.id, since=dead_letter.sent_at)
    finally:
        box.give_back(dead_letters)


def page(explanation: Explanation, now: datetime) -> Iterable[RenderableType]:
    """Renders the explanation for the terminal: status, prompt, history, images, reason and next step."""
    task = explanation.task
    yield Text.assemble((task.task, "bold"), "  ", (task.status.value, _status_colour(task.status)))
    request = getattr(task, "request", None)
    if request and request.prompt:
        yield Text(request.prompt, "italic")
    yield ""
    history = a_table("UTC", "Ago", "What happened")
    for event in explanation.history:
        ago = in_words(now - event.at) if event.at <= now else ""
        history.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", Text(ago, "dim"), Text(event.what))
    if explanation.history:
        yield history
    if task.images:
        yield ""
        images = a_table("Image", "State", "Where, or why not")
        for image in task.images:
            where = image.key or image.reason or f"URL lives until {image.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            size = f"  {image.width} x {image.height}, {image.bytes:,} bytes" if image.bytes else ""
            images.add_row(
                image.kind.value, Text(image.state.value, _COLOURS.get(image.state, "red")), Text(where + size)
            )
        yield images
    yield ""
    yield Text.assemble(("Why   ", "dim"), explanation.why)
    yield Text.assemble(("Next  ", "dim"), explanation.next)


def _status_colour(status: TaskStatus) -> str:
    return {
        TaskStatus.ARCHIVED: "green",
        TaskStatus.PENDING: "yellow",
        TaskStatus.SUCCEEDED: "yellow",
    }.get(status, "red")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `describe` to its parser."""
    parser.add_argument("task", metavar="TASK", help="provider#taskId, provider/taskId, or the id alone")


def run(session: Session) -> ExitStatus:
    """Shows the task's history, why it is in its current state, and what happens next."""
    now = utc_now()
    explanation = gather(session.stack, session.options.task, now=now, remark=session.screen.info)
    session.screen.show(explanation, lambda: page(explanation, now))
    return ExitStatus.FINE


COMMAND = Command(
    name="describe",
    summary="what became of a task, why, and what happens next",
    add_arguments=add_arguments,
    run=run,
)
