"""Two accounts at the same service: each is polled with its own key, at its own base URL."""

import json
import os

import boto3
import pytest

from tests.canary_secrets import API_KEYS
from tests.integration.conftest import Store
from tests.integration.providers import FLUX_PATH, Providers, poll, succeeded


def test_each_account_is_polled_with_its_own_key(
    store: Store, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"apikley": {"apiKey": API_KEYS["apikley"]}, "apikley-2": {"apiKey": API_KEYS["flux-kontext"]}}
    boto3.client("secretsmanager").put_secret_value(
        SecretId=os.environ["PROVIDER_KEYS_SECRET"], SecretString=json.dumps(keys)
    )
    monkeypatch.setenv("PROVIDER_BASE_URLS", "apikley-2=https://second.example")
    providers.answers = {FLUX_PATH: succeeded}
    tasks = ("apikley#t1", "apikley-2#t1")
    store.register(*tasks)

    poll(*tasks)

    assert {request.url.host: request.headers["authorization"] for request in providers.requests} == {
        "api.apikley.ru": f"Bearer {API_KEYS['apikley']}",
        "second.example": f"Bearer {API_KEYS['flux-kontext']}",
    }
    assert {task: (store.item(task) or {})["status"] for task in tasks} == dict.fromkeys(tasks, "SUCCEEDED")
