"""`catchlight resend-events`: republishes events that EventBridge did not accept, and deletes no message too early."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from catchlight.recovery.stream_positions import StreamPositions
from local.lambda_.runtime_api import Outcome
from local.moto.patches import functions_run_by
from tests.integration.cli.conftest import Deployed
from tests.integration.cli.test_redrive import positions
from tests.integration.conftest import REPOSITORY
from tests.integration.fault_injection import failing

EVENT = json.loads((REPOSITORY / "events" / "task_events" / "failed.json").read_text())


class PublishEvents:
    """A stand-in for the function: notes the tasks of the records it receives, and returns a given response."""

    def __init__(self) -> None:
        self.received: list[list[str]] = []
        self.answer: Any = {"batchItemFailures": []}
        self.error: str | None = None

    def __call__(self, name: str, payload: bytes) -> Outcome:
        assert name == "PublishEventsFunction"
        records = json.loads(payload)["Records"]
        assert all(isinstance(record["dynamodb"]["ApproximateCreationDateTime"], float) for record in records)
        self.received.append([record["dynamodb"]["Keys"]["task"]["S"] for record in records])
        return Outcome(json.dumps(self.answer).encode(), self.error)


@pytest.fixture
def function() -> Iterator[PublishEvents]:
    function = PublishEvents()
    with functions_run_by(function):
        yield function


@pytest.fixture
def ended(deployed: Deployed) -> Deployed:
    """A stack with two tasks in a final status and a pending one; the events of all three were not published."""
    deployed.put("flux-kontext#failed", "FAILED")
    deployed.put("flux-kontext#waits", "PENDING")
    deployed.put("flux-kontext#archived", "ARCHIVED")
    deployed.send("PublishDeadLetters", positions(deployed, first=0, last=2))
    return deployed


def outcomes(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(dead_letter["outcome"], dead_letter["tasks"]) for dead_letter in result["deadLetters"]]


def test_events_that_were_not_published_are_published_again(ended: Deployed, function: PublishEvents) -> None:
    result = ended.run("resend-events")

    assert outcomes(result) == [("published", ["flux-kontext#failed", "flux-kontext#archived"])]
    # The records are passed on as the event source would: the function skips those that need no event.
    assert function.received == [["flux-kontext#failed", "flux-kontext#waits", "flux-kontext#archived"]]
    assert ended.count("PublishDeadLetters") == 0
    assert outcomes(ended.run("resend-events")) == []
    assert "PublishDeadLetters and WebhookDeadLetters are empty" in ended.show("resend-events")


def test_a_dry_run_publishes_nothing(ended: Deployed, function: PublishEvents) -> None:
    result = ended.run("resend-events", "--dry-run")

    assert outcomes(result) == [("ready", ["flux-kontext#failed", "flux-kontext#archived"])]
    assert function.received == []
    assert ended.count("PublishDeadLetters") == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"batchItemFailures": [{"itemIdentifier": "1"}]}, None),
        ({"errorMessage": "Task timed out after 300.00 seconds"}, "Unhandled"),
        (None, None),
    ],
)
def test_what_is_refused_again_stays(ended: Deployed, function: PublishEvents, answer: Any, error: str | None) -> None:
    function.answer, function.error = answer, error

    assert outcomes(ended.run("resend-events", expect=1)) == [
        ("failed", ["flux-kontext#failed", "flux-kontext#archived"])
    ]

    assert len(function.received) == 1
    assert ended.count("PublishDeadLetters") == 1
    assert "The log /aws/lambda/" in ended.show("resend-events")


def test_messages_about_trimmed_records_and_unreadable_messages_stay(
    ended: Deployed, function: PublishEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended.send("PublishDeadLetters", "by hand")
    get_records = StreamPositions._read

    def forgetful(self: StreamPositions, streams: Any) -> Iterator[dict[str, Any]]:
        if self.first == self.last:
            raise ClientError({"Error": {"Code": "TrimmedDataAccessException"}}, "GetShardIterator")
        return get_records(self, streams)

    monkeypatch.setattr(StreamPositions, "_read", forgetful)
    ended.send("PublishDeadLetters", positions(ended, first=0, last=0))

    result = ended.run("resend-events", expect=1)

    assert sorted(outcome for outcome, _ in outcomes(result)) == ["expired", "published", "unreadable"]
    assert len(function.received) == 1
    assert ended.count("PublishDeadLetters") == 2


def test_a_function_that_cannot_be_called_leaves_everything_as_it_was(ended: Deployed) -> None:
    def fail(name: str, payload: bytes) -> Outcome:
        raise KeyError(name)

    with functions_run_by(fail):
        assert ended.run("resend-events", expect=1) is None

    assert "Function not found" in ended.said
    assert ended.count("PublishDeadLetters") == 1


def test_an_outage_ends_the_command_early(ended: Deployed, function: PublishEvents) -> None:
    """PublishEvents takes half a minute to fail: forty messages would take twenty minutes, one after the other."""
    function.answer = {"batchItemFailures": [{"itemIdentifier": "1"}]}
    for _ in range(39):
        ended.send("PublishDeadLetters", positions(ended, first=0, last=0))

    found = [outcome for outcome, _ in outcomes(ended.run("resend-events", expect=1))]

    assert len(found) == 40
    assert 8 <= found.count("failed") == len(function.received) <= 16  # two rounds of eight threads
    assert found.count("skipped") == 40 - found.count("failed")
    assert ended.count("PublishDeadLetters") == 40


def test_no_more_than_a_limit(ended: Deployed, function: PublishEvents) -> None:
    ended.send("PublishDeadLetters", positions(ended, first=2, last=2))

    assert len(ended.run("resend-events", "--limit", "1")["deadLetters"]) == 1

    assert ended.count("PublishDeadLetters") == 1


# ------------------------------------------------------------------------------------------------ webhooks


def test_webhooks_that_were_not_accepted_are_queued_again_as_they_were(deployed: Deployed) -> None:
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


def test_a_webhook_that_sqs_does_not_take_stays(deployed: Deployed) -> None:
    deployed.send("WebhookDeadLetters", EVENT)
    with failing("SendMessage", ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "SendMessage")):
        deployed.run("resend-events", expect=1)

    assert deployed.count("WebhookDeadLetters") == 1
