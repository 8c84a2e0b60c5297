"""SendWebhooks deletes the messages of accepted webhooks, and retries the others by the schedule."""

import base64
import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import boto3
import httpx
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from catchlight.models import utc_now
from catchlight.webhooks.sender import WebhookSender
from functions.send_webhooks import app
from local.template.expand import Template
from tests.benchmarks.bill import memory, prices
from tests.canary_secrets import URL_QUERY, canary
from tests.fake_http import FakeHttp
from tests.integration.conftest import REPOSITORY
from tests.integration.fault_injection import failing
from tests.integration.functions import a_secret, metric_lines

SECRET = canary("webhook secret", base64.b64encode(b"canaryWebhookSecretOfAStack").decode())
NEXT_SECRET = canary("webhook secret", base64.b64encode(b"canaryNextWebhookSecretOfAStack").decode())
URL = f"https://hooks.example.com/catchlight?{URL_QUERY}"
EVENT = (REPOSITORY / "events" / "task_events" / "failed.json").read_text()
DETAIL = json.loads(EVENT)["detail"]


@dataclass
class Account:
    """The two queues, the secret, and a receiver whose responses the tests set."""

    sqs: Any
    queue_url: str
    dead_letters_url: str
    secret: str
    respond: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(204)
    requests: list[httpx.Request] = field(default_factory=list)

    def receive(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.respond(request)

    def answer(self, status: int, **headers: str) -> None:
        self.respond = lambda _: httpx.Response(status, headers=headers)

    def queued(self, *bodies: str, age: timedelta = timedelta(0)) -> list[dict[str, Any]]:
        """Queues messages. Returns them as the event source delivers them, with this age."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=body)
        received = self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        )["Messages"]
        sent_at = str(int((utc_now() - age).timestamp() * 1000))
        return [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"] | {"SentTimestamp": sent_at},
            }
            for message in received
        ]

    def dead_letters(self) -> list[str]:
        messages = self.sqs.receive_message(QueueUrl=self.dead_letters_url, MaxNumberOfMessages=10).get("Messages", [])
        return [message["Body"] for message in messages]


@pytest.fixture
def account(aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    sqs = boto3.client("sqs")
    queue_url, dead_letters_url = (
        sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("webhooks", "dead-letters")
    )
    account = Account(sqs, queue_url, dead_letters_url, a_secret("webhooks", SECRET))
    monkeypatch.setenv("WEBHOOK_URL", URL)
    monkeypatch.setenv("WEBHOOK_SECRET", account.secret)
    monkeypatch.setenv("WEBHOOK_QUEUE_URL", queue_url)
    monkeypatch.setenv("WEBHOOK_DEAD_LETTERS_URL", dead_letters_url)
    monkeypatch.setattr(app, "WebhookSender", lambda url, keys: WebhookSender(url, keys, FakeHttp(account.receive)))
    app.dependencies.cache_clear()
    yield account
    app.dependencies.cache_clear()


@pytest.fixture
def visibility(monkeypatch: pytest.MonkeyPatch, account: Account) -> list[int]:
    """The visibility timeouts that the function sets."""
    client = app.dependencies().sqs
    change, found = client.change_message_visibility, []

    def note(**request: Any) -> Any:
        found.append(request["VisibilityTimeout"])
        return change(**request)

    monkeypatch.setattr(client, "change_message_visibility", note)
    return found


def send(context: LambdaContext, messages: list[dict[str, Any]]) -> list[str]:
    """Handles messages. Returns the ids of those that return to the queue."""
    answer = app.handler({"Records": messages}, context)
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def counts(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    (line,) = [line for line in metric_lines(capsys) if "WebhooksDelivered" in line]
    return {name: line[name][0] for name in ("WebhooksDelivered", "WebhooksFailed")}


# ------------------------------------------------------------------------------------------------ accepted


def test_an_event_is_sent_as_a_signed_webhook_and_its_message_deleted(
    account: Account, context: LambdaContext, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert send(context, account.queued(EVENT)) == []

    (request,) = account.requests
    assert str(request.url) == URL
    assert Receiver(SECRET).verify(request.content, dict(request.headers)) == DETAIL
    assert request.headers["webhook-id"] == DETAIL["eventId"]
    assert counts(capsys) == {"WebhooksDelivered": 1, "WebhooksFailed": 0}
    (line,) = [vars(record) for record in caplog.records if record.message == "webhook delivered"]
    assert (line["task"], line["event_id"], line["status"]) == (DETAIL["task"], DETAIL["eventId"], 204)
    assert account.dead_letters() == []


def test_the_webhooks_of_a_batch_are_sent_concurrently_and_only_failed_ones_again(
    account: Account, context: LambdaContext, capsys: pytest.CaptureFixture[str], visibility: list[int]
) -> None:
    events = [EVENT.replace(DETAIL["eventId"], f"event-{number}") for number in range(10)]
    all_sent = threading.Barrier(len(events), timeout=60)

    def respond(request: httpx.Request) -> httpx.Response:
        all_sent.wait()  # raises BrokenBarrierError unless all webhooks are sent at the same time
        return httpx.Response(500 if request.headers["webhook-id"] == "event-7" else 200)

    account.respond = respond
    messages = account.queued(*events)

    failed = send(context, messages)

    assert len(account.requests) == 10
    assert failed == [message["messageId"] for message in messages if "event-7" in message["body"]]
    assert visibility == [5]
    assert counts(capsys) == {"WebhooksDelivered": 9, "WebhooksFailed": 1}


@pytest.mark.parametrize(("at_once", "name"), [(10, "at load"), (1, "one task at a time")])
def test_the_cost_of_a_million_webhooks_is_as_documented(
    account: Account, context: LambdaContext, template: Template, at_once: int, name: str
) -> None:
    """At load, batches are full. Each message is sent, received and deleted. The receiver responds after 300 ms."""
    messages = account.queued(*(EVENT.replace(DETAIL["eventId"], f"{number:036}") for number in range(at_once)))
    log, handler = io.StringIO(), app.logger.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    with ExitStack() as captured:
        captured.enter_context(redirect_stdout(log))
        # Powertools' handler writes to the standard output that existed when the handler was created.
        captured.callback(handler.setStream, handler.setStream(log))
        send(context, messages)
    price, takes, assumed = (prices()[table] for table in ("per_unit", "milliseconds", "assumed"))
    lines = len(log.getvalue().splitlines()) + 3
    logged = len(log.getvalue()) + assumed["platform_log_bytes"] + lines * assumed["log_event_overhead_bytes"]
    gb_seconds = (takes["handler"] + takes["provider"]) / 1000 * memory("SendWebhooks", template)
    batch = (
        price["Lambda request"]
        + gb_seconds * price["Lambda GB-second"]
        + logged / 1e9 * price["CloudWatch Logs GB"]
        + 2 * price["SQS request"]
    )
    cost = 1e6 * (batch / at_once + price["SQS request"])

    for page in ("docs/applications.md", "README.md"):
        (documented,) = re.findall(rf"\$([\d.]+) {name}", (REPOSITORY / page).read_text())
        assert float(documented) == pytest.approx(cost, abs=0.02)


# ------------------------------------------------------------------------------------------------ not accepted


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(0, 5), (6, 299), (400, 1705), (2200, 7105), (9400, 17_905), (27_400, 35_905), (63_400, 35_905)],
)
def test_a_webhook_that_is_not_accepted_is_sent_again_by_the_schedule(
    account: Account, context: LambdaContext, visibility: list[int], age: int, seconds: int
) -> None:
    account.answer(503)
    messages = account.queued(EVENT, age=timedelta(seconds=age))

    assert send(context, messages) == [messages[0]["messageId"]]

    assert [abs(found - seconds) <= 2 for found in visibility] == [True]
    assert account.dead_letters() == []


def test_the_second_try_has_the_same_id_and_body_and_a_new_time(
    account: Account, context: LambdaContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.answer(500)
    messages = account.queued(EVENT)
    send(context, messages)
    later = utc_now() + timedelta(minutes=1)
    monkeypatch.setattr(app, "utc_now", lambda: later)
    send(context, messages)

    first, second = account.requests
    assert (first.headers["webhook-id"], first.content) == (second.headers["webhook-id"], second.content)
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_retry_after_delays_the_next_try(account: Account, context: LambdaContext, visibility: list[int]) -> None:
    account.answer(429, **{"retry-after": "600"})

    send(context, account.queued(EVENT))

    assert visibility == [600]


def test_each_failed_try_is_logged_with_its_reason(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture
) -> None:
    account.answer(404)

    send(context, account.queued(EVENT))

    (line,) = [vars(record) for record in caplog.records if record.message == "webhook not delivered"]
    assert (line["levelname"], line["reason"], line["task"]) == ("WARNING", "the receiver answers 404", DETAIL["task"])


def test_after_the_last_retry_the_message_is_a_dead_letter(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture
) -> None:
    account.answer(500)

    assert send(context, account.queued(EVENT, age=timedelta(days=2))) == []

    assert account.dead_letters() == [EVENT]
    assert "moved to the dead letters" in caplog.text


def test_a_webhook_that_is_answered_with_410_is_not_retried(account: Account, context: LambdaContext) -> None:
    account.answer(410)

    assert send(context, account.queued(EVENT)) == []

    assert len(account.requests) == 1
    assert account.dead_letters() == [EVENT]


def test_a_message_that_is_not_an_event_is_a_dead_letter_and_counted(
    account: Account, context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send(context, account.queued("no JSON", EVENT)) == []

    assert account.dead_letters() == ["no JSON"]
    assert len(account.requests) == 1
    lines = metric_lines(capsys)
    assert [line["reason"] for line in lines if "ProcessingErrors" in line] == ["InvalidMessageError"]


# ------------------------------------------------------------------------------------------------ faults of AWS

DENIED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "any")


def test_without_the_webhook_secret_nothing_is_sent_and_the_messages_are_retried(
    account: Account, context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = account.queued(EVENT)
    with failing("GetSecretValue", DENIED):
        assert send(context, messages) == [messages[0]["messageId"]]

    assert account.requests == []
    reasons = [line["reason"] for line in metric_lines(capsys) if "ProcessingErrors" in line]
    assert reasons == ["StoreUnavailableError"]


@pytest.mark.parametrize(
    ("operation", "age"), [("ChangeMessageVisibility", timedelta(0)), ("SendMessage", timedelta(days=2))]
)
def test_a_message_is_not_lost_if_sqs_fails(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture, operation: str, age: timedelta
) -> None:
    account.answer(500)
    messages = account.queued(EVENT, age=age)
    with failing(operation, DENIED):
        assert send(context, messages) == [messages[0]["messageId"]]

    assert "the queue's own visibility timeout applies" in caplog.text


# ------------------------------------------------------------------------------------------------ rotation


def test_after_a_rotation_receivers_with_either_secret_accept_webhooks(
    account: Account, context: LambdaContext
) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=account.secret, SecretString=f" whsec_{NEXT_SECRET}\n")

    send(context, account.queued(EVENT))

    (request,) = account.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, NEXT_SECRET):
        assert Receiver(secret).verify(request.content, dict(request.headers)) == DETAIL


def test_an_invalid_previous_secret_is_not_used_for_signing(account: Account, context: LambdaContext) -> None:
    secrets = boto3.client("secretsmanager")
    for value in ("a mistake", NEXT_SECRET):
        secrets.put_secret_value(SecretId=account.secret, SecretString=value)

    assert send(context, account.queued(EVENT)) == []

    (request,) = account.requests
    Receiver(NEXT_SECRET).verify(request.content, dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Receiver(SECRET).verify(request.content, dict(request.headers))


def test_an_invalid_webhook_secret_is_reported(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture
) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=account.secret, SecretString="a mistake")
    messages = account.queued(EVENT)

    assert send(context, messages) == [messages[0]["messageId"]]

    assert account.requests == []
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    assert "not base64" in str(record.exc_info[1])
