"""Builds events and secrets for handlers under test."""

import json
import sys
from typing import Any

import boto3
import pytest

from tests.canary_secrets import API_KEYS, CALLBACK_TOKEN
from tests.integration.conftest import REPOSITORY

TOKEN = CALLBACK_TOKEN
PROVIDER_KEYS = {provider: {"apiKey": key} for provider, key in API_KEYS.items()}


class StandardOutput:
    """Writes to the current standard output, which pytest replaces for each phase of a test."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def a_secret(name: str, value: str) -> str:
    """Creates a secret and returns its ARN."""
    return boto3.client("secretsmanager").create_secret(Name=name, SecretString=value)["ARN"]


def an_event(path: str) -> dict[str, Any]:
    """Reads an event from a file in `events/`."""
    event: dict[str, Any] = json.loads((REPOSITORY / "events" / path).read_text())
    return event


def a_callback(body: Any, *, provider: str = "flux-kontext", token: str = TOKEN, **changes: Any) -> dict[str, Any]:
    """Returns the event of a callback with this body: text unchanged, any other body as JSON."""
    event = an_event("callbacks/flux-kontext/success.json")
    event["pathParameters"] = {"provider": provider, "token": token}
    event["rawPath"] = f"/callbacks/{provider}/{token}"
    event["body"] = body if isinstance(body, str) else json.dumps(body)
    return event | changes


def metric_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Returns the lines in embedded metric format since the last call."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
