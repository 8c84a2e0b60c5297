"""Reads secrets from AWS Secrets Manager on demand, caches them for minutes, and compares tokens with them.

The previous version of a secret stays valid during a rotation.
"""

import hmac
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from catchlight.errors import SettingsError, StoreUnavailableError, UnauthorizedError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager.client import SecretsManagerClient

# The maximum time until a new version of a secret is used by every function.
CACHE_SECONDS = 300
# A mismatch refreshes a cached secret that is older than this. Without this limit, every request with invalid
# credentials would cause a call to Secrets Manager.
RECHECK_SECONDS = 30
# The format of the callback token in the URL.
TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{32,128}", re.ASCII)


class ProviderKeys(BaseModel):
    """One provider's entry in the provider keys secret."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, hide_input_in_errors=True, defer_build=True)

    api_key: SecretStr | None = None
    # None: the provider's callbacks are not signed. Empty: signatures are required, but no signature is valid.
    webhook_key: SecretStr | None = None

    @property
    def usable_api_key(self) -> str | None:
        """The API key in plain text; None if it is missing or empty, so that the provider cannot be polled."""
        return (self.api_key.get_secret_value() or None) if self.api_key else None


class RotatingSecret:
    """One secret of AWS Secrets Manager, with its current and previous version.

    Replaces Powertools' provider, which caches both versions under the same key and does not cache that a previous
    version is missing.
    """

    def __init__(
        self, secret_id: str, client: "SecretsManagerClient", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._secret_id = secret_id
        self._client = client
        self._clock = clock
        self._cache: dict[str, tuple[float, str | None]] = {}

    def current(self) -> str:
        """Returns the current value, read at most `CACHE_SECONDS` ago.

        Raises:
            SettingsError: the secret does not exist or has no value.
            StoreUnavailableError: the call to Secrets Manager failed.
        """
        value = self._read("AWSCURRENT", CACHE_SECONDS)
        if value is None:
            raise SettingsError("a secret has no current version; put a value into it")
        return value

    def provider_keys(self, provider_id: str) -> "ProviderKeys":
        """Returns one provider's current keys. Only valid for the provider keys secret.

        Raises:
            SettingsError, StoreUnavailableError: see `current` and the function `provider_keys`.
        """
        return provider_keys(self.current(), provider_id)

    def versions(self) -> Iterator[str]:
        """Yields the values to compare with: current, previous, and both again if a refresh finds new values.

        The iterator is lazy: a caller that stops at a match causes no further calls to Secrets Manager.
        """
        tried = []
        for max_age in (CACHE_SECONDS, RECHECK_SECONDS):
            for stage in ("AWSCURRENT", "AWSPREVIOUS"):
                value = self._read(stage, max_age)
                if value is not None and value not in tried:
                    tried.append(value)
                    yield value

    def _read(self, stage: str, max_age: float) -> str | None:
        now = self._clock()
        if stage in self._cache:
            read_at, value = self._cache[stage]
            if now - read_at <= max_age:
                return value
        try:
            value = self._client.get_secret_value(SecretId=self._secret_id, VersionStage=stage)["SecretString"]
        except self._client.exceptions.ResourceNotFoundException:
            value = None  # AWSPREVIOUS does not exist before the first rotation
        except (BotoCoreError, ClientError) as exc:
            raise StoreUnavailableError(f"Secrets Manager did not give a secret: {type(exc).__name__}") from exc
        self._cache[stage] = (now, value)
        return value


def provider_keys(secret: str, provider_id: str) -> ProviderKeys:
    """Parses one provider's keys from a value of the provider keys secret; without an entry, all keys are None.

    Raises:
        SettingsError: the secret is not `{"PROVIDER": {"apiKey": "...", "webhookKey": "..."}}`.
    """
    try:
        # In two steps, because pydantic's errors for malformed JSON quote the surrounding text.
        return ProviderKeys.model_validate(json.loads(secret).get(provider_id, {}))
    except (AttributeError, ValidationError, ValueError):
        raise SettingsError(
            'the provider keys secret must be JSON like {"flux-kontext": {"apiKey": "...", "webhookKey": "..."}}'
        ) from None


def verify_token(presented: str, live_tokens: Iterable[str]) -> None:
    """Checks the callback token of the URL, in constant time per token.

    Raises:
        UnauthorizedError: the token is malformed or is none of the valid ones.
    """
    # The format first: a malformed token must not cause a call to Secrets Manager.
    if TOKEN_PATTERN.fullmatch(presented):
        for token in live_tokens:
            if hmac.compare_digest(presented.encode(), token.encode()):
                return
    raise UnauthorizedError("the token in the URL is not valid")
