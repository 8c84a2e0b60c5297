"""Reads existing task ids from files and registers them, at a rate that the providers can handle."""

import csv
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, groupby
from typing import Any

from catchlight.aws.batches import MAX_KEYS_PER_GET, batches
from catchlight.models import Model, is_task_key, split_task_key, task_key
from catchlight.providers import PROVIDERS
from catchlight.tasks.registration import Registry
from catchlight.tasks.table import TasksTable

# Accepted names of the task id in CSV headers and JSON lines, normalized by `_plain_name`.
_ID_NAMES = ("taskid", "id")
# Spreadsheets write semicolons where the comma is the decimal separator, and tabs as "text".
_DELIMITERS = (",", ";", "\t")
# Beginning of a first line that declares the delimiter for Excel: "sep=;".
_DELIMITER_LINE = "sep="
# Maximum number of tasks per call of the registry; pauses between the calls limit the rate.
_BATCH_SIZE = 10


class InvalidLine(Model):
    """A line without a valid task, and the reason."""

    line: int
    problem: str


class ImportResult(Model):
    """The result of an import."""

    dry_run: bool
    lines: int  # lines with a valid task
    duplicates: int  # lines among these that repeat the task of an earlier line
    already_known: int  # tasks that were in the table before
    registered: int  # in a dry run: tasks that would be registered
    invalid: tuple[InvalidLine, ...]


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A line with a valid task: its number and the key of the task."""

    line: int
    task: str


def read_lines(lines: Iterable[str], *, provider: str | None = None) -> Iterator[TaskLine | InvalidLine]:
    """Reads tasks from CSV with a header, JSON lines, or lines of `provider#taskId`; the first line decides the format.

    `provider` is the default for lines that do not name a provider.
    """
    remaining = iter(lines)
    skipped = 0
    for first in remaining:
        if first.strip() and not first.lower().startswith(_DELIMITER_LINE):
            break
        skipped += 1
    else:
        return
    if header := _header(first):
        fields = _csv_fields(remaining, *header, after=skipped + 1)
    else:
        content = enumerate(chain([first], remaining), start=skipped + 1)
        numbered = ((number, line.strip()) for number, line in content if line.strip())
        fields = _json_fields(numbered) if first.lstrip().startswith("{") else _plain_fields(numbered)
    for number, found in fields:
        yield _task_of(number, found, provider)


def _header(line: str) -> tuple[Sequence[str], str] | None:
    """Returns the names and the delimiter of a CSV header; None if the line is not a header."""
    for delimiter in _DELIMITERS:
        names = [_plain_name(name) for name in next(csv.reader([line], delimiter=delimiter))]
        if {"task", *_ID_NAMES} & set(names):
            return names, delimiter
    return None


def _plain_name(name: str) -> str:
    """Normalizes the name of a field: `taskId`, `task_id`, `Task ID` and `TASK-ID` become `taskid`."""
    return re.sub(r"[\s_-]", "", name.lower())


_Fields = dict[str, Any] | str
"""The values of a line by normalized name, or why the line cannot be read."""


def _json_fields(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, _Fields]]:
    for number, line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            yield number, "invalid JSON"
            continue
        yield number, _fields(found.items()) if isinstance(found, dict) else "not a JSON object"


def _fields(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in named:
        found.setdefault(_plain_name(name), value)
    return found


def _csv_fields(
    lines: Iterator[str], names: Sequence[str], delimiter: str, *, after: int
) -> Iterator[tuple[int, _Fields]]:
    # One reader for all lines, not one per line: a quoted prompt may contain line breaks.
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield after + reader.line_num, f"invalid CSV: {exc}"
            continue
        if not values:
            continue
        if len(values) != len(names):
            yield after + reader.line_num, f"{len(values)} values, but the header has {len(names)} names"
            continue
        yield after + reader.line_num, _fields(zip(names, map(str.strip, values), strict=True))


def _plain_fields(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, _Fields]]:
    for number, line in lines:
        yield number, {"task": line} if "#" in line or "/" in line else {"taskid": line}


def _task_of(number: int, found: _Fields, provider: str | None) -> TaskLine | InvalidLine:
    if isinstance(found, str):
        return InvalidLine(line=number, problem=found)
    named = found.get("task")
    task_id = next((found[name] for name in _ID_NAMES if name in found), None)
    if isinstance(named, str):
        key = named if "#" in named else named.replace("/", "#", 1)
    elif isinstance(task_id, str):
        key = task_key(str(found.get("provider") or provider or ""), task_id)
    else:
        return InvalidLine(line=number, problem="no task: expected task, or provider and taskId")
    if key.startswith("#"):
        return InvalidLine(line=number, problem="no provider: add it to the line, or use --provider")
    if not is_task_key(key):
        return InvalidLine(line=number, problem="invalid task id: it must have 1 to 128 letters, digits, - and _")
    known = split_task_key(key)[0]
    if known not in PROVIDERS:
        return InvalidLine(line=number, problem=f"unknown provider {known}: the providers are {', '.join(PROVIDERS)}")
    return TaskLine(number, key)


def read_file(lines: Iterable[str], *, provider: str | None = None) -> tuple[list[str], int, tuple[InvalidLine, ...]]:
    """Returns the distinct task keys of a file, the number of lines with a valid task, and the invalid lines."""
    tasks: dict[str, None] = {}
    invalid = []
    valid_lines = 0
    for line in read_lines(lines, provider=provider):
        if isinstance(line, InvalidLine):
            invalid.append(line)
        else:
            valid_lines += 1
            tasks[line.task] = None
    return list(tasks), valid_lines, tuple(invalid)


def unknown_tasks(table: TasksTable, tasks: Sequence[str], *, on_progress: Callable[[int], None]) -> Iterator[str]:
    """Yields the tasks that are not in the table yet.

    Therefore an interrupted import can be repeated: tasks that an earlier run registered are skipped, and reading is a
    hundred times as fast as registering.
    """
    for batch in batches(tasks, MAX_KEYS_PER_GET):
        known = table.get_many(batch)
        on_progress(len(batch))
        yield from (task for task in batch if task not in known)


def register(
    registry: Registry,
    tasks: Sequence[str],
    *,
    rate: float,
    now: Callable[[], datetime],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[dict[str, bool]]:
    """Registers tasks in batches; yields for each batch, by task, whether the task was new.

    `rate` is the maximum number of registrations per second. A registration starts polling, so it is also the rate of
    first polls, FirstPollAfterSeconds later.
    """
    ends_at = clock()
    size = max(1, min(_BATCH_SIZE, int(rate)))
    for batch in batches(tasks, size):
        # Batches after a slow one are not faster to compensate for it: the rate is an upper limit.
        ends_at = max(ends_at, clock()) + len(batch) / rate
        by_provider = groupby(sorted(map(split_task_key, batch)), key=lambda key: key[0])
        outcomes: dict[str, bool] = {}
        for provider, keys in by_provider:
            task_ids = [task_id for _, task_id in keys]
            are_new = registry.register(provider, task_ids, now=now())
            outcomes |= {task_key(provider, each): is_new for each, is_new in zip(task_ids, are_new, strict=True)}
        yield outcomes
        if (left := ends_at - clock()) > 0:
            sleep(left)
