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
    """The function in its place: notes whose records it gets, and answers what it is told to."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.answer: Any = {"batchItemFailures": []}
        self.error: str | None = None

    def __call__(self, name: str, payload: bytes) -> Outcome:
        assert name == "PublishEventsFunction"
        records = json.loads(payload)["Records"]
        assert all(isinstance(record["dynamodb"]["ApproximateCreationDateTime"], float) for record in records)
        self.told.append([record["dynamodb"]["Keys"]["task"]["S"] for record in records])
        return Outcome(json.dumps(self.answer).encode(), self.error)


@pytest.fixture
def function() -> Iterator[PublishEvents]:
    function = PublishEvents()
    with functions_run_by(function):
        yield function


@pytest.fixture
def ended(deployed: Deployed) -> Deployed:
    """A stack with two tasks at their end and one on its way, none of which could be told of."""
    deployed.put("flux-kontext#failed", "FAILED")
    deployed.put("flux-kontext#waits", "PENDING")
    deployed.put("flux-kontext#archived", "ARCHIVED")
    deployed.send("PublishDeadLetters", positions(deployed, first=0, last=2))
    return deployed


def outcomes(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(dead_letter["outcome"], dead_letter["tasks"]) for dead_letter in result["deadLetters"]]


def test_what_could_not_be_told_is_told_again(ended: Deployed, function: PublishEvents) -> None:
    result = ended.run("resend-events")

    assert outcomes(result) == [("published", ["flux-kontext#failed", "flux-kontext#archived"])]
    # As the event source would hand them over, which leaves it to the function to skip what is no end.
    assert function.told == [["flux-kontext#failed", "flux-kontext#waits", "flux-kontext#archived"]]
    assert ended.count("PublishDeadLetters") == 0
    assert outcomes(ended.run("resend-events")) == []
    assert "PublishDeadLetters and WebhookDeadLetters are empty" in ended.show("resend-events")


def test_a_dry_run_tells_nobody(ended: Deployed, function: PublishEvents) -> None:
    result = ended.run("resend-events", "--dry-run")

    assert outcomes(result) == [("ready", ["flux-kontext#failed", "flux-kontext#archived"])]
    assert function.told == []
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

    assert len(function.told) == 1
    assert ended.count("PublishDeadLetters") == 1
    assert "The log /aws/lambda/" in ended.show("resend-events")


def test_what_the_stream_has_forgotten_and_what_nobody_can_read_stays(
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
    assert len(function.told) == 1
    assert ended.count("PublishDeadLetters") == 2


def test_a_function_that_cannot_be_called_leaves_everything_as_it_was(ended: Deployed) -> None:
    def nobody(name: str, payload: bytes) -> Outcome:
        raise KeyError(name)

    with functions_run_by(nobody):
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
    assert 8 <= found.count("failed") == len(function.told) <= 16  # two rounds of eight threads
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
