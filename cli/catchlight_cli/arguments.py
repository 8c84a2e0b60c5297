"""Argument types and shared arguments of the commands. The types raise ArgumentTypeError for invalid text."""

import argparse
import math
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from catchlight.models import (
    MAX_METADATA_VALUE_LENGTH,
    METADATA_NAME_PATTERN,
    REFERENCE_PATTERN,
    TASK_ID_PATTERN,
    FailureReason,
    TaskStatus,
)
from catchlight.providers import PROVIDERS
from catchlight_cli.durations import duration

_DURATION_UNITS = tuple("smhdw")


class TaskName(NamedTuple):
    """The name of a task. `provider` is empty if only the task id was given."""

    provider: str
    task_id: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.task_id}" if self.provider else f"{self.task_id} of any provider"


def task_name(text: str) -> TaskName:
    """Parses the name of a task: `provider/taskId`, `provider#taskId`, or the task id alone."""
    provider, separator, task = text.replace("#", "/", 1).partition("/")
    return TaskName(provider_id(provider), task_id(task)) if separator else TaskName("", task_id(text))


def provider_id(text: str) -> str:
    """Validates the id of a provider."""
    if text not in PROVIDERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a provider; the providers are {', '.join(PROVIDERS)}")
    return text


def task_id(text: str) -> str:
    """Validates a task id."""
    if not re.fullmatch(TASK_ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a task id (1 to 128 letters, digits, - and _)")
    return text


def metadata_pair(text: str) -> tuple[str, str]:
    """Parses an entry of a task's metadata, `NAME=VALUE`."""
    name, separator, value = text.partition("=")
    if not (separator and re.fullmatch(METADATA_NAME_PATTERN, name) and len(value) <= MAX_METADATA_VALUE_LENGTH):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=VALUE (a name of 1 to 64 letters, digits, _, . and -; a value of up to "
            f"{MAX_METADATA_VALUE_LENGTH} characters)"
        )
    return name, value


def reference(text: str) -> str:
    """Validates a reference: the value of the query parameter `ref` of a callback URL."""
    if not re.fullmatch(REFERENCE_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a reference (1 to 128 letters, digits, _, ., ~, : and -)")
    return text


def positive_integer(text: str) -> int:
    """Parses a whole number above 0."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """Parses a number of seconds, at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def since(text: str) -> datetime:
    """Parses a duration before now (2h, 3d) or an ISO 8601 time; a time without a zone is local time."""
    try:
        if text[-1:] in _DURATION_UNITS:
            return datetime.now(UTC) - duration(text)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; valid times are 2h, 3d, 2026-01-31 and 2026-01-31T12:00Z"
        ) from exc


def add_provider(
    parser: argparse.ArgumentParser, *, nargs: str | None = None, help_: str = "id of the provider"
) -> None:
    """Adds the positional argument `provider`."""
    parser.add_argument(
        "provider", nargs=nargs, type=provider_id, metavar="PROVIDER", help=f"{help_}: {', '.join(PROVIDERS)}"
    )


def add_tasks(parser: argparse.ArgumentParser, *, nargs: str | None) -> None:
    """Adds the positional argument for tasks: `task` if `nargs` is None, else `tasks`."""
    parser.add_argument(
        "tasks" if nargs else "task",
        nargs=nargs,
        type=task_name,
        metavar="TASK",
        help="provider/taskId, provider#taskId, or the task id alone if it is unambiguous",
    )


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Adds the filters --status, --provider, --since, --ref, --metadata and --reason."""
    parser.add_argument(
        "--status", type=str.upper, choices=[status.value for status in TaskStatus], help="only tasks with this status"
    )
    parser.add_argument("--provider", type=provider_id, metavar="PROVIDER", help="only tasks of this provider")
    parser.add_argument(
        "--since",
        type=since,
        metavar="TIME",
        help="only tasks that arrived (with --status: changed) at or after this time: 2h (ago), 3d, 2026-01-31, "
        "2026-01-31T12:00Z",
    )
    parser.add_argument("--ref", type=reference, help="only tasks with this reference")
    parser.add_argument(
        "--metadata", type=metadata_pair, metavar="NAME=VALUE", help="only tasks with this entry in their metadata"
    )
    parser.add_argument(
        "--reason",
        type=str.upper,
        choices=[reason.value for reason in FailureReason],
        help="only tasks that failed for this reason",
    )


def filters(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the filters of `add_filters` as keyword arguments of `TasksClient.pages`."""
    status = options.status and TaskStatus(options.status)
    metadata = options.metadata and "=".join(options.metadata)
    return {
        "status": status,
        "provider": options.provider,
        "since": options.since,
        "ref": options.ref,
        "metadata": metadata,
        "reason": options.reason and FailureReason(options.reason),
    }


def add_metadata(parser: argparse.ArgumentParser) -> None:
    """Adds the options --ref and --metadata, whose values are stored with new tasks. --metadata is repeatable."""
    parser.add_argument("--ref", type=reference, help="your own reference, which is stored with the task")
    parser.add_argument(
        "--metadata",
        type=metadata_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="entry of the metadata that is stored with the task; repeatable",
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Adds the option --dry-run."""
    parser.add_argument("--dry-run", action="store_true", help="show what the command would do, and change nothing")


def add_limit(parser: argparse._ActionsContainer, default: int | None, items: str) -> None:
    """Adds the option --limit, the maximum number of `items`. If `default` is None, there is no maximum."""
    shown = "all" if default is None else default
    parser.add_argument(
        "--limit",
        type=positive_integer,
        default=default,
        metavar="N",
        help=f"maximum number of {items} (default: {shown})",
    )
