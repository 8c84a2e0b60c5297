"""Reads failed archiving attempts from the log of ArchiveImages: a task's item contains only the last one's reason."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from catchlight.client.aws_errors import describe_error
from catchlight.client.stack import Stack
from catchlight.models import Model

_MESSAGE = "not archived yet"
# A page of FilterLogEvents may be empty although later pages have events, so several pages are read.
_MAX_PAGES = 5


class FailedAttempt(Model):
    """A failed attempt to archive an image, and the reason."""

    at: datetime
    reason: str


def failed_attempts(
    stack: Stack, task: str, *, since: datetime, warn: Callable[[str], None]
) -> tuple[FailedAttempt, ...]:
    """Returns a task's failed attempts after `since`, the oldest first. Calls `warn` if the log cannot be read."""
    try:
        return tuple(_read(_local_lines(stack) if stack.is_local else _lines(stack, task, since), task, since))
    except FileNotFoundError:  # local stack: the function has not written a log yet
        return ()
    except (ClientError, BotoCoreError, OSError) as exc:
        warn(f"Failed attempts are not shown: the log of ArchiveImages cannot be read. {describe_error(exc)}")
        return ()


def _lines(stack: Stack, task: str, since: datetime) -> Iterator[str]:
    pages = (
        stack.client("logs")
        .get_paginator("filter_log_events")
        .paginate(
            logGroupName=stack.resource("ArchiveImagesLogGroup"),
            startTime=int(since.timestamp() * 1000),
            # A phrase, not a JSON pattern: it matches lines in any format that contain the task's key.
            filterPattern=f'"{task}"',
        )
    )
    for page in islice(pages, _MAX_PAGES):
        yield from (event["message"] for event in page["events"])


def _local_lines(stack: Stack) -> Iterable[str]:
    return (stack.logs / "ArchiveImagesFunction.log").read_text().splitlines() if stack.logs else ()


def _read(lines: Iterable[str], task: str, since: datetime) -> Iterator[FailedAttempt]:
    for line in lines:
        # Skips lines that are not log events of the function, such as Lambda's own.
        with suppress(ValueError, KeyError, TypeError):
            event: dict[str, Any] = json.loads(line)
            if event["message"] == _MESSAGE and event["task"] == task:
                at = datetime.fromisoformat(event["timestamp"])
                if at >= since:
                    yield FailedAttempt(at=at, reason=str(event["reason"]))
