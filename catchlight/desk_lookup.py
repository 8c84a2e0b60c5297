"""Tasks of the answer desk as people name them: `provider/taskId`, `provider#taskId`, or a bare id where it will do."""

import argparse
import re
from typing import NamedTuple

from catchlight.client import DeskClient, NotFoundError
from catchlight.errors import UsageError
from image_tasks.desk_messages import TaskAnswer
from image_tasks.models import TASK_ID_PATTERN
from image_tasks.providers import PROVIDERS


class TaskName(NamedTuple):
    """A task; `provider` is empty where only its id was given."""

    provider: str
    task_id: str


def task_name(text: str) -> TaskName:
    """For argparse.

    Raises:
        ArgumentTypeError: it names no task.
    """
    provider, separator, task_id = text.replace("#", "/", 1).partition("/")
    return TaskName(provider_id(provider), task_id_of(task_id)) if separator else TaskName("", task_id_of(text))


def provider_id(text: str) -> str:
    """For argparse.

    Raises:
        ArgumentTypeError: there is no such provider.
    """
    if text not in PROVIDERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no provider; there are {', '.join(PROVIDERS)}")
    return text


def task_id_of(text: str) -> str:
    """For argparse.

    Raises:
        ArgumentTypeError: a task id has 1 to 128 letters, digits, `-` and `_`.
    """
    if not re.fullmatch(TASK_ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no task id: 1 to 128 letters, digits, - and _")
    return text


def look_up(desk: DeskClient, name: TaskName) -> TaskAnswer:
    """The task that is meant.

    Raises:
        NotFoundError: the provider has no such task.
        UsageError: of a bare id, no provider has it, or several have.
        DeskError: the desk could not be asked.
    """
    if name.provider:
        return desk.task(*name)
    found = []
    for provider in PROVIDERS:
        try:
            found.append(desk.task(provider, name.task_id))
        except NotFoundError:
            continue
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{name.task_id} is the id of several tasks: {', '.join(task.task for task in found)}.")
    raise UsageError(f"No provider has a task {name.task_id} here. Look for a typing error.")
