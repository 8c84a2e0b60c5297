"""Why a task's images are not archived yet. Its item does not say it before the last try; the archiver's log does."""

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
# CloudWatch searches as much as it likes and then hands out a page, which may be empty.
_MAX_PAGES = 5


class FailedTry(Model):
    """A try that left an image where it was."""

    at: datetime
    reason: str


def failed_tries(stack: Stack, task: str, *, since: datetime, remark: Callable[[str], None]) -> tuple[FailedTry, ...]:
    """Failed tries of the task since then, the oldest first; none, with a remark, where the log cannot be read."""
    try:
        return tuple(_read(_local_lines(stack) if stack.is_local else _lines(stack, task, since), task, since))
    except FileNotFoundError:  # on this machine: the function has written nothing yet
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
            # The phrase, not a JSON pattern: it finds the line whatever is beside it.
            filterPattern=f'"{task}"',
        )
    )
    for page in islice(pages, _MAX_PAGES):
        yield from (event["message"] for event in page["events"])


def _local_lines(stack: Stack) -> Iterable[str]:
    return (stack.logs / "ArchiveImagesFunction.log").read_text().splitlines() if stack.logs else ()


def _read(lines: Iterable[str], task: str, since: datetime) -> Iterator[FailedTry]:
    for line in lines:
        # Lambda writes lines of its own in between.
        with suppress(ValueError, KeyError, TypeError):
            said: dict[str, Any] = json.loads(line)
            if said["message"] == _MESSAGE and said["task"] == task:
                at = datetime.fromisoformat(said["timestamp"])
                if at >= since:
                    yield FailedTry(at=at, reason=str(said["reason"]))
