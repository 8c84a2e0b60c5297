"""Tasks of the tasks API as people name them: `provider/taskId`, `provider#taskId`, or a bare id where it will do."""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from catchlight.api.schemas import TaskResponse
from catchlight.client import NotFoundError, TasksClient
from catchlight.client.aws_errors import CatchlightError, UsageError
from catchlight.models import TASK_ID_PATTERN
from catchlight.providers import PROVIDERS


class TaskName(NamedTuple):
    """A task; `provider` is empty where only its id was given."""

    provider: str
    task_id: str


class NoSuchTaskError(CatchlightError):
    """There is no task of that name."""

    def __init__(self, name: TaskName) -> None:
        known = f"{name.provider}/{name.task_id}" if name.provider else f"{name.task_id}, of any provider"
        super().__init__(
            f"There is no task {known}. Look for a typing error; one that the provider has and this stack does not is "
            f"made known by `catchlight register {name.provider or 'PROVIDER'} {name.task_id}`."
        )


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


def look_up(api: TasksClient, name: TaskName) -> TaskResponse:
    """The task that is meant.

    Raises:
        NoSuchTaskError: the provider, or of a bare id any, has none.
        UsageError: of a bare id, several providers have it.
        TasksApiError: the tasks API could not be asked.
    """
    if name.provider:
        return asked(name, lambda: api.task(*name))
    found = []
    for provider in PROVIDERS:
        try:
            found.append(api.task(provider, name.task_id))
        except NotFoundError:
            continue
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{name.task_id} is the id of several tasks: {', '.join(task.task for task in found)}.")
    raise NoSuchTaskError(name)


def asked(name: TaskName, ask: Callable[[], TaskResponse]) -> TaskResponse:
    """What the tasks API answers of a task.

    Raises:
        NoSuchTaskError: there is none.
        TasksApiError: the tasks API could not be asked.
    """
    try:
        return ask()
    except NotFoundError as exc:
        raise NoSuchTaskError(name) from exc


def each_of(
    names: Iterable[TaskName], look: Callable[[TaskName], TaskResponse], complain: Callable[[str], None]
) -> Iterator[TaskResponse]:
    """The tasks that there are. Complains of each other: it must not take the answers about these with it."""
    for name in names:
        try:
            task = look(name)
        except NoSuchTaskError as exc:
            complain(str(exc))
        else:
            yield task
