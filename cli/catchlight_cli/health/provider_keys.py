"""Reads, checks and changes the keys in the provider keys secret, and tries API keys against the providers."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from catchlight.aws.secrets import ProviderKeys, character_problem, provider_keys, secret_text, stripped
from catchlight.client.errors import CatchlightError
from catchlight.client.stack import Stack
from catchlight.errors import InvalidSecretError, ProviderError, ProviderRefusedError, SettingsError
from catchlight.models import Model
from catchlight.polling.provider_client import ProviderClient
from catchlight.providers import PROVIDERS, Provider, is_account

SECRET = "ProviderKeysSecret"  # noqa: S105 - the secret's logical id in the template
API_KEY, WEBHOOK_KEY = "apiKey", "webhookKey"

# Texts that examples contain in place of a key.
_PLACEHOLDER = re.compile(
    r".*(\.\.|…|[<>{}$]|\byour).*|(.)\2*|(my|the)?[-_ ]?(api|webhook|secret)?[-_ ]?(key|token|secret)|"
    r"changeme|change-me|placeholder|todo|none|null|example",
    re.IGNORECASE | re.DOTALL,
)


_IS_PLACEHOLDER = "is a placeholder, not a key"


class KeyStatus(StrEnum):
    """The status of an API key."""

    VALID = "valid"
    REFUSED = "refused"
    OUT_OF_CREDITS = "out of credits"
    MISSING = "missing"
    UNUSABLE = "unusable"  # a placeholder, or a character that no HTTP header can hold
    NOT_TRIED = "not tried"  # the provider did not respond, or its response does not show whether it accepts the key


_WITHOUT_KEY = "requests cannot be submitted, and missed callbacks are not recovered"
_KEY_REFUSED = f"callbacks are not confirmed, {_WITHOUT_KEY}"
_CONSEQUENCES = {
    KeyStatus.REFUSED: _KEY_REFUSED,
    KeyStatus.OUT_OF_CREDITS: "the provider accepts no new requests",
    KeyStatus.MISSING: f"callbacks are archived unconfirmed, {_WITHOUT_KEY}",
    KeyStatus.UNUSABLE: _KEY_REFUSED,
}


class ApiKey(Model):
    """The status of a provider's API key, without the key."""

    provider: str
    status: KeyStatus
    detail: str = ""
    credits: float | None = None  # None: unknown
    next_step: str = ""

    @property
    def explanation(self) -> str:
        """The details, and the effect of a key with this status on the provider's tasks; empty if there are none."""
        return "; ".join(filter(None, (self.detail, _CONSEQUENCES.get(self.status))))


class WebhookKey(Model):
    """The status of a provider's webhook key, without the key."""

    provider: str
    is_set: bool
    problem: str = ""
    next_step: str = ""


def read_secret(stack: Stack, logical_id: str = SECRET) -> str:
    """Returns the value of a secret of the stack.

    Raises:
        BotoCoreError, ClientError: the secret cannot be read.
    """
    return secret_text(stack.client("secretsmanager").get_secret_value(SecretId=stack.resource(logical_id))) or ""


def write_key(stack: Stack, provider_id: str, name: str, key: str | None) -> bool:
    """Writes one key of a provider into the secret, or removes it (None). All other keys stay unchanged.

    Returns whether the provider had a key of this name before.

    Raises:
        CatchlightError: the secret does not have the form that `stored_keys` requires. It is not changed.
        BotoCoreError, ClientError: the secret cannot be read or written.
    """
    keys = _decoded(read_secret(stack))
    had_key = name in keys.get(provider_id, {})
    entry = {field: value for field, value in keys.get(provider_id, {}).items() if field != name}
    keys[provider_id] = entry if key is None else {**entry, name: key}
    value = json.dumps({provider: entry for provider, entry in keys.items() if entry}, indent=2)
    stack.client("secretsmanager").put_secret_value(SecretId=stack.resource(SECRET), SecretString=value)
    return had_key


def _decoded(secret: str) -> dict[str, dict[str, Any]]:
    try:
        for provider_id in (keys := dict(json.loads(secret or "{}"))):
            provider_keys(secret, provider_id)
    except (SettingsError, TypeError, ValueError, RecursionError) as exc:
        raise CatchlightError(
            'The provider keys secret is not JSON like {"flux-kontext": {"apiKey": "..."}}. It was not changed: '
            "its content would be lost. Correct it in the AWS console, or replace it by {} and set every key again."
        ) from exc
    return {provider_id: entry or {} for provider_id, entry in keys.items()}


def key_problem(key: str) -> str | None:
    """Returns why a text is not a valid key, without quoting it; None if it may be a valid one."""
    if not stripped(key):
        return "is empty"
    if _PLACEHOLDER.fullmatch(stripped(key)):
        return _IS_PLACEHOLDER
    problem = character_problem(key)
    return problem and f"{problem}, which no HTTP header can hold"


def check_api_key(client: ProviderClient, keys: ProviderKeys) -> ApiKey:
    """Checks the stored API key of a provider, and tries it against the provider."""
    set_key = f"`catchlight keys set {keys.provider_id}`"
    try:
        key = keys.usable_api_key
        problem = key_problem(key) if key else _IS_PLACEHOLDER if API_KEY in keys.placeholders else None
    except InvalidSecretError as exc:
        key, problem = None, str(exc)
    if problem:
        return ApiKey(provider=keys.provider_id, status=KeyStatus.UNUSABLE, detail=problem, next_step=set_key)
    if not key:
        step = f"if you use {keys.provider_id}: {set_key}"
        return ApiKey(provider=keys.provider_id, status=KeyStatus.MISSING, next_step=step)
    return try_api_key(client, PROVIDERS[keys.provider_id], key)


def try_api_key(client: ProviderClient, provider: Provider, key: str) -> ApiKey:
    """Tries an API key against the provider."""
    try:
        credits_left = client.credits(provider, api_key=key)
    except ProviderRefusedError as exc:
        step = f"`catchlight keys set {provider.id}`, with a key from the provider's console"
        return ApiKey(provider=provider.id, status=KeyStatus.REFUSED, detail=str(exc), next_step=step)
    except ProviderError as exc:
        return ApiKey(provider=provider.id, status=KeyStatus.NOT_TRIED, detail=str(exc), next_step="try again later")
    if credits_left is not None and credits_left <= 0:
        step = "add credits in the provider's console"
        return ApiKey(provider=provider.id, status=KeyStatus.OUT_OF_CREDITS, credits=credits_left, next_step=step)
    return ApiKey(provider=provider.id, status=KeyStatus.VALID, credits=credits_left)


def check_webhook_key(keys: ProviderKeys) -> WebhookKey:
    """Checks the stored webhook key of a provider. The provider offers no way to try it."""
    try:
        key = keys.webhook_key
        problem = keys.problem_of_webhook_key()
    except InvalidSecretError as exc:
        return _webhook_key(keys, str(exc))
    if key is None:
        return WebhookKey(provider=keys.provider_id, is_set=False)
    if not PROVIDERS[keys.provider_id].signs_callbacks:
        return _webhook_key(keys, "every callback is refused: this provider does not sign callbacks")
    if WEBHOOK_KEY in keys.placeholders or _PLACEHOLDER.fullmatch(key):
        return _webhook_key(keys, "a placeholder: every callback is refused")
    if key == "":
        return _webhook_key(keys, "empty: every callback is refused")
    if problem:
        return _webhook_key(keys, f"{problem}: the provider's signatures do not match it")
    return WebhookKey(provider=keys.provider_id, is_set=True)


def _webhook_key(keys: ProviderKeys, problem: str) -> WebhookKey:
    command = f"`catchlight keys set {keys.provider_id} --webhook-key`"
    step = f"{command}, or `catchlight keys remove {keys.provider_id} --webhook-key` if the provider has none"
    return WebhookKey(provider=keys.provider_id, is_set=True, problem=problem, next_step=step)


def stored_keys(secret: str) -> Mapping[str, ProviderKeys]:
    """Returns the keys of each provider, and of each further account that has an entry in the value of the secret.

    Raises:
        SettingsError: the secret does not have the form that `catchlight.aws.secrets.provider_keys` describes.
    """
    keys = {provider_id: provider_keys(secret, provider_id) for provider_id in PROVIDERS}
    return keys | {entry: provider_keys(secret, entry) for entry in json.loads(secret) if is_account(entry)}
