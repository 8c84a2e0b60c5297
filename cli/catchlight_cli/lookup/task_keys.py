"""Finds task keys in the table by name: `provider#taskId`, `provider/taskId`, or an id alone if it is unambiguous."""

import re
from collections.abc import Sequence

from catchlight.client.aws_errors import UsageError
from catchlight.models import TASK_ID_PATTERN, is_task_key, task_key
from catchlight.providers import PROVIDERS
from catchlight.tasks.table import TasksTable


def find_task(table: TasksTable, name: str) -> str:
    """Returns the key of the task with this name. Only an id without a provider is looked up in the table.

    Raises:
        UsageError: the name is malformed, or no task or several tasks have this id.
        StoreUnavailableError: the look-up in the table failed.
    """
    key = name.replace("/", "#", 1) if "#" not in name else name
    if is_task_key(key):
        return key
    if not re.fullmatch(TASK_ID_PATTERN, name):
        raise UsageError(f"{name!r} names no task: write provider#taskId, provider/taskId or the task's id.")
    found = sorted(table.get_many([task_key(provider, name) for provider in PROVIDERS]))
    if not found:
        raise UsageError(f"No provider has a task {name} here: write provider/{name}, or look for a typing error.")
    if len(found) > 1:
        raise UsageError(f"{name} is the id of several tasks: {', '.join(found)}. Write the one that you mean.")
    return found[0]


def find_tasks(table: TasksTable, names: Sequence[str]) -> list[str]:
    """Returns the keys of several tasks, each once, in the order of the names; raises as `find_task`."""
    return list(dict.fromkeys(find_task(table, name) for name in names))
