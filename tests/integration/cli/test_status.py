"""`catchlight status`: counts, stuck tasks, queues, the callback miss rate, and the exit code."""

from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from catchlight.client.stack import Stack
from catchlight.models import TaskStatus, utc_now
from catchlight_cli.health.miss_rate import NAMESPACE
from tests.integration.cli.conftest import STACK_NAME, Deployed

HOUR = timedelta(hours=1)


def test_an_empty_stack_has_no_problems(deployed: Deployed) -> None:
    status = deployed.run("status")

    assert status["tasks"]["byStatus"] == dict.fromkeys(TaskStatus, 0)
    assert status["oldestPending"] is None
    assert status["problems"] == []
    assert status["callbackMissRate"]["all"] == {"byCallback": 0, "byPoll": 0, "missRate": None}
    assert "No task is stuck" in deployed.show("status")


def test_tasks_are_counted_by_status(deployed: Deployed) -> None:
    for number, status in enumerate(TaskStatus):
        for each in range(number + 1):
            deployed.put(f"flux-kontext#{status}-{each}", status)

    counted = deployed.run("status")["tasks"]

    assert counted["byStatus"] == {status: number for number, status in enumerate(TaskStatus, start=1)}
    assert counted["readUnits"] > 0


def test_all_pages_are_counted(deployed: Deployed) -> None:
    # A page is 1 MB at most.
    for number in range(30):
        deployed.put(f"flux-kontext#{number}", "ARCHIVED", padding="x" * 100_000)

    assert deployed.run("status")["tasks"]["byStatus"]["ARCHIVED"] == 30


def test_since_counts_only_tasks_that_changed_afterwards(deployed: Deployed) -> None:
    deployed.put("flux-kontext#old", "ARCHIVED", 3 * HOUR)
    deployed.put("flux-kontext#new", "ARCHIVED", HOUR)

    status = deployed.run("status", "--since", "2h")

    assert status["tasks"]["byStatus"]["ARCHIVED"] == 1
    assert status["since"] < (utc_now() - timedelta(minutes=119)).isoformat()


def test_the_oldest_pending_task_is_shown(deployed: Deployed) -> None:
    deployed.put("flux-kontext#young", "PENDING", HOUR)
    deployed.put("acedata#old", "PENDING", 2 * HOUR)

    status = deployed.run("status")

    assert status["oldestPending"]["task"] == "acedata#old"
    assert status["oldestPending"]["ageSeconds"] == pytest.approx(7200, abs=60)
    assert (status["stuckPending"], status["problems"]) == (0, [])
    assert "Oldest pending task: acedata/old, 2 h" in deployed.show("status")


def test_malformed_items_older_than_the_oldest_pending_task_are_named(deployed: Deployed) -> None:
    deployed.put("flux-kontext#malformed", "PENDING", 2 * HOUR, images="none")
    deployed.put("flux-kontext#oldest", "PENDING", HOUR)

    status = deployed.run("status", expect=1)

    assert (status["oldestPending"]["task"], status["unreadable"]) == (
        "flux-kontext#oldest",
        ["flux-kontext#malformed"],
    )
    assert "Skipped flux-kontext/malformed: its item in the table is malformed (images)." in deployed.stderr


@pytest.mark.parametrize(
    ("status", "more", "count"),
    [
        ("PENDING", {}, "stuckPending"),
        ("SUCCEEDED", {}, "stuckArchiving"),
        ("FAILED", {"reportedBy": "callback"}, "unconfirmedFailures"),
    ],
)
def test_malformed_items_among_stuck_tasks_are_counted_and_named(
    deployed: Deployed, status: str, more: dict[str, str], count: str
) -> None:
    deployed.put("flux-kontext#malformed", status, 8 * HOUR, images="none", **more)

    result = deployed.run("status", expect=1)

    assert result["unreadable"] == ["flux-kontext#malformed"]
    counts = {name: result[name] for name in ("stuckPending", "stuckArchiving", "unconfirmedFailures")}
    assert counts == dict.fromkeys(counts, 0) | {count: 1}
    assert any(problem.startswith("flux-kontext/malformed has a malformed item") for problem in result["problems"])


def test_items_with_an_unknown_status_are_named(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "ARCHIVED")
    deployed.store.put("flux-kontext#odd", status="done")  # without `updatedAt`, the item is in no index
    deployed.store.put("#submission#key", state="COMPLETED")
    deployed.store.put("flux-kontext#probe", status="PROBE")

    result = deployed.run("status", expect=1)

    assert result["unreadable"] == ["flux-kontext#odd"]
    assert any("flux-kontext/odd" in problem and "unknown status done" in problem for problem in result["problems"])
    # With --since, an index is read, which does not contain the item.
    assert deployed.run("status", "--since", "1d")["unreadable"] == []


def test_an_old_unconfirmed_failure_is_a_problem(deployed: Deployed) -> None:
    deployed.put("flux-kontext#unconfirmed", "FAILED", 2 * HOUR, reportedBy="callback")
    deployed.put("flux-kontext#polled", "FAILED", 2 * HOUR, reportedBy="poll")

    status = deployed.run("status", expect=1)

    assert status["unconfirmedFailures"] == 1
    (problem,) = status["problems"]
    assert "1 failure not confirmed" in problem
    assert deployed.run("reconcile")["confirmingRestarted"] == ["flux-kontext#unconfirmed"]


def test_stuck_tasks_are_problems(deployed: Deployed) -> None:
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("flux-kontext#stuck", "SUCCEEDED", 2 * HOUR)

    status = deployed.run("status", expect=1)

    assert (status["stuckPending"], status["stuckArchiving"]) == (1, 1)
    pending, archiving = status["problems"]
    assert "`catchlight reconcile`" in pending
    assert "`catchlight redrive --kind stuck-archiving`" in archiving
    assert "✗ 1 task pending for longer than polling takes" in deployed.show("status")


@pytest.mark.parametrize(
    ("queue", "is_reported"),
    [
        ("ArchiveQueue", False),
        ("ArchiveDeadLetters", True),
        ("DispatchDeadLetters", True),
        ("PollQueue", False),
        ("PollDeadLetters", True),
        ("PublishDeadLetters", True),
        ("ReconcileDeadLetters", True),
        ("WebhookQueue", False),
        ("WebhookDeadLetters", True),
    ],
)
def test_a_message_in_a_dead_letter_queue_is_a_problem(deployed: Deployed, queue: str, is_reported: bool) -> None:
    deployed.send(queue, {"task": "flux-kontext#1"})

    status = deployed.run("status", expect=int(is_reported))

    assert {each["queue"]: each["waiting"] for each in status["queues"] if each["waiting"]} == {queue: 1}
    assert len(status["problems"]) == int(is_reported)


def test_the_webhook_url_is_shown_without_its_query(deployed: Deployed) -> None:
    assert deployed.run("status")["webhookUrl"] == "https://hooks.example.com/catchlight"
    result = deployed.show("status")
    assert "Webhooks are sent to https://hooks.example.com/catchlight " in result
    assert "in-the-query" not in result


# ------------------------------------------------------------------------------------------------ callback miss rate


def count(name: str, value: int, age: timedelta = HOUR, service: str = STACK_NAME, **dimensions: str) -> None:
    """Writes a metric as the functions do: once with the dimension service alone, once with the provider."""
    cloudwatch = boto3.client("cloudwatch")
    for chosen in ({"service": service}, {"service": service, **dimensions}):
        data: Any = {
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": each} for key, each in chosen.items()],
            "Timestamp": utc_now() - age,
            "Value": value,
        }
        cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=[data])


def test_the_miss_rate_is_read_from_metrics(deployed: Deployed) -> None:
    count("ResolvedByCallback", 90, provider="flux-kontext")
    count("ResolvedByCallback", 6, age=3 * HOUR, provider="acedata")
    count("ResolvedByPoll", 4, provider="acedata")
    # Metrics of another stack, and of another day.
    count("ResolvedByPoll", 1000, service="other", provider="acedata")
    count("ResolvedByPoll", 1000, age=50 * HOUR, provider="acedata")

    misses = deployed.run("status")["callbackMissRate"]

    assert misses["source"] == "metrics"
    assert misses["all"] == {"byCallback": 96, "byPoll": 4, "missRate": 0.04}
    assert misses["byProvider"] == {
        "acedata": {"byCallback": 6, "byPoll": 4, "missRate": 0.4},
        "flux-kontext": {"byCallback": 90, "byPoll": 0, "missRate": 0.0},
    }
    assert "acedata 6 4 40.0%" in deployed.show("status")


def test_the_miss_rate_lists_further_accounts_as_providers(deployed: Deployed) -> None:
    count("ResolvedByCallback", 3, provider="apikley")
    count("ResolvedByPoll", 2, provider="apikley-2")
    count("ResolvedByPoll", 5, provider="another")  # not a provider of this version
    count("ResolvedByPoll", 1000, service="other", provider="apikley-3")

    misses = deployed.run("status")["callbackMissRate"]

    assert {name: resolved["byPoll"] for name, resolved in misses["byProvider"].items()} == {
        "apikley": 0,
        "apikley-2": 2,
    }


def test_the_miss_rate_covers_the_time_of_since(deployed: Deployed) -> None:
    count("ResolvedByPoll", 7, age=50 * HOUR, provider="acedata")

    assert deployed.run("status", "--since", "3d")["callbackMissRate"]["all"]["byPoll"] == 7


def test_a_missing_permission_for_metrics_is_named(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    client_of = Stack.client

    def refused(self: Stack, service: str) -> Any:
        client = client_of(self, service)
        if service == "cloudwatch":

            def fail(**_: Any) -> None:
                raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetMetricData")

            client.meta.events.register("before-call", fail)
        return client

    monkeypatch.setattr(Stack, "client", refused)

    assert deployed.run("status", expect=1) is None
    assert "do not allow GetMetricData" in deployed.stderr
