"""Implements `catchlight get`: shows tasks as the tasks API returns them."""

import argparse

from catchlight.api.response_models import TaskResponse
from catchlight.client import TasksClient
from catchlight.models import Model
from catchlight_cli.arguments import add_tasks
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.output_tasks import render_task
from catchlight_cli.task_lookup import get_task, get_tasks


class Tasks(Model):
    """Tasks as the tasks API returns them."""

    tasks: tuple[TaskResponse, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tasks(parser, nargs="+")


def run(session: Session) -> ExitStatus:
    """Shows the current state of the named tasks. Returns SUCCESS if all of them exist."""
    names = session.options.tasks
    with TasksClient.of(session.stack) as api:
        tracked = session.output.track(names, "Reading", total=len(names))
        tasks = tuple(get_tasks(tracked, lambda name: get_task(api, name), session.output.error))
    session.output.show(Tasks(tasks=tasks), lambda: (part for task in tasks for part in render_task(task)))
    return ExitStatus.SUCCESS if len(tasks) == len(names) else ExitStatus.FAILURE


COMMAND = Command(
    name="get",
    summary="show tasks with their times, their images and the reason for a failure",
    add_arguments=add_arguments,
    run=run,
    description="""\
Show tasks with their times, their images and the reason for a failure. With --json, each archived image has a
presigned link.""",
)
