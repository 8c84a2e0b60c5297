"""Looks up tasks in the tasks API by name: `provider/taskId`, `provider#taskId`, or an unambiguous id."""

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
    """The name of a task; `provider` is empty if only the id was given."""

    provider: str
    task_id: str


class NoSuchTaskError(CatchlightError):
    """No task has this name."""

    def __init__(self, name: TaskName) -> None:
        known = f"{name.provider}/{name.task_id}" if name.provider else f"{name.task_id}, of any provider"
        super().__init__(
            f"There is no task {known}. Look for a typing error; one that the provider has and this stack does not is "
            f"made known by `catchlight register {name.provider or 'PROVIDER'} {name.task_id}`."
        )


def task_name(text: str) -> TaskName:
    """Parses the name of a task. An argparse type.

    Raises:
        ArgumentTypeError: the provider is unknown, or the task id is malformed.
    """
    provider, separator, task_id = text.replace("#", "/", 1).partition("/")
    return TaskName(provider_id(provider), task_id_of(task_id)) if separator else TaskName("", task_id_of(text))


def provider_id(text: str) -> str:
    """Validates the id of a provider. An argparse type.

    Raises:
        ArgumentTypeError: there is no such provider.
    """
    if text not in PROVIDERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no provider; there are {', '.join(PROVIDERS)}")
    return text


def task_id_of(text: str) -> str:
    """Validates a task id. An argparse type.

    Raises:
        ArgumentTypeError: the id is malformed; it must have 1 to 128 letters, digits, `-` and `_`.
    """
    if not re.fullmatch(TASK_ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no task id: 1 to 128 letters, digits, - and _")
    return text


def look_up(api: TasksClient, name: TaskName) -> TaskResponse:
    """Looks up the task with this name; without a provider, tries all providers.

    Raises:
        NoSuchTaskError: there is no such task.
        UsageError: several providers have a task with this id.
        TasksApiError: the request to the tasks API failed.
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
    """Calls `ask` to look up a task, and converts NotFoundError into NoSuchTaskError.

    Raises:
        NoSuchTaskError: there is no such task.
        TasksApiError: the request to the tasks API failed.
    """
    try:
        return ask()
    except NotFoundError as exc:
        raise NoSuchTaskError(name) from exc


def each_of(
    names: Iterable[TaskName], look: Callable[[TaskName], TaskResponse], complain: Callable[[str], None]
) -> Iterator[TaskResponse]:
    """Yields the tasks that exist. Missing ones are passed to `complain`, so that they do not stop the others."""
    for name in names:
        try:
            task = look(name)
        except NoSuchTaskError as exc:
            complain(str(exc))
        else:
            yield task
