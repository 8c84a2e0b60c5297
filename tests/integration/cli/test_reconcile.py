"""`catchlight reconcile`: the hourly run, when somebody wants it now."""

from datetime import timedelta

from tests.integration.cli.conftest import Deployed

HOUR = timedelta(hours=1)


def test_what_nobody_works_on_is_started_again(deployed: Deployed) -> None:
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("flux-kontext#waiting", "PENDING", 6 * HOUR)
    deployed.put("acedata#stuck", "SUCCEEDED", 2 * HOUR)

    result = deployed.run("reconcile")

    assert result == {
        "dryRun": False,
        "pendingLongerThanSeconds": 7 * 3600.0,  # six hours of polling, and an hour of slack
        "pollingRestarted": ["flux-kontext#lost"],
        "archivingRepeated": ["acedata#stuck"],
        "more": False,
    }
    assert deployed.executions() == [["flux-kontext#lost"]]
    assert [message["task"] for message in deployed.messages("ArchiveQueue")] == ["acedata#stuck"]
    again = deployed.run("reconcile")
    assert (again["pollingRestarted"], again["archivingRepeated"]) == ([], [])


def test_sooner_than_the_hourly_run_would(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "PENDING", HOUR)

    assert deployed.run("reconcile", "--older-than", "90m")["pollingRestarted"] == []
    assert deployed.run("reconcile", "--older-than", "30m")["pollingRestarted"] == ["flux-kontext#1"]


def test_a_dry_run_does_nothing(deployed: Deployed) -> None:
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("acedata#stuck", "SUCCEEDED", 2 * HOUR)
    before = deployed.store.items()

    result = deployed.run("reconcile", "--dry-run")

    assert (result["pollingRestarted"], result["archivingRepeated"]) == (["flux-kontext#lost"], ["acedata#stuck"])
    assert deployed.store.items() == before
    assert (deployed.executions(), deployed.messages("ArchiveQueue")) == ([], [])
    assert "would be polled for again" in deployed.show("reconcile", "--dry-run")


def test_no_more_than_the_limit(deployed: Deployed) -> None:
    for number in range(5):
        deployed.put(f"flux-kontext#{number}", "PENDING", 8 * HOUR)

    result = deployed.run("reconcile", "--limit", "3")

    assert (len(result["pollingRestarted"]), result["more"]) == (3, True)
    assert "repeat the command" in deployed.show("reconcile", "--limit", "1", "--dry-run")


def test_people_are_told_that_all_is_well(deployed: Deployed) -> None:
    assert "No task in stack pictures in us-east-1 is pending for longer than 7 h" in deployed.show("reconcile")
