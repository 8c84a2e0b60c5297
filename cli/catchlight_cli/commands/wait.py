"""Implements `catchlight wait`: waits until tasks are done."""

import argparse
import time
from collections.abc import Sequence

from catchlight.api.schemas import TaskResponse
from catchlight.client import TasksClient
from catchlight.models import TaskStatus
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.get import Tasks
from catchlight_cli.lookup.api_tasks import TaskName, asked, each_of, look_up, task_name
from catchlight_cli.output_tasks import tasks_table

DEFAULT_TIMEOUT_SECONDS = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `wait` to its parser."""
    parser.add_argument("tasks", nargs="+", type=task_name, metavar="TASK", help="flux-kontext/task12345, or its id")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help=f"for all of them together ({DEFAULT_TIMEOUT_SECONDS:.0f})",
    )


def run(session: Session) -> ExitStatus:
    """Waits until all named tasks are done or the timeout is over. Returns FINE if all of them are archived."""
    deadline = time.monotonic() + session.options.timeout
    names = session.options.tasks
    with TasksClient.of(session.stack) as api:
        # Waits for one task after the other: the others progress meanwhile, and only one request is open at a time.
        one_by_one = session.screen.track(names, "Waiting", total=len(names))
        tasks = list(each_of(one_by_one, lambda name: _wait(api, name, deadline), session.screen.error))
    session.screen.show(Tasks(tasks=tuple(tasks)), lambda: [tasks_table(tasks)])
    for task in tasks:
        if not task.done:
            session.screen.error(f"{task.provider}/{task.task_id} is not done yet: {task.status}.")
    return status_of(tasks) if len(tasks) == len(names) else ExitStatus.WRONG


def _wait(api: TasksClient, name: TaskName, deadline: float) -> TaskResponse:
    provider = name.provider or look_up(api, name).provider
    left = max(0.0, deadline - time.monotonic())
    return asked(name, lambda: api.wait(provider, name.task_id, timeout_seconds=left))


def status_of(tasks: Sequence[TaskResponse]) -> ExitStatus:
    """Returns FINE if every task is ARCHIVED, that is, has all its images; else WRONG."""
    is_fine = all(task.status is TaskStatus.ARCHIVED for task in tasks)
    return ExitStatus.FINE if is_fine else ExitStatus.WRONG


COMMAND = Command(
    name="wait",
    summary="wait until tasks are done",
    description="Waits until tasks are done. The exit status is 0 if all of them are ARCHIVED, 1 otherwise.",
    add_arguments=add_arguments,
    run=run,
)
