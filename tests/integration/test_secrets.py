"""Secrets: rotation without refused callbacks, and a limit for the reads that wrong tokens cause."""

import json
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from catchlight.aws.secrets import CACHE_SECONDS, RECHECK_SECONDS, RotatingSecret, provider_keys, verify_token
from catchlight.errors import InvalidSecretError, SettingsError, StoreUnavailableError, UnauthorizedError

FIRST, SECOND, THIRD = "first" * 10, "second" * 10, "third" * 10
WRONG = "wrong" * 10


@dataclass
class SecretsManager:
    """moto's Secrets Manager, with a clock that tests set, and the number of calls."""

    client: Any
    secret_id: str
    now: float = 1000.0
    reads: int = 0

    def put(self, value: str) -> None:
        self.client.put_secret_value(SecretId=self.secret_id, SecretString=value)

    def secret(self) -> RotatingSecret:
        return RotatingSecret(self.secret_id, self.client, clock=lambda: self.now)

    def count(self, **_: Any) -> None:
        self.reads += 1


@pytest.fixture
def manager(aws: None) -> SecretsManager:
    client = boto3.client("secretsmanager")
    arn = client.create_secret(Name="token", SecretString=FIRST)["ARN"]
    manager = SecretsManager(client, arn)
    client.meta.events.register("before-call.secrets-manager.GetSecretValue", manager.count)
    return manager


def accepts(secret: RotatingSecret, token: str) -> bool:
    try:
        verify_token(token, secret.versions())
    except UnauthorizedError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ rotation


def test_a_secret_that_was_never_rotated_has_one_version(manager: SecretsManager) -> None:
    assert list(manager.secret().versions()) == [FIRST]


def test_the_new_and_the_previous_version_are_valid_the_one_before_is_not(manager: SecretsManager) -> None:
    manager.put(SECOND)
    manager.put(THIRD)
    secret = manager.secret()

    assert accepts(secret, THIRD)
    assert accepts(secret, SECOND)
    assert not accepts(secret, FIRST)


def test_a_new_version_is_accepted_after_the_recheck_time(manager: SecretsManager) -> None:
    secret = manager.secret()
    assert accepts(secret, FIRST)

    manager.put(SECOND)
    manager.now += RECHECK_SECONDS + 1

    assert accepts(secret, SECOND)
    assert accepts(secret, FIRST)


def test_a_second_rotation_is_accepted(manager: SecretsManager) -> None:
    secret = manager.secret()
    manager.put(SECOND)
    assert accepts(secret, SECOND)
    manager.put(THIRD)
    manager.now += RECHECK_SECONDS + 1

    assert accepts(secret, THIRD)
    assert accepts(secret, SECOND)


def test_a_token_of_an_earlier_rotation_is_refused_once_the_cache_has_expired(manager: SecretsManager) -> None:
    secret = manager.secret()
    assert accepts(secret, FIRST)
    manager.put(SECOND)
    manager.put(THIRD)

    manager.now += CACHE_SECONDS + 1

    assert not accepts(secret, FIRST)


@pytest.mark.parametrize(("seconds", "reads"), [(RECHECK_SECONDS, 2), (RECHECK_SECONDS + 1, 4)])
def test_a_wrong_token_refreshes_the_cache_once_the_recheck_time_is_over(
    manager: SecretsManager, seconds: float, reads: int
) -> None:
    secret = manager.secret()
    assert not accepts(secret, WRONG)

    manager.now += seconds

    assert not accepts(secret, WRONG)
    assert manager.reads == reads


def test_the_current_value_is_cached_for_the_cache_time(manager: SecretsManager) -> None:
    secret = manager.secret()
    assert secret.current() == FIRST
    manager.put(SECOND)

    manager.now += CACHE_SECONDS
    assert secret.current() == FIRST
    manager.now += 1
    assert secret.current() == SECOND


# ------------------------------------------------------------------------------------------------ calls


def test_right_tokens_cost_one_call_per_cache_time(manager: SecretsManager) -> None:
    secret = manager.secret()

    for _ in range(1000):
        assert accepts(secret, FIRST)
        manager.now += 1

    assert manager.reads == 4  # at 0, 301, 602, 903 s


def test_a_flood_of_wrong_tokens_costs_two_calls_per_recheck_time(manager: SecretsManager) -> None:
    secret = manager.secret()
    seconds = 600

    for _ in range(seconds * 10):
        assert not accepts(secret, WRONG)
        manager.now += 0.1

    # The current and the previous version are read, whatever the number of requests.
    assert 2 <= manager.reads <= 2 * (seconds / RECHECK_SECONDS + 1)


def test_a_missing_previous_version_is_cached(manager: SecretsManager) -> None:
    secret = manager.secret()

    for _ in range(100):
        assert not accepts(secret, WRONG)

    assert manager.reads == 2


# ------------------------------------------------------------------------------------------------ faults


def test_a_missing_secret_is_a_settings_error(manager: SecretsManager) -> None:
    secret = RotatingSecret("missing", manager.client)

    with pytest.raises(SettingsError, match="no current version"):
        secret.current()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "GetSecretValue"), "ClientError"),
        (ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetSecretValue"), "ClientError"),
        (ConnectTimeoutError(endpoint_url="https://secrets.example"), "ConnectTimeoutError"),
    ],
)
def test_errors_of_secrets_manager_are_retryable_and_not_cached(
    manager: SecretsManager, fault: Exception, error: str
) -> None:
    def fail(**_: Any) -> None:
        raise fault

    secret = manager.secret()
    manager.client.meta.events.register("before-call.secrets-manager.GetSecretValue", fail)
    with pytest.raises(StoreUnavailableError, match=f"did not return a secret: {error}"):
        secret.current()

    manager.client.meta.events.unregister("before-call.secrets-manager.GetSecretValue", fail)
    assert secret.current() == FIRST


def test_a_fault_during_a_refresh_does_not_refuse_cached_tokens(manager: SecretsManager) -> None:
    secret = manager.secret()
    assert accepts(secret, FIRST)

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServiceError", "Message": "no"}}, "GetSecretValue")

    manager.client.meta.events.register("before-call.secrets-manager.GetSecretValue", fail)
    manager.now += RECHECK_SECONDS + 1

    assert accepts(secret, FIRST)


# ------------------------------------------------------------------------------------------------ provider keys


def test_a_provider_has_its_own_keys() -> None:
    keys = provider_keys(
        '{"flux-kontext": {"apiKey": "a", "webhookKey": "w"}, "acedata": {"apiKey": "b"}}', "flux-kontext"
    )

    assert (keys.usable_api_key, keys.webhook_key) == ("a", "w")


@pytest.mark.parametrize("secret", ["{}", '{"nanobanana": {}}', '{"nanobanana": null}', '{"acedata": {"apiKey": "b"}}'])
def test_a_provider_without_an_entry_has_no_keys(secret: str) -> None:
    keys = provider_keys(secret, "nanobanana")

    assert (keys.usable_api_key, keys.webhook_key) == (None, None)


@pytest.mark.parametrize(
    ("secret", "usable"),
    [
        ('{"acedata": {"apiKey": "k3y"}}', "k3y"),
        ('{"acedata": {"apiKey": ""}}', None),
        ('{"acedata": {"apiKey": null}}', None),
        ('{"acedata": {"webhookKey": "k3y"}}', None),
        ('{"nanobanana": {"apiKey": "k3y"}}', None),
        ("{}", None),
    ],
)
def test_an_api_key_is_usable_if_it_is_not_empty(manager: SecretsManager, secret: str, usable: str | None) -> None:
    manager.put(secret)

    assert manager.secret().provider_keys("acedata").usable_api_key == usable


def test_an_empty_webhook_key_differs_from_a_missing_one() -> None:
    assert provider_keys('{"flux-kontext": {"webhookKey": ""}}', "flux-kontext").webhook_key == ""
    assert provider_keys('{"flux-kontext": {"webhookKey": " \\n"}}', "flux-kontext").webhook_key == ""


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "s3cret",
        '{"flux-kontext": {"apiKey": "s3cret"}',
        '{"flux-kontext": "s3cret"}',
        '{"flux-kontext": ["s3cret"]}',
        '["s3cret"]',
        "[" * 100_000,
    ],
)
def test_a_malformed_secret_is_a_settings_error_without_its_value(secret: str) -> None:
    with pytest.raises(SettingsError, match="provider keys secret must be JSON like") as refused:
        provider_keys(secret, "flux-kontext")

    assert "s3cret" not in str(refused.value)
    assert refused.value.__context__ is None


def test_keys_are_not_in_their_string_representations() -> None:
    keys = provider_keys('{"flux-kontext": {"apiKey": "s3cret", "webhookKey": "s3cret"}}', "flux-kontext")

    assert "s3cret" not in f"{keys!r} {keys}"


# ------------------------------------------------------------------------------------------------ pasted characters

# Characters that are pasted by mistake: blanks, line ends, no-break spaces, zero-width characters, byte order marks,
# control codes.
AROUND = [
    " ",
    "\n",
    "\r\n",
    "\t",
    "\u00a0",
    "\u200b",
    "\u2060",
    "\ufeff",
    "\u2028",
    "\u3000",
    "\u200e",
    "\x00",
    "\ufeff \n",
]


@pytest.mark.parametrize("around", AROUND, ids=ascii)
def test_blank_characters_around_a_secret_are_ignored(manager: SecretsManager, around: str) -> None:
    manager.put(f"{around}{SECOND}{around}")
    secret = manager.secret()

    assert secret.current() == SECOND
    assert accepts(secret, SECOND)


@pytest.mark.parametrize("around", AROUND, ids=ascii)
def test_blank_characters_around_a_key_are_ignored(manager: SecretsManager, around: str) -> None:
    key = f"{around}k3y{around}"
    manager.put(f"\ufeff{json.dumps({'acedata': {'apiKey': key, 'webhookKey': key}})}\n")
    keys = manager.secret().provider_keys("acedata")

    assert (keys.usable_api_key, keys.webhook_key) == ("k3y", "k3y")
    assert keys.problem_of_webhook_key() is None


@pytest.mark.parametrize("empty", ["", " ", "\n", "\u200b\ufeff"], ids=ascii)
def test_a_key_of_blanks_is_empty(empty: str) -> None:
    keys = provider_keys(json.dumps({"acedata": {"apiKey": empty, "webhookKey": empty}}), "acedata")

    assert (keys.usable_api_key, keys.webhook_key) == (None, "")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("s3\u200bcret", "U+200B (ZERO WIDTH SPACE) at position 3"),
        ("s3\u00a0cret", "U+00A0 (NO-BREAK SPACE) at position 3"),
        ("\u201cs3cret\u201d", "U+201C (LEFT DOUBLE QUOTATION MARK) at position 1"),
        ("s3cret\u2019", "U+2019 (RIGHT SINGLE QUOTATION MARK) at position 7"),
        ("Bearer s3cret", "U+0020 (SPACE) at position 7"),
        ("s3cret\ns3cret", "U+000A at position 7"),
        ("s3\x00cret", "U+0000 at position 3"),
        ("s3\x7fcret", "U+007F at position 3"),
        ("s3cr\u00e9t", "U+00E9 (LATIN SMALL LETTER E WITH ACUTE) at position 5"),
        ("s3cr\u0435t", "U+0435 (CYRILLIC SMALL LETTER IE) at position 5"),
        ("s3cret\U0001f511", "U+1F511 (KEY) at position 7"),
        ("s3\ud800cret", "U+D800 at position 3"),
        ("\ufeff\n s3\u200bcret\n", "U+200B (ZERO WIDTH SPACE) at position 6"),
    ],
    ids=ascii,
)
def test_a_key_that_no_header_can_hold_is_refused_for_its_provider_alone(key: str, problem: str) -> None:
    secret = json.dumps({"acedata": {"apiKey": key, "webhookKey": key}, "flux-kontext": {"apiKey": "g00d"}})

    with pytest.raises(InvalidSecretError) as refused:
        provider_keys(secret, "acedata").usable_api_key  # noqa: B018 - the property is what is tested
    assert str(refused.value) == (
        f"apiKey of acedata in the provider keys secret has {problem}, which no HTTP header can hold"
    )
    assert "s3" not in str(refused.value)
    assert provider_keys(secret, "flux-kontext").usable_api_key == "g00d"
    # An HMAC can be computed with any key: `catchlight doctor` warns of it.
    assert provider_keys(secret, "acedata").problem_of_webhook_key() == f"has {problem}"


def test_every_visible_character_of_ascii_may_be_in_a_key() -> None:
    key = "".join(map(chr, range(0x21, 0x7F)))

    assert provider_keys(json.dumps({"acedata": {"apiKey": key}}), "acedata").usable_api_key == key


@pytest.mark.parametrize("value", [7, 7.5, True, ["s3cret"], {"key": "s3cret"}], ids=str)
@pytest.mark.parametrize("name", ["apiKey", "webhookKey"])
def test_a_key_that_is_not_a_string_is_refused_for_its_provider_alone(name: str, value: object) -> None:
    secret = json.dumps({"acedata": {name: value}, "flux-kontext": {"apiKey": "g00d"}})
    keys = provider_keys(secret, "acedata")

    with pytest.raises(
        InvalidSecretError, match=f"^{name} of acedata in the provider keys secret is not a string"
    ) as refused:
        _ = keys.usable_api_key if name == "apiKey" else keys.webhook_key
    assert "s3cret" not in f"{refused.value} {keys!r}"
    # The other key of the same provider can be used.
    assert (keys.webhook_key if name == "apiKey" else keys.usable_api_key) is None
    assert provider_keys(secret, "flux-kontext").usable_api_key == "g00d"


@pytest.mark.parametrize(
    ("binary", "value"),
    [
        (SECOND.encode(), SECOND),
        (f"\ufeff{SECOND}\n".encode(), SECOND),
        (b"\xff\xfe" + FIRST.encode(), f"\ufffd\ufffd{FIRST}"),
    ],
)
def test_a_secret_may_be_stored_as_bytes(manager: SecretsManager, binary: bytes, value: str) -> None:
    manager.client.put_secret_value(SecretId=manager.secret_id, SecretBinary=binary)
    secret = manager.secret()

    assert secret.current() == value
    assert accepts(secret, FIRST)  # the previous version


@pytest.mark.parametrize("token", ["\ud800" * 40, "ä" * 40, ""])
def test_a_stored_value_that_is_not_a_valid_token_matches_no_token(token: str) -> None:
    for presented in (WRONG, token):
        with pytest.raises(UnauthorizedError):
            verify_token(presented, [token])
