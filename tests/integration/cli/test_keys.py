"""`catchlight keys` validates and tries a key before it stores it, and does not change the other keys."""

import getpass
import io
import json
import sys
from typing import Any

import boto3
import pytest

from catchlight_cli.health.provider_keys import key_problem
from tests.integration.cli.conftest import Deployed
from tests.integration.functions import PROVIDER_KEYS
from tests.integration.providers import ACE_PATH, Providers, json_response, unreachable

CREDITS, NANO_CREDITS = "/api/v1/chat/credit", "/api/v1/common/credit"
NEW_KEY = "newKeyOfTheService0123"


@pytest.fixture(autouse=True)
def valid_keys(providers: Providers) -> Providers:
    """Every provider accepts every key."""
    providers.answers |= {
        CREDITS: json_response({"code": 200, "msg": "success", "data": 35.95}),
        NANO_CREDITS: json_response({"code": 200, "msg": "success", "data": 1200}),
        ACE_PATH: json_response({}),
    }
    return providers


@pytest.fixture(autouse=True)
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes a key to stdin by default."""
    pipe(monkeypatch, NEW_KEY)


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def stored() -> Any:
    return json.loads(boto3.client("secretsmanager").get_secret_value(SecretId="ProviderKeysSecret")["SecretString"])


def put(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    boto3.client("secretsmanager").put_secret_value(SecretId="ProviderKeysSecret", SecretString=text)


# ------------------------------------------------------------------------------------------------ set


def test_a_valid_key_is_stored_without_changing_the_other_keys(deployed: Deployed, providers: Providers) -> None:
    put({**PROVIDER_KEYS, "nanobanana": {"apiKey": "an-old-one", "webhookKey": "stays", "note": 1}})

    changed = deployed.run("keys", "set", "nanobanana")

    assert stored() == {**PROVIDER_KEYS, "nanobanana": {"apiKey": NEW_KEY, "webhookKey": "stays", "note": 1}}
    (request,) = providers.requests
    assert str(request.url) == f"https://api.nanobananaapi.ai{NANO_CREDITS}"
    assert request.headers["authorization"] == f"Bearer {NEW_KEY}"
    assert (changed["trial"]["status"], changed["trial"]["credits"]) == ("valid", 1200)
    assert NEW_KEY not in json.dumps(changed) + deployed.stderr


def test_the_first_key_of_a_new_stack_is_stored(deployed: Deployed) -> None:
    put("{}")

    page = deployed.show("keys", "set", "acedata")

    assert stored() == {"acedata": {"apiKey": NEW_KEY}}
    assert "acedata accepts the key. ✓ Stored. Every function uses it within 5 minutes." in page


def test_a_key_is_read_from_a_terminal_without_echo(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        return NEW_KEY

    monkeypatch.setattr(getpass, "getpass", typed)

    deployed.run("keys", "set", "flux-kontext")

    assert prompts == ["API key of flux-kontext: "]
    assert stored()["flux-kontext"] == {"apiKey": NEW_KEY}


def test_white_space_around_a_key_is_removed(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, f"\ufeff {NEW_KEY}\u200b\r\n")

    deployed.run("keys", "set", "flux-kontext")

    assert stored()["flux-kontext"]["apiKey"] == NEW_KEY


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [(["flux-kontext"], "..."), (["nanobanana", "--webhook-key"], "..."), (["acedata", "--no-trial"], "s3\u200bcret")],
)
def test_malformed_keys_are_not_stored(
    deployed: Deployed, providers: Providers, monkeypatch: pytest.MonkeyPatch, arguments: list[str], typed: str
) -> None:
    pipe(monkeypatch, typed)

    deployed.run("keys", "set", *arguments, expect=1)

    assert "Nothing was stored." in deployed.stderr
    assert "s3" not in deployed.stderr
    assert stored() == PROVIDER_KEYS
    assert providers.requests == []


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        *[
            (placeholder, "is a placeholder, not a key")
            for placeholder in (
                *("...", "…", "sk-...", "<key>", "YOUR_API_KEY", "your-key-here", "$KEY", "{apiKey}"),
                *("xxxxxxxx", "****", "apiKey", "API_KEY", "my-api-key", "changeme", "None"),
            )
        ],
        ("s3\u200bcret", "has U+200B (ZERO WIDTH SPACE) at position 3, which no HTTP header can hold"),
        ("s3cret s3cret", "has U+0020 (SPACE) at position 7, which no HTTP header can hold"),
        ("s3cret\ns3cret", "has U+000A at position 7, which no HTTP header can hold"),
        *[
            (key, None)
            for key in (
                "a1b2c3d4e5f60718293a4b5c",
                "sk-proj-abc_DEF-123",
                "local-api-key",
                "9999b",
                "eyJhbGciOi.eyJz.dB",
            )
        ],
    ],
)
def test_the_format_of_keys_is_validated(typed: str, problem: str | None) -> None:
    assert key_problem(typed) == problem


ACE_REFUSAL = {"success": False, "error": {"code": "invalid_token", "message": "no"}, "trace_id": "t"}


@pytest.mark.parametrize(
    ("provider", "path", "respond", "problem"),
    [
        (
            "flux-kontext",
            CREDITS,
            json_response({"code": 401, "msg": "no"}),
            "flux-kontext answered 401: the API key is missing",
        ),
        ("flux-kontext", CREDITS, json_response({}, 401), "flux-kontext answered 401: the API key is missing or wrong"),
        (
            "acedata",
            ACE_PATH,
            json_response(ACE_REFUSAL, 401),
            "both Flux Images and Flux Tasks, which is acquired separately",
        ),
        ("acedata", ACE_PATH, json_response({}, 403), "both Flux Images and Flux Tasks, which is acquired separately"),
        ("flux-kontext", CREDITS, json_response({}, 503), "Repeat the command later, or with --no-trial."),
        ("flux-kontext", CREDITS, json_response({"code": 455, "msg": "maintenance"}), "or with --no-trial."),
        ("flux-kontext", CREDITS, unreachable, "flux-kontext did not answer: ConnectError. Repeat the command later"),
    ],
)
def test_a_key_that_the_service_rejects_is_not_stored(
    deployed: Deployed, providers: Providers, provider: str, path: str, respond: Any, problem: str
) -> None:
    providers.answers[path] = respond

    deployed.run("keys", "set", provider, expect=1)

    assert "Nothing was stored" in deployed.stderr
    assert problem in deployed.stderr
    assert stored() == PROVIDER_KEYS


@pytest.mark.parametrize(
    ("provider", "path", "respond"),
    [
        ("flux-kontext", CREDITS, json_response({"code": 200, "msg": "success", "data": 0})),
        ("flux-kontext", CREDITS, json_response({"code": 402, "msg": "no credits"})),
        ("acedata", ACE_PATH, json_response({"error": {"code": "used_up", "message": "no"}}, 403)),
    ],
)
def test_a_key_of_an_account_without_credits_is_stored_with_a_warning(
    deployed: Deployed, providers: Providers, provider: str, path: str, respond: Any
) -> None:
    providers.answers[path] = respond

    assert "accepts the key, but the account has no credits" in deployed.show("keys", "set", provider)

    assert stored()[provider] == {"apiKey": NEW_KEY}


def test_no_trial_stores_a_key_without_a_request(deployed: Deployed, providers: Providers) -> None:
    assert deployed.run("keys", "set", "flux-kontext", "--no-trial")["trial"] is None

    assert stored()["flux-kontext"] == {"apiKey": NEW_KEY}
    assert providers.requests == []


def test_a_webhook_key_is_stored_without_changing_the_api_key(deployed: Deployed, providers: Providers) -> None:
    page = deployed.show("keys", "set", "flux-kontext", "--webhook-key")

    assert stored() == {**PROVIDER_KEYS, "flux-kontext": {**PROVIDER_KEYS["flux-kontext"], "webhookKey": NEW_KEY}}
    assert "refuses callbacks without a valid signature" in page
    assert providers.requests == []


def test_a_webhook_key_of_a_service_without_signatures_is_rejected(deployed: Deployed) -> None:
    deployed.run("keys", "set", "acedata", "--webhook-key", expect=2)

    assert "every callback would be refused" in deployed.stderr
    assert stored() == PROVIDER_KEYS


@pytest.mark.parametrize("value", ["no JSON", "[1]", '"text"', '{"flux-kontext": "s3cret"}', "7"])
def test_a_malformed_secret_is_not_overwritten(deployed: Deployed, value: str) -> None:
    put(value)

    deployed.run("keys", "set", "flux-kontext", expect=1)

    assert boto3.client("secretsmanager").get_secret_value(SecretId="ProviderKeysSecret")["SecretString"] == value
    assert "s3cret" not in deployed.stderr


@pytest.mark.parametrize(
    "arguments", [["set"], ["remove"], ["set", "flux"], ["list", "flux-kontext"], ["list", "--no-trial"], ["get"]]
)
def test_invalid_arguments_change_nothing(deployed: Deployed, arguments: list[str]) -> None:
    deployed.run("keys", *arguments, expect=2)

    assert stored() == PROVIDER_KEYS


# ------------------------------------------------------------------------------------------------ remove


def test_removing_a_key_keeps_the_others(deployed: Deployed) -> None:
    put({**PROVIDER_KEYS, "flux-kontext": {"apiKey": NEW_KEY, "webhookKey": "..."}})

    deployed.run("keys", "remove", "flux-kontext", "--webhook-key")
    deployed.run("keys", "remove", "acedata")

    others = {name: keys for name, keys in PROVIDER_KEYS.items() if name != "acedata"}
    assert stored() == {**others, "flux-kontext": {"apiKey": NEW_KEY}}


# ------------------------------------------------------------------------------------------------ list


def listed(deployed: Deployed, expect: int = 0) -> dict[str, str]:
    return {key["provider"]: key["status"] for key in deployed.run("keys", "list", expect=expect)["apiKeys"]}


def test_valid_keys_are_listed_with_their_credits(deployed: Deployed) -> None:
    assert listed(deployed) == dict.fromkeys(PROVIDER_KEYS, "valid")
    page = deployed.show("keys", "list")
    assert "flux-kontext valid 35.95 not set" in page
    assert "nanobanana valid 1,200 not set" in page


def test_each_status_is_listed_with_its_consequences_and_next_step(deployed: Deployed, providers: Providers) -> None:
    providers.answers[CREDITS] = json_response({"code": 401, "msg": "no"})
    providers.answers[NANO_CREDITS] = json_response({"code": 200, "data": -3})
    put({name: PROVIDER_KEYS[name] for name in ("flux-kontext", "nanobanana")})

    assert listed(deployed, expect=1) == {
        **dict.fromkeys(PROVIDER_KEYS, "missing"),
        "flux-kontext": "refused",
        "nanobanana": "out of credits",
    }
    page = deployed.show("keys", "list")
    consequences = "callbacks are not confirmed, requests cannot be submitted, and missed callbacks are not recovered."
    assert f"flux-kontext answered 401: the API key is missing or wrong; {consequences} Next: `catchlight keys" in page
    assert "nanobanana API key out of credits: the provider accepts no new requests. Next: add credits" in page
    assert "acedata API key missing: callbacks are archived unconfirmed" in page
    assert "Next: if you use acedata: `catchlight keys set acedata`" in page


def test_malformed_keys_are_listed_as_unusable_without_a_trial(deployed: Deployed, providers: Providers) -> None:
    placeholders = {"apiKey": "...", "webhookKey": "..."}
    put({"flux-kontext": placeholders, "nanobanana": {"apiKey": "s3\u200bcret"}, "acedata": {"apiKey": 7}})

    keys = deployed.run("keys", "list", expect=1)

    unusable = {key["provider"] for key in keys["apiKeys"] if key["status"] == "unusable"}
    assert unusable == {"flux-kontext", "nanobanana", "acedata"}
    assert keys["webhookKeys"][0]["problem"] == "a placeholder: every callback is refused"
    assert "--webhook-key" in keys["webhookKeys"][0]["nextStep"]
    assert providers.requests == []


def test_an_unavailable_service_does_not_make_a_key_invalid(deployed: Deployed, providers: Providers) -> None:
    providers.answers[CREDITS] = unreachable

    assert listed(deployed)["flux-kontext"] == "not tried"


def test_a_secret_without_keys_is_a_problem(deployed: Deployed) -> None:
    put("{}")

    assert listed(deployed, expect=1) == dict.fromkeys(PROVIDER_KEYS, "missing")


def test_a_malformed_secret_is_an_error(deployed: Deployed) -> None:
    put('{"flux-kontext": "s3cret"}')

    deployed.run("keys", "list", expect=1)

    assert "the provider keys secret must be JSON" in deployed.stderr
    assert "s3cret" not in deployed.stderr
