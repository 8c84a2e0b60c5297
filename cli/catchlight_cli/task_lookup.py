"""Looks up the tasks that a command's arguments name, in the tasks API or in the table."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

from catchlight.api.response_models import TaskResponse
from catchlight.client import NotFoundError, TasksClient
from catchlight.client.errors import CatchlightError, UsageError
from catchlight.models import task_key
from catchlight.providers import PROVIDERS
from catchlight.tasks.table import TasksTable
from catchlight_cli.arguments import TaskName
from catchlight_cli.output import task_path

Found = TypeVar("Found")


class NoSuchTaskError(CatchlightError):
    """The stack has no task of this name."""

    def __init__(self, name: TaskName) -> None:
        # Further accounts are not tried: only the secret with the API keys lists them, and not every user may read it.
        accounts = "" if name.provider else f" Tasks of further accounts need their provider: apikley-2/{name.task_id}."
        super().__init__(
            f"There is no task {name}. Check the spelling.{accounts} If the task exists at the provider only, run "
            f"`catchlight register {name.provider or 'PROVIDER'} {name.task_id}`."
        )


def get_task(api: TasksClient, name: TaskName) -> TaskResponse:
    """Requests a task from the tasks API. Without a provider, all providers are tried.

    Raises:
        NoSuchTaskError: there is no such task.
        UsageError: several providers have a task with this id.
        TasksApiError: the request to the tasks API failed.
    """
    found = {}
    for provider in [name.provider] if name.provider else PROVIDERS:
        with suppress(NotFoundError):
            found[task_key(provider, name.task_id)] = api.task(provider, name.task_id)
    return _only(name, found)


def get_tasks(
    names: Iterable[TaskName], get: Callable[[TaskName], TaskResponse], error: Callable[[str], None]
) -> Iterator[TaskResponse]:
    """Yields the tasks that exist. For each missing task, calls `error` with a message and continues."""
    for name in names:
        try:
            task = get(name)
        except NoSuchTaskError as exc:
            error(str(exc))
        else:
            yield task


def find_task_key(table: TasksTable, name: TaskName) -> str:
    """Returns the key of a task. Only a task id without a provider is looked up in the table.

    Raises:
        NoSuchTaskError: no provider has a task with this id.
        UsageError: several providers have a task with this id.
        StoreUnavailableError: the table could not be read.
    """
    if name.provider:
        return task_key(*name)
    keys = sorted(table.get_many([task_key(provider, name.task_id) for provider in PROVIDERS]))
    return _only(name, dict(zip(keys, keys, strict=True)))


def _only(name: TaskName, found: Mapping[str, Found]) -> Found:
    if not found:
        raise NoSuchTaskError(name)
    if len(found) > 1:
        raise UsageError(
            f"{name.task_id} is the id of several tasks: {', '.join(map(task_path, found))}. Name one of them."
        )
    return next(iter(found.values()))
