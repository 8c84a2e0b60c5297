"""Implements `catchlight describe`: shows a task's history and images, the reason for its status, and the next step."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.stack import Stack
from catchlight.models import ImageState, TaskStatus, parse_time, utc_now
from catchlight.recovery.dead_letters import DeadLetterQueue
from catchlight.tasks.task import Task
from catchlight_cli.arguments import TaskName, add_tasks
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import format_duration
from catchlight_cli.factories import first_poll_after, longest_polling, tasks_table
from catchlight_cli.health.archive_log import failed_attempts
from catchlight_cli.health.explanation import ArchiveDeadLetter, Explanation, explain
from catchlight_cli.health.polling_executions import ExecutionSearch, find_executions
from catchlight_cli.output import format_time, new_table, task_path
from catchlight_cli.output_tasks import status_text
from catchlight_cli.task_lookup import NoSuchTaskError, find_task_key

# Enough time to read the messages. Until it is over or they are released, `redrive` cannot receive them.
_VISIBILITY_TIMEOUT_SECONDS = 30
_MAX_DEAD_LETTERS = 500

_IMAGE_STYLES = {ImageState.ARCHIVED: "green", ImageState.PENDING: "yellow"}


def gather(stack: Stack, name: TaskName, *, now: datetime, warn: Callable[[str], None]) -> Explanation:
    """Reads the task, its polling executions, its archiving log and its dead letters, and explains its status.

    Raises:
        NoSuchTaskError: the table has no such task.
        UsageError: several providers have a task with this id.
    """
    table = tasks_table(stack)
    key = find_task_key(table, name)
    task = table.get(key)
    if task is None:
        raise NoSuchTaskError(name)
    is_being_archived = task.status is TaskStatus.SUCCEEDED
    since = task.reported_time or now - timedelta(days=1)
    return explain(
        task,
        polling=_polling(stack, task),
        dead_letters=_dead_letters(stack, key) if is_being_archived else (),
        failed_attempts=failed_attempts(stack, key, since=since, warn=warn) if is_being_archived else (),
        longest_polling=longest_polling(stack),
        now=now,
    )


def _polling(stack: Stack, task: Task) -> ExecutionSearch | None:
    if task.status is not TaskStatus.PENDING:
        return None
    times = filter(None, map(parse_time, (task.registered_at, task.updated_at, task.reconciled_at)))
    machine = stack.resource("PollTasksStateMachine")
    return find_executions(
        stack.client("stepfunctions"),
        machine,
        task.task,
        changed_at=times,
        first_poll_after=first_poll_after(stack),
    )


def _dead_letters(stack: Stack, task: str) -> Iterator[ArchiveDeadLetter]:
    queue = DeadLetterQueue(stack.client("sqs"), stack.resource("ArchiveDeadLetters"))
    received = []
    try:
        for dead_letter in queue.receive(limit=_MAX_DEAD_LETTERS, visibility_timeout=_VISIBILITY_TIMEOUT_SECONDS):
            received.append(dead_letter)
            if dead_letter.task == task:
                yield ArchiveDeadLetter(id=dead_letter.id, sent_at=dead_letter.sent_at)
    finally:
        queue.release(received)


def render(explanation: Explanation, now: datetime) -> Iterable[RenderableType]:
    """Renders the explanation for the terminal: status, prompt, history, images, reason and next step."""
    task = explanation.task
    yield Text.assemble((task_path(task.task), "bold"), "  ", status_text(task.status))
    if task.request and task.request.prompt:
        yield Text(task.request.prompt, "italic")
    yield ""
    history = new_table("Time", "Age", "Event")
    for event in explanation.history:
        age = format_duration(now - event.at) if event.at <= now else ""
        history.add_row(format_time(event.at), Text(age, "dim"), Text(event.description))
    if explanation.history:
        yield history
    if task.images:
        yield ""
        images = new_table("Image", "State", "Object key or reason")
        for image in task.images:
            where = image.key or image.reason or f"URL expires at {format_time(image.expires_at)}"
            size = f"  {image.width} x {image.height}, {image.bytes:,} bytes" if image.bytes else ""
            images.add_row(
                image.kind.value, Text(image.state.value, _IMAGE_STYLES.get(image.state, "red")), Text(where + size)
            )
        yield images
    yield ""
    yield Text.assemble(("Reason     ", "dim"), explanation.reason)
    yield Text.assemble(("Next step  ", "dim"), explanation.next_step)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tasks(parser, nargs=None)


def run(session: Session) -> ExitStatus:
    """Shows the task's history, the reason for its status, and the next step."""
    now = utc_now()
    with session.output.working("Reading the task, its polling and its dead letters"):
        explanation = gather(session.stack, session.options.task, now=now, warn=session.output.info)
    session.output.show(explanation, lambda: render(explanation, now))
    return ExitStatus.SUCCESS


COMMAND = Command(
    name="describe",
    summary="show a task's history, the reason for its status, and the next step",
    add_arguments=add_arguments,
    run=run,
)
