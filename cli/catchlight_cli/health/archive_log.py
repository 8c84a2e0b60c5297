"""Reads failed archiving attempts from the log of ArchiveImages: a task's item has a reason only after the last one."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from catchlight.client.aws_errors import explain
from catchlight.client.stack import Stack
from catchlight.models import Model

_MESSAGE = "not archived yet"
# A page of FilterLogEvents may be empty although later ones have events, so several are read.
_MAX_PAGES = 5


class FailedTry(Model):
    """A failed attempt to archive an image, and the reason."""

    at: datetime
    reason: str


def failed_tries(stack: Stack, task: str, *, since: datetime, remark: Callable[[str], None]) -> tuple[FailedTry, ...]:
    """Returns a task's failed attempts since then, oldest first; none, and calls `remark`, if the log is unreadable."""
    try:
        return tuple(_read(_local_lines(stack) if stack.is_local else _lines(stack, task, since), task, since))
    except FileNotFoundError:  # local stack: the function has not written a log yet
        return ()
    except (ClientError, BotoCoreError, OSError) as exc:
        reason = str(exc) if isinstance(exc, OSError) else explain(exc)
        remark(f"Failed tries are not shown: the log of ArchiveImages cannot be read. {reason}")
        return ()


def _lines(stack: Stack, task: str, since: datetime) -> Iterator[str]:
    pages = (
        stack.client("logs")
        .get_paginator("filter_log_events")
        .paginate(
            logGroupName=stack.resource("ArchiveImagesLogGroup"),
            startTime=int(since.timestamp() * 1000),
            # A phrase, not a JSON pattern: it matches lines of any format that contain the task's key.
            filterPattern=f'"{task}"',
        )
    )
    for page in islice(pages, _MAX_PAGES):
        yield from (event["message"] for event in page["events"])


def _local_lines(stack: Stack) -> Iterable[str]:
    return (stack.logs / "ArchiveImagesFunction.log").read_text().splitlines() if stack.logs else ()


def _read(lines: Iterable[str], task: str, since: datetime) -> Iterator[FailedTry]:
    for line in lines:
        # Skips lines that are not log events of the function, such as Lambda's own.
        with suppress(ValueError, KeyError, TypeError):
            said: dict[str, Any] = json.loads(line)
            if said["message"] == _MESSAGE and said["task"] == task:
                at = datetime.fromisoformat(said["timestamp"])
                if at >= since:
                    yield FailedTry(at=at, reason=str(said["reason"]))
