"""Handlers in a test: their events, and dependencies that are made anew."""

import json
from typing import Any

import boto3
import pytest

from tests.canary_secrets import API_KEYS, CALLBACK_TOKEN
from tests.integration.conftest import REPOSITORY

TOKEN = CALLBACK_TOKEN
PROVIDER_KEYS = {provider: {"apiKey": key} for provider, key in API_KEYS.items()}


def a_secret(name: str, value: str) -> str:
    """A new secret's ARN."""
    return boto3.client("secretsmanager").create_secret(Name=name, SecretString=value)["ARN"]


def an_event(path: str) -> dict[str, Any]:
    """A file of `events/`."""
    event: dict[str, Any] = json.loads((REPOSITORY / "events" / path).read_text())
    return event


def a_callback(body: Any, *, provider: str = "flux-kontext", token: str = TOKEN, **changes: Any) -> dict[str, Any]:
    """The event of a callback with this body: text as it is, anything else as JSON."""
    event = an_event("callbacks/flux-kontext/success.json")
    event["pathParameters"] = {"provider": provider, "token": token}
    event["rawPath"] = f"/callbacks/{provider}/{token}"
    event["body"] = body if isinstance(body, str) else json.dumps(body)
    return event | changes


def metric_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What has been written in the embedded metric format since the last look."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
