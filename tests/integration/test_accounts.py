"""Callbacks of additional accounts: an account exists if the provider keys secret has an entry for it."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from functions.receive_callback import app
from tests.canary_secrets import CALLBACK_TOKEN
from tests.conftest import FakeLambdaContext
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import a_secret, an_event


@pytest.fixture(autouse=True)
def keys(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stored = {"apikley-2": {"apiKey": "key-of-the-second-account"}, "apikley-3": {}}
    boto3.client("s3").create_bucket(Bucket="images-bucket")
    monkeypatch.setenv("IMAGES_BUCKET", "images-bucket")
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("CALLBACK_TOKEN_SECRET", a_secret("token", CALLBACK_TOKEN))
    monkeypatch.setenv("PROVIDER_KEYS_SECRET", a_secret("keys", json.dumps(stored)))
    app.dependencies.cache_clear()
    yield
    app.dependencies.cache_clear()


def deliver(provider_id: str) -> Any:
    event = an_event("callbacks/apikley/success.json")
    event["pathParameters"]["provider"] = provider_id
    return app.handler(event, FakeLambdaContext())["statusCode"]


def test_callbacks_of_two_accounts_are_two_tasks(store: Store) -> None:
    assert [deliver("apikley"), deliver("apikley-2")] == [200, 200]

    items = [store.item(f"{provider}#task12345") or {} for provider in ("apikley", "apikley-2")]
    assert [(item["provider"], item["status"]) for item in items] == [
        ("apikley", "SUCCEEDED"),
        ("apikley-2", "SUCCEEDED"),
    ]


@pytest.mark.parametrize("provider_id", ["apikley-3", "apikley-4", "nanobanana-2"])
def test_an_account_without_an_entry_is_unknown_and_its_callback_is_kept(store: Store, provider_id: str) -> None:
    assert deliver(provider_id) == 404

    assert store.item(f"{provider_id}#task12345") is None
    (kept,) = boto3.client("s3").list_objects_v2(Bucket="images-bucket")["Contents"]
    assert kept["Key"].startswith("rejected/")
