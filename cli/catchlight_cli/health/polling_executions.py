"""Finds executions of the state machine that poll for a task. Step Functions has no index by input: a cheap look."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from catchlight.models import Model

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.client import SFNClient

# Polling starts with the stream, a second or two after what causes it; much later if the stream was held up.
_STARTS_WITHIN = timedelta(minutes=3)
_CLOCK_DIFFERENCE = timedelta(seconds=10)
# Each is a call.
_MAX_LOOKED_AT = 25


class PollingExecution(Model):
    """An execution that polls for the task at this moment."""

    name: str
    started_at: datetime
    polls_next_at: datetime | None  # None: it does so now, or does not say


class Search(Model):
    """What was found."""

    executions: tuple[PollingExecution, ...]
    is_exhaustive: bool  # no running execution that could be one was left out


def find_executions(
    client: "SFNClient", state_machine: str, task: str, *, started_near: Iterable[datetime], max_pages: int = 5
) -> Search:
    """Running executions that have the task, among those that began near one of these times."""
    times = list(started_near)
    found: list[PollingExecution] = []
    looked_at, token, is_exhaustive = 0, None, True
    for _ in range(max_pages):
        more: Any = {"nextToken": token} if token else {}
        page = client.list_executions(stateMachineArn=state_machine, statusFilter="RUNNING", **more)
        for listed in page["executions"]:
            if not any(_is_near(listed["startDate"], time) for time in times):
                continue
            if looked_at == _MAX_LOOKED_AT:
                return Search(executions=tuple(found), is_exhaustive=False)
            looked_at += 1
            described = client.describe_execution(executionArn=listed["executionArn"])
            if task in json.loads(described.get("input", "{}")).get("tasks", []):
                found.append(_with_next_poll(client, listed["executionArn"], listed["name"], listed["startDate"]))
        token = page.get("nextToken")
        if not token:
            break
    else:
        is_exhaustive = False
    return Search(executions=tuple(found), is_exhaustive=is_exhaustive)


def _is_near(start: datetime, cause: datetime) -> bool:
    return cause - _CLOCK_DIFFERENCE <= start <= cause + _STARTS_WITHIN


def _with_next_poll(client: "SFNClient", arn: str, name: str, started_at: datetime) -> PollingExecution:
    history = client.get_execution_history(executionArn=arn, reverseOrder=True, maxResults=1)["events"]
    polls_next_at = None
    if history and history[0]["type"] == "WaitStateEntered":
        details: Any = history[0].get("stateEnteredEventDetails", {})
        wait = json.loads(details.get("input", "{}")).get("waitSeconds")
        if isinstance(wait, int):
            polls_next_at = history[0]["timestamp"] + timedelta(seconds=wait)
    return PollingExecution(name=name, started_at=started_at, polls_next_at=polls_next_at)
