"""`catchlight resend-events` republishes events that EventBridge did not accept, and queues webhooks again."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from catchlight.recovery.stream_positions import StreamPositions
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches.execution import functions_run_by
from tests.integration.cli.conftest import Deployed
from tests.integration.cli.test_redrive import positions
from tests.integration.conftest import REPOSITORY
from tests.integration.fault_injection import failing

EVENT = json.loads((REPOSITORY / "events" / "task_events" / "failed.json").read_text())


class PublishEvents:
    """A fake of the function: records the tasks of the stream records that it receives, and returns a set response."""

    def __init__(self) -> None:
        self.received: list[list[str]] = []
        self.response: Any = {"batchItemFailures": []}
        self.error: str | None = None

    def __call__(self, name: str, payload: bytes) -> InvocationResult:
        assert name == "PublishEventsFunction"
        records = json.loads(payload)["Records"]
        assert all(isinstance(record["dynamodb"]["ApproximateCreationDateTime"], float) for record in records)
        self.received.append([record["dynamodb"]["Keys"]["task"]["S"] for record in records])
        return InvocationResult(json.dumps(self.response).encode(), self.error)


@pytest.fixture
def function() -> Iterator[PublishEvents]:
    function = PublishEvents()
    with functions_run_by(function):
        yield function


@pytest.fixture
def unpublished(deployed: Deployed) -> Deployed:
    """A stack with two tasks in a final status and a pending one; the events of all three were not published."""
    deployed.put("flux-kontext#failed", "FAILED")
    deployed.put("flux-kontext#pending", "PENDING")
    deployed.put("flux-kontext#archived", "ARCHIVED")
    deployed.send("PublishDeadLetters", positions(deployed, first=0, last=2))
    return deployed


def outcomes(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(dead_letter["outcome"], dead_letter["tasks"]) for dead_letter in result["deadLetters"]]


def test_unpublished_events_are_published(unpublished: Deployed, function: PublishEvents) -> None:
    result = unpublished.run("resend-events")

    assert outcomes(result) == [("published", ["flux-kontext#failed", "flux-kontext#archived"])]
    # The function receives all records, as from the event source, and skips those that need no event.
    assert function.received == [["flux-kontext#failed", "flux-kontext#pending", "flux-kontext#archived"]]
    assert unpublished.count("PublishDeadLetters") == 0
    assert outcomes(unpublished.run("resend-events")) == []
    assert "PublishDeadLetters and WebhookDeadLetters are empty" in unpublished.show("resend-events")


def test_a_dry_run_publishes_nothing(unpublished: Deployed, function: PublishEvents) -> None:
    result = unpublished.run("resend-events", "--dry-run")

    assert outcomes(result) == [("ready", ["flux-kontext#failed", "flux-kontext#archived"])]
    assert function.received == []
    assert unpublished.count("PublishDeadLetters") == 1


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({"batchItemFailures": [{"itemIdentifier": "1"}]}, None),
        ({"errorMessage": "Task timed out after 300.00 seconds"}, "Unhandled"),
        (None, None),
    ],
)
def test_events_that_cannot_be_published_are_kept(
    unpublished: Deployed, function: PublishEvents, response: Any, error: str | None
) -> None:
    function.response, function.error = response, error

    assert outcomes(unpublished.run("resend-events", expect=1)) == [
        ("failed", ["flux-kontext#failed", "flux-kontext#archived"])
    ]

    assert len(function.received) == 1
    assert unpublished.count("PublishDeadLetters") == 1
    assert "The log /aws/lambda/" in unpublished.show("resend-events")


def test_trimmed_and_unreadable_dead_letters_are_kept(
    unpublished: Deployed, function: PublishEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpublished.send("PublishDeadLetters", "by hand")
    read = StreamPositions._read

    def read_trimmed(self: StreamPositions, streams: Any) -> Iterator[dict[str, Any]]:
        if self.first == self.last:
            raise ClientError({"Error": {"Code": "TrimmedDataAccessException"}}, "GetShardIterator")
        return read(self, streams)

    monkeypatch.setattr(StreamPositions, "_read", read_trimmed)
    unpublished.send("PublishDeadLetters", positions(unpublished, first=0, last=0))

    result = unpublished.run("resend-events", expect=1)

    assert sorted(outcome for outcome, _ in outcomes(result)) == ["expired", "published", "unreadable"]
    assert len(function.received) == 1
    assert unpublished.count("PublishDeadLetters") == 2


def test_dead_letters_are_kept_if_the_function_cannot_be_invoked(unpublished: Deployed) -> None:
    def fail(name: str, payload: bytes) -> InvocationResult:
        raise KeyError(name)

    with functions_run_by(fail):
        assert unpublished.run("resend-events", expect=1) is None

    assert "Function not found" in unpublished.stderr
    assert unpublished.count("PublishDeadLetters") == 1


def test_the_command_stops_early_during_an_outage(unpublished: Deployed, function: PublishEvents) -> None:
    """In an outage, PublishEvents fails after half a minute: forty messages in sequence would need twenty minutes."""
    function.response = {"batchItemFailures": [{"itemIdentifier": "1"}]}
    for _ in range(39):
        unpublished.send("PublishDeadLetters", positions(unpublished, first=0, last=0))

    found = [outcome for outcome, _ in outcomes(unpublished.run("resend-events", expect=1))]

    assert len(found) == 40
    assert 8 <= found.count("failed") == len(function.received) <= 16  # two rounds of eight threads
    assert found.count("skipped") == 40 - found.count("failed")
    assert unpublished.count("PublishDeadLetters") == 40


def test_the_limit_bounds_the_number_of_dead_letters(unpublished: Deployed, function: PublishEvents) -> None:
    unpublished.send("PublishDeadLetters", positions(unpublished, first=2, last=2))

    assert len(unpublished.run("resend-events", "--limit", "1")["deadLetters"]) == 1

    assert unpublished.count("PublishDeadLetters") == 1


# ------------------------------------------------------------------------------------------------ webhooks


def test_undelivered_webhooks_are_queued_again_unchanged(deployed: Deployed) -> None:
    deployed.send("WebhookDeadLetters", EVENT)
    deployed.send("WebhookDeadLetters", "by hand")

    result = deployed.run("resend-events", expect=1)

    assert sorted(outcomes(result)) == [("queued", [EVENT["detail"]["task"]]), ("unreadable", [])]
    assert deployed.count("WebhookDeadLetters") == 1
    assert deployed.messages("WebhookQueue") == [EVENT]


def test_a_dry_run_queues_no_webhook(deployed: Deployed) -> None:
    deployed.send("WebhookDeadLetters", EVENT)

    assert outcomes(deployed.run("resend-events", "--dry-run")) == [("ready", [EVENT["detail"]["task"]])]

    assert deployed.count("WebhookDeadLetters") == 1
    assert deployed.messages("WebhookQueue") == []


def test_a_webhook_that_cannot_be_queued_is_kept(deployed: Deployed) -> None:
    deployed.send("WebhookDeadLetters", EVENT)
    with failing("SendMessage", ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "SendMessage")):
        deployed.run("resend-events", expect=1)

    assert deployed.count("WebhookDeadLetters") == 1
