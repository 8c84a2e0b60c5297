"""Defines the smoke test's steps of the function SendWebhooks."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from local import REPOSITORY
from scripts.smoke.account import Account, AwsResponse, Call
from scripts.smoke.steps import NOTHING_FAILED, OK, WEBHOOK_SECRET, WEBHOOK_URL, Step, error
from scripts.smoke.task_steps import RETRIED, messages

EVENT = (REPOSITORY / "events" / "task_events" / "archived.json").read_text()
SEND = f"POST {WEBHOOK_URL}"


def _is_signed(_: Any, calls: Sequence[Call], __: Account) -> Iterator[str]:
    """Yields a problem if the reference implementation does not accept the webhook, or its body is not the event."""
    (sent,) = [call.parameters for call in calls if call.operation == SEND]
    try:
        body = Webhook(WEBHOOK_SECRET).verify(sent["Body"], sent["Headers"])
    except WebhookVerificationError as exc:
        yield f"the webhook's signature is not accepted: {exc}"
        return
    if body != json.loads(EVENT)["detail"]:
        yield "the webhook's body is not the event's detail"


SEND_WEBHOOKS = [
    Step(
        "a receiver that accepts the webhook",
        messages(EVENT),
        NOTHING_FAILED,
        {SEND: [AwsResponse(204, b"")]},
        _is_signed,
    ),
    Step(
        "a receiver that is down",
        messages(EVENT),
        NOTHING_FAILED,  # the message is older than the schedule
        {SEND: [AwsResponse(503, b"")], "SendMessage": [OK]},
    ),
    Step(
        "a receiver that is busy",
        messages(EVENT, SentTimestamp="4102444800000"),
        RETRIED,
        {SEND: [AwsResponse(429, b"", {"Retry-After": "60"})], "ChangeMessageVisibility": [OK]},
    ),
    Step(
        "a dead letter that SQS does not accept",
        messages("no JSON"),
        RETRIED,
        {"SendMessage": [error("AccessDeniedException")]},
    ),
]
