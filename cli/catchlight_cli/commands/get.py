"""Implements `catchlight get`: shows tasks as the tasks API returns them."""

import argparse

from catchlight.api.schemas import TaskResponse
from catchlight.client import TasksClient
from catchlight.models import Model
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.lookup.api_tasks import each_of, look_up, task_name
from catchlight_cli.output_tasks import task_page


class Tasks(Model):
    """Tasks as the tasks API returns them."""

    tasks: tuple[TaskResponse, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `get` to its parser."""
    parser.add_argument("tasks", nargs="+", type=task_name, metavar="TASK", help="flux-kontext/task12345, or its id")


def run(session: Session) -> ExitStatus:
    """Shows the current state of the named tasks. Returns FINE if all of them exist, else WRONG."""
    names = session.options.tasks
    with TasksClient.of(session.stack) as api:
        tasks = tuple(each_of(names, lambda name: look_up(api, name), session.screen.error))
    session.screen.show(Tasks(tasks=tasks), lambda: (part for task in tasks for part in task_page(task)))
    return ExitStatus.FINE if len(tasks) == len(names) else ExitStatus.WRONG


COMMAND = Command(
    name="get",
    summary="what is known of a task: its times, its images with links, why it failed",
    add_arguments=add_arguments,
    run=run,
)
