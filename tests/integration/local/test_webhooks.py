"""The local stack sends webhooks to a receiver on this machine, retries them, and ends the retries."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from standardwebhooks.webhooks import Webhook

from catchlight.models import TaskStatus, iso, utc_now
from local import REPOSITORY
from local.artefact import Artefact
from local.stack import LocalStack
from tests.waiting import eventually
from tests.webhook_receiver import WebhookReceiver, webhook_receiver

SCHEMA = json.loads((REPOSITORY / "docs" / "task-event.schema.json").read_text())
PAGE = (REPOSITORY / "docs" / "applications.md").read_text()
(VERIFICATION,) = [
    block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "verify(body, headers)" in block
]
# The retries of a webhook are spread over 27.6 hours, which take 20 s.
TIME_SCALE = 0.0002
TIMEOUT_SECONDS = 120


@dataclass
class Running:
    """The stack and its receiver of webhooks."""

    stack: LocalStack
    receiver: WebhookReceiver

    def put_timed_out(self, task_id: str) -> None:
        """Writes a task that has timed out to the table."""
        texts = {"task": f"acedata#{task_id}", "provider": "acedata", "taskId": task_id, "updatedAt": iso(utc_now())}
        item = {name: {"S": value} for name, value in texts.items()}
        item |= {"status": {"S": TaskStatus.TIMED_OUT}, "rank": {"N": "10"}}
        self.stack.boto3_client("dynamodb").put_item(TableName=self.stack.info["table"], Item=item)

    def dead_letters(self) -> list[dict[str, Any]]:
        """Receives the messages of WebhookDeadLetters."""
        queue = self.stack.resources["WebhookDeadLetters"].ref
        response = self.stack.boto3_client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in response.get("Messages", [])]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None) -> Iterator[Running]:
    with (
        webhook_receiver() as receiver,
        LocalStack(
            state_dir=tmp_path_factory.mktemp("state"),
            time_scale=TIME_SCALE,
            simulator=False,
            webhook_url=receiver.url,
            artefact=artefact,
        ) as stack,
    ):
        yield Running(stack, receiver)


def test_the_webhook_of_a_task_is_verified_with_the_stacks_secret(running: Running) -> None:
    running.receiver.answers = ()
    running.put_timed_out("delivered")

    (webhook, *_) = running.receiver.wait_for("delivered", 1)

    names = {"secret": running.stack.info["webhook_secret"], "body": webhook.body, "headers": webhook.headers}
    exec(VERIFICATION, names)
    event: dict[str, Any] = names["event"]
    jsonschema.validate(event, SCHEMA)
    assert (event["taskId"], event["status"]) == ("delivered", "TIMED_OUT")
    assert webhook.headers["webhook-id"] == event["eventId"]


def test_a_webhook_that_the_receiver_refused_is_sent_again(running: Running) -> None:
    running.receiver.answers = (503, 500)
    running.put_timed_out("refused")

    webhooks = running.receiver.wait_for("refused", 3)

    assert [webhook.status for webhook in webhooks] == [503, 500, 204]
    assert len({(webhook.headers["webhook-id"], webhook.body) for webhook in webhooks}) == 1
    for webhook in webhooks:
        Webhook(running.stack.info["webhook_secret"]).verify(webhook.body, webhook.headers)
        sent_at = datetime.fromtimestamp(int(webhook.headers["webhook-timestamp"]), UTC)
        assert abs((utc_now() - sent_at).total_seconds()) < TIMEOUT_SECONDS


def test_a_webhook_without_a_response_becomes_a_dead_letter_and_does_not_delay_others(running: Running) -> None:
    """Each attempt ends after 15 s: two attempts take longer than the 20 s of the whole retry schedule."""
    running.receiver.answers = (None,) * 20
    running.put_timed_out("unanswered")

    (event,) = eventually(running.dead_letters, TIMEOUT_SECONDS)

    assert event["detail"]["taskId"] == "unanswered"
    assert 1 <= len(running.receiver.wait_for("unanswered", 1)) <= 8
    running.receiver.answers = ()
    running.put_timed_out("after")
    running.receiver.wait_for("after", 1)
