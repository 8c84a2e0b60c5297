"""The commands that docs/operating.md lists for an alarm find the task that caused the alarm, and repair it."""

import json
import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from catchlight.models import iso, utc_now
from tests.integration.cli.conftest import Deployed
from tests.integration.cli.test_redrive import image, record_with_a_fresh_url
from tests.integration.providers import FLUX_PATH, Providers

PAGE = (Path(__file__).parents[3] / "docs/operating.md").read_text()
TASK = "flux-kontext#task12345"
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

QUARANTINED = image() | {
    "quarantine": {"key": "quarantine/flux-kontext/task12345/result-0", "bytes": 1, "sha256": "0" * 64}
}

Cause = Callable[[Deployed], None]


def a_task(status: str, age: timedelta, **attributes: object) -> Cause:
    return lambda deployed: deployed.put(TASK, status, age, **attributes)


def a_dead_letter(queue: str, status: str) -> Cause:
    def cause(deployed: Deployed) -> None:
        deployed.put(TASK, status, MINUTE, images=[image()] if status == "SUCCEEDED" else [])
        deployed.send(queue, {"task": TASK, "change": "1"})

    return cause


def before(age: timedelta) -> str:
    return iso(utc_now() - age)


# The state in which each alarm goes off; the hourly run may have processed the task already.
CAUSES: dict[str, Cause] = {
    "DispatchDeadLettersAlarm": a_dead_letter("DispatchDeadLetters", "SUCCEEDED"),
    "PollDeadLettersAlarm": a_dead_letter("PollDeadLetters", "PENDING"),
    "PollingExecutionsAlarm": a_task("PENDING", 20 * MINUTE, pollingSince=before(18 * MINUTE)),
    "TasksTimedOutAlarm": a_task("TIMED_OUT", MINUTE),
    "TasksUnconfirmedAlarm": a_task("UNCONFIRMED", MINUTE, reportedBy="callback", images=[QUARANTINED]),
    "StuckPendingAlarm": a_task("PENDING", 50 * MINUTE, reconciledAt=before(50 * MINUTE)),
    "UnconfirmedFailuresAlarm": a_task("FAILED", 2 * HOUR, reportedBy="callback", reconciledAt=before(50 * MINUTE)),
    "StuckArchivingAlarm": a_task("SUCCEEDED", 2 * HOUR, reconciledAt=before(50 * MINUTE), images=[image()]),
    "ArchiveDeadLettersAlarm": a_dead_letter("ArchiveDeadLetters", "SUCCEEDED"),
    "ImagesExpiredAlarm": a_task("INCOMPLETE", MINUTE, images=[image("EXPIRED")]),
    "ImagesRejectedAlarm": a_task("INCOMPLETE", MINUTE, images=[image("REJECTED")]),
    "ImagesQuarantinedAlarm": a_task("INCOMPLETE", MINUTE, images=[image("REJECTED")]),
    "ReconcilingStoppedAlarm": a_task("PENDING", 8 * HOUR),
}


def is_empty(queue: str) -> Callable[[Deployed], bool]:
    return lambda deployed: deployed.count(queue) == 0


def is_polled(deployed: Deployed) -> bool:
    """Whether an execution polls for the task."""
    return any(TASK in tasks for tasks in deployed.executions())


def is_queued(deployed: Deployed) -> bool:
    """Whether the task is in ArchiveQueue."""
    return TASK in [message["task"] for message in deployed.messages("ArchiveQueue")]


def is_in(*statuses: str) -> Callable[[Deployed], bool]:
    """Whether the task has one of these statuses. In AWS, DispatchChanges then starts the next step."""
    return lambda deployed: (deployed.store.item(TASK) or {}).get("status") in statuses


def is_not_stuck(deployed: Deployed) -> bool:
    """Whether the metric StuckPending is 0 again, because an execution polls for the task."""
    item = deployed.store.item(TASK) or {}
    return is_polled(deployed) and item["updatedAt"] == item["pollingSince"] > before(MINUTE)


# The state after the command has run: the metric of the alarm is 0, or becomes 0 without an operator.
REPAIRED: dict[str, Callable[[Deployed], bool]] = {
    "DispatchDeadLettersAlarm": is_empty("DispatchDeadLetters"),
    "PollDeadLettersAlarm": is_empty("PollDeadLetters"),
    "PollingExecutionsAlarm": is_polled,
    "TasksTimedOutAlarm": is_in("PENDING"),
    "TasksUnconfirmedAlarm": lambda deployed: is_polled(deployed) or is_in("SUCCEEDED")(deployed),
    "StuckPendingAlarm": is_not_stuck,
    "UnconfirmedFailuresAlarm": is_polled,
    "StuckArchivingAlarm": is_queued,
    "ArchiveDeadLettersAlarm": lambda deployed: is_empty("ArchiveDeadLetters")(deployed) and is_queued(deployed),
    "ImagesExpiredAlarm": is_in("SUCCEEDED"),
    "ImagesRejectedAlarm": is_in("SUCCEEDED"),
    "ImagesQuarantinedAlarm": is_in("SUCCEEDED"),
    "ReconcilingStoppedAlarm": is_not_stuck,
}
# Their commands concern callbacks, keys, events and webhooks, and are tested elsewhere.
TESTED_ELSEWHERE = {
    "RejectedDeliveriesAlarm",
    "CallbackMissesAlarm",
    "ProviderRefusedAlarm",
    "PublishDeadLettersAlarm",
    "WebhookDeadLettersAlarm",
}
# Its command finds tasks only after an hour, as the row in the documentation says.
EFFECTIVE_AFTER_AN_HOUR = {"DeadLettersLostAlarm"}


def commands_of(alarm: str) -> list[list[str]]:
    """Returns the arguments of each command in the last cell of an alarm's row."""
    (row,) = re.findall(rf"^\| `{alarm}` \|.*$", PAGE, re.MULTILINE)
    return [
        shlex.split(text.replace("TASK", TASK))[1:] for text in re.findall(r"`(catchlight [^`]+)`", row.split("|")[4])
    ]


def test_every_alarm_with_commands_has_a_test() -> None:
    alarms = re.findall(r"^\| `(\w+Alarm)` \|", PAGE, re.MULTILINE)

    assert {
        alarm for alarm in alarms if commands_of(alarm)
    } == CAUSES.keys() | TESTED_ELSEWHERE | EFFECTIVE_AFTER_AN_HOUR
    assert CAUSES.keys() == REPAIRED.keys()


@pytest.mark.parametrize(
    ("alarm", "command"),
    [pytest.param(alarm, command, id=f"{alarm}-{command[0]}") for alarm in CAUSES for command in commands_of(alarm)],
)
def test_the_command_of_an_alarm_repairs_its_task(
    deployed: Deployed, providers: Providers, alarm: str, command: list[str]
) -> None:
    providers.answers[FLUX_PATH] = record_with_a_fresh_url
    CAUSES[alarm](deployed)

    assert not REPAIRED[alarm](deployed)
    assert TASK in json.dumps(deployed.run(*command))
    assert REPAIRED[alarm](deployed)
