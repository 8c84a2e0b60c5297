"""Finds the running executions that poll for a task.

Step Functions has no index by input: the search reads a limited number of executions.
"""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from catchlight.models import Model

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.client import SFNClient

# Polling of a new task starts after FirstPollAfterSeconds and up to 10 s, the batching window of StartPolling. Polling
# after other changes starts within seconds. The rest is for a delayed stream or queue.
_MAX_STARTING_TIME = timedelta(minutes=1)
_CLOCK_DIFFERENCE = timedelta(seconds=10)
_MAX_PAGES = 5
# DescribeExecution is called once for each.
_MAX_DESCRIBED = 25


class PollingExecution(Model):
    """A running execution that polls for the task."""

    name: str
    started_at: datetime
    polls_next_at: datetime | None  # None: it polls now, or its next poll is unknown


class ExecutionSearch(Model):
    """The result of a search for executions."""

    executions: tuple[PollingExecution, ...]
    is_exhaustive: bool  # whether every running execution that may poll for the task was examined


def find_executions(
    client: "SFNClient",
    state_machine: str,
    task: str,
    *,
    changed_at: Iterable[datetime],
    first_poll_after: timedelta,
) -> ExecutionSearch:
    """Searches the running executions that one of these changes may have started for those that poll for the task.

    `first_poll_after` is the longest delay between a change and its execution: the parameter FirstPollAfterSeconds.
    """
    times = list(changed_at)
    starts_within = first_poll_after + _MAX_STARTING_TIME
    found: list[PollingExecution] = []
    described_count, token = 0, None
    for _ in range(_MAX_PAGES):
        more: Any = {"nextToken": token} if token else {}
        page = client.list_executions(stateMachineArn=state_machine, statusFilter="RUNNING", **more)
        for listed in page["executions"]:
            if not any(time - _CLOCK_DIFFERENCE <= listed["startDate"] <= time + starts_within for time in times):
                continue
            if described_count == _MAX_DESCRIBED:
                return ExecutionSearch(executions=tuple(found), is_exhaustive=False)
            described_count += 1
            described = client.describe_execution(executionArn=listed["executionArn"])
            if task in json.loads(described.get("input", "{}")).get("tasks", []):
                found.append(_with_next_poll(client, listed["executionArn"], listed["name"], listed["startDate"]))
        token = page.get("nextToken")
        if not token:
            break
    return ExecutionSearch(executions=tuple(found), is_exhaustive=not token)


def _with_next_poll(client: "SFNClient", arn: str, name: str, started_at: datetime) -> PollingExecution:
    history = client.get_execution_history(executionArn=arn, reverseOrder=True, maxResults=1)["events"]
    polls_next_at = None
    if history and history[0]["type"] == "WaitStateEntered":
        details: Any = history[0].get("stateEnteredEventDetails", {})
        wait = json.loads(details.get("input", "{}")).get("waitSeconds")
        if isinstance(wait, int):
            polls_next_at = history[0]["timestamp"] + timedelta(seconds=wait)
    return PollingExecution(name=name, started_at=started_at, polls_next_at=polls_next_at)
