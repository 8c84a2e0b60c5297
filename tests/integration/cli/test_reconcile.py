"""`catchlight reconcile` restarts stuck tasks as the hourly run does, immediately."""

from datetime import timedelta

import pytest

from catchlight.dispatch import Dispatcher
from catchlight.errors import StoreUnavailableError
from catchlight.models import iso, utc_now
from tests.integration.cli.conftest import Deployed

HOUR = timedelta(hours=1)


def test_stuck_tasks_are_restarted(deployed: Deployed) -> None:
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("flux-kontext#waiting", "PENDING", 6 * HOUR, pollingSince=iso(utc_now()))
    deployed.put("acedata#stuck", "SUCCEEDED", 2 * HOUR)

    result = deployed.run("reconcile")

    assert result == {
        "dryRun": False,
        "pendingLongerThanSeconds": 7 * 3600.0,  # six hours of polling, and one hour of tolerance
        "pollingRestarted": ["flux-kontext#lost"],
        "confirmingRestarted": [],
        "archivingRepeated": ["acedata#stuck"],
        "failed": [],
        "unreadable": [],
        "hasMore": False,
    }
    assert deployed.executions() == [["flux-kontext#lost"]]
    assert [message["task"] for message in deployed.messages("ArchiveQueue")] == ["acedata#stuck"]
    repeated = deployed.run("reconcile")
    assert (repeated["pollingRestarted"], repeated["archivingRepeated"]) == ([], [])


def test_older_than_sets_the_age_of_stuck_tasks(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "PENDING", HOUR, pollingSince=iso(utc_now()))

    assert deployed.run("reconcile", "--older-than", "90m")["pollingRestarted"] == []
    assert deployed.run("reconcile", "--older-than", "30m")["pollingRestarted"] == ["flux-kontext#1"]


def test_a_dry_run_changes_nothing(deployed: Deployed) -> None:
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("acedata#stuck", "SUCCEEDED", 2 * HOUR)
    before = deployed.store.items()

    result = deployed.run("reconcile", "--dry-run")

    assert (result["pollingRestarted"], result["archivingRepeated"]) == (["flux-kontext#lost"], ["acedata#stuck"])
    assert deployed.store.items() == before
    assert (deployed.executions(), deployed.messages("ArchiveQueue")) == ([], [])
    assert "polling would be restarted" in deployed.show("reconcile", "--dry-run")


def test_the_limit_bounds_the_number_of_restarts(deployed: Deployed) -> None:
    for number in range(5):
        deployed.put(f"flux-kontext#{number}", "PENDING", 8 * HOUR)

    result = deployed.run("reconcile", "--limit", "3")

    assert (len(result["pollingRestarted"]), result["hasMore"]) == (3, True)
    assert "repeat the command" in deployed.show("reconcile", "--limit", "1", "--dry-run")


def test_a_stack_without_stuck_tasks_is_reported_as_such(deployed: Deployed) -> None:
    assert "No task in stack pictures in us-east-1 has been pending for over 7 h" in deployed.show("reconcile")


def test_failed_restarts_are_shown_with_their_reason(deployed: Deployed) -> None:
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("acedata#stuck", "SUCCEEDED", 2 * HOUR)
    deployed.step_functions.delete_state_machine(stateMachineArn=deployed.resources["PollTasksStateMachine"])

    result = deployed.run("reconcile", "--limit", "1", expect=1)

    (failed,) = result["failed"]
    assert failed["tasks"] == ["flux-kontext#lost"]
    assert "StartExecution failed: StateMachineDoesNotExist" in failed["reason"]
    # The failure did not prevent the restart of archiving. The limit was reached, so there may be more tasks.
    assert (result["pollingRestarted"], result["archivingRepeated"]) == ([], ["acedata#stuck"])
    assert result["hasMore"]
    printed = deployed.show("reconcile")
    assert "✗ Not restarted: flux-kontext/lost. StartExecution failed: StateMachineDoesNotExist" in printed
    assert "polled for again" not in printed


def test_the_reason_is_the_errors_message_if_it_has_no_cause(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.put("acedata#stuck", "SUCCEEDED", 2 * HOUR)

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the queue took 0 of 1 messages")

    monkeypatch.setattr(Dispatcher, "queue_archiving", fail)

    result = deployed.run("reconcile", expect=1)

    assert result["failed"] == [{"tasks": ["acedata#stuck"], "reason": "the queue took 0 of 1 messages"}]


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_malformed_items_are_skipped_and_listed(deployed: Deployed, dry_run: list[str]) -> None:
    deployed.put("flux-kontext#malformed", "PENDING", 8 * HOUR, images="none")
    deployed.put("by-hand", "SUCCEEDED", 8 * HOUR)

    result = deployed.run("reconcile", *dry_run, expect=1)

    assert result["unreadable"] == ["flux-kontext#malformed", "by-hand"]
    assert "2 malformed items skipped. Correct them in the table." in deployed.stderr
    assert "No other task in stack pictures" in deployed.show("reconcile")
