"""Implements `catchlight wait`: waits until tasks are done."""

import argparse
import time
from collections.abc import Sequence

from catchlight.api.response_models import TaskResponse
from catchlight.client import TasksClient
from catchlight.models import TaskStatus
from catchlight_cli.arguments import TaskName, add_tasks, seconds
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.get import Tasks
from catchlight_cli.output import Output
from catchlight_cli.output_tasks import render_tasks
from catchlight_cli.task_lookup import get_task, get_tasks

DEFAULT_TIMEOUT_SECONDS = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tasks(parser, nargs="+")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help=f"maximum time for all tasks together (default: {DEFAULT_TIMEOUT_SECONDS:.0f})",
    )


def run(session: Session) -> ExitStatus:
    """Waits until all named tasks are done or the timeout is over. Returns SUCCESS if all of them are archived."""
    deadline = time.monotonic() + session.options.timeout
    names = session.options.tasks
    with TasksClient.of(session.stack) as api:
        # Waits for one task after the other, with one open request at a time; the other tasks progress meanwhile.
        tracked = session.output.track(names, "Waiting", total=len(names))
        tasks = list(get_tasks(tracked, lambda name: _wait(api, name, deadline), session.output.error))
    session.output.show(Tasks(tasks=tuple(tasks)), lambda: [render_tasks(tasks)] if tasks else [])
    status = exit_status(tasks, session.output)
    return status if len(tasks) == len(names) else ExitStatus.FAILURE


def _wait(api: TasksClient, name: TaskName, deadline: float) -> TaskResponse:
    task = get_task(api, name)
    timeout = max(0.0, deadline - time.monotonic())
    return task if task.done else api.wait(task.provider, task.task_id, timeout_seconds=timeout)


def exit_status(tasks: Sequence[TaskResponse], output: Output) -> ExitStatus:
    """Returns SUCCESS if every task is ARCHIVED. Prints an error for each task that is not done."""
    for task in tasks:
        if not task.done:
            output.error(f"{task.provider}/{task.task_id} is not done yet: {task.status}.")
    is_success = all(task.status is TaskStatus.ARCHIVED for task in tasks)
    return ExitStatus.SUCCESS if is_success else ExitStatus.FAILURE


COMMAND = Command(
    name="wait",
    summary="wait until tasks are done",
    description="Wait until tasks are done. The exit code is 0 if all of them are ARCHIVED, 1 otherwise.",
    add_arguments=add_arguments,
    run=run,
)
