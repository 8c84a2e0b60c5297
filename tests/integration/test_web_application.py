"""The web application of docs/applications.md receives the stack's events."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from catchlight.models import TaskStatus, utc_now
from catchlight.webhooks.sender import read_webhook
from catchlight.webhooks.signature import signed_headers, signing_key
from tests.event_loop import run

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "applications.md").read_text()
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in (REPOSITORY / "events" / "task_events").glob("*.json")}
KEY = "key-of-the-connection"


def block(language: str, text: str) -> str:
    found: str
    (found,) = [each for each in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if text in each]
    return found


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs the page's program. Returns the names that it defines."""
    monkeypatch.setenv("TASK_EVENTS_KEY", KEY)
    # FastAPI looks up the names in annotations in the module of this name.
    names: dict[str, Any] = {"__name__": "application"}
    exec(compile(block("python", '"/task-events"'), "applications.md", "exec"), names)
    return names


def deliver(application: dict[str, Any], *events: Any, headers: dict[bytes, bytes]) -> list[int]:
    """Sends the events as EventBridge does, and returns the statuses of the responses."""

    async def send() -> list[int]:
        transport = httpx.ASGITransport(application["app"])
        async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
            responses = [await client.post("/task-events", json=event, headers=headers) for event in events]
            return [response.status_code for response in responses]

    return run(send())


def test_the_application_processes_every_event_once(
    application: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    events = [*EXAMPLES.values(), EXAMPLES["archived"]]

    assert deliver(application, *events, headers={b"x-api-key": KEY.encode()}) == [204] * 6

    received = application["received"]
    assert {event.status for event in received.values()} == {
        TaskStatus.ARCHIVED,
        TaskStatus.FAILED,
        TaskStatus.INCOMPLETE,
        TaskStatus.TIMED_OUT,
        TaskStatus.UNCONFIRMED,
    }
    assert capsys.readouterr().out.count("task12345 ARCHIVED result ARCHIVED") == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [({b"x-api-key": b"another"}, 401), ({b"x-api-key": "é".encode()}, 401), ({}, 422)],
)
def test_requests_without_the_key_are_rejected(
    application: dict[str, Any], headers: dict[bytes, bytes], status: int
) -> None:
    assert deliver(application, EXAMPLES["archived"], headers=headers) == [status]
    assert application["received"] == {}


def test_an_event_with_an_unknown_field_is_accepted(application: dict[str, Any]) -> None:
    event = EXAMPLES["archived"]
    later = event | {"detail": event["detail"] | {"unknownField": "x"}}

    assert deliver(application, later, headers={b"x-api-key": KEY.encode()}) == [204]


def test_the_template_that_connects_it_is_valid(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(block("yaml", "ApiDestination"))

    lint = [str(Path(sys.executable).with_name("cfn-lint")), str(template)]
    ran = subprocess.run(lint, capture_output=True, text=True, cwd=tmp_path)

    assert ran.stdout == ""
    assert ran.returncode == 0


# ------------------------------------------------------------------------------------------------ webhooks

SECRET = base64.b64encode(bytes(36)).decode()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs the page's receiver of webhooks. Returns the names that it defines."""
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(block("python", '"/webhooks"'), "applications.md", "exec"), names)
    return names


def post(receiver: dict[str, Any], body: bytes, headers: dict[str, str]) -> int:
    async def send() -> int:
        transport = httpx.ASGITransport(receiver["app"])
        async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
            return (await client.post("/webhooks", content=body, headers=headers)).status_code

    return run(send())


def signed(event: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Returns the body and the headers of the webhook of an event."""
    webhook = read_webhook(json.dumps(event))
    keys = [signing_key(SECRET)]
    return webhook.body, signed_headers(keys, message_id=webhook.event_id, sent_at=utc_now(), body=webhook.body)


def test_the_receiver_processes_every_webhook_once(
    receiver: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    events = [*EXAMPLES.values(), EXAMPLES["archived"]]

    assert [post(receiver, *signed(event)) for event in events] == [204] * 6

    assert len(receiver["received"]) == 5
    assert capsys.readouterr().out.count("task12345 ARCHIVED result ARCHIVED") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "no signature"},
        {"webhook-signature": "v1,é"},
        {"webhook-timestamp": "1"},
        {"webhook-id": "another"},
    ],
)
def test_a_webhook_without_a_valid_signature_is_rejected(receiver: dict[str, Any], changes: dict[str, str]) -> None:
    body, headers = signed(EXAMPLES["archived"])
    sent = {name: value.encode() for name, value in (headers | changes).items()}

    assert post(receiver, body, sent) == 401  # type: ignore[arg-type] # httpx accepts bytes, too
    assert post(receiver, b"\xff" + body, headers) == 401
    assert receiver["received"] == {}
