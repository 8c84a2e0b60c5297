"""Counts the events that an execution of a state machine writes to its history, from its definition."""

from typing import Any

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html: an execution fails with its 25,001st event.
MAX_EVENTS = 25_000
# ExecutionStarted, and ExecutionSucceeded, ExecutionFailed or ExecutionTimedOut.
EVENTS_OF_AN_EXECUTION = 2
# StateEntered, StateExited.
EVENTS_OF_A_STATE = 2
# TaskScheduled, TaskStarted, and TaskSucceeded, TaskFailed or TaskTimedOut: of each attempt.
EVENTS_OF_AN_ATTEMPT = 3


def most_attempts(task: dict[str, Any]) -> int:
    """Returns the maximum number of attempts of a Task state: each of its retriers counts its own attempts."""
    return 1 + int(sum(retrier["MaxAttempts"] for retrier in task["Retry"]))


def events_of_task(attempts: int) -> int:
    """Returns the events of a Task state with this number of attempts."""
    return EVENTS_OF_A_STATE + EVENTS_OF_AN_ATTEMPT * attempts
