"""Secrets by reference: read when needed, kept for minutes, the previous version alive while one is rotated."""

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from catchlight.errors import SettingsError, StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager.client import SecretsManagerClient

# A new version is in use everywhere after this long at the latest.
CACHE_SECONDS = 300
# A caller whose secret does not match makes us look again, but strangers must not make us look all the time.
RECHECK_SECONDS = 30


class ProviderKeys(BaseModel):
    """One provider's entry in the provider keys secret."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, hide_input_in_errors=True, defer_build=True)

    api_key: SecretStr | None = None
    # None: the provider does not sign. Empty: it should, and nothing can match.
    webhook_key: SecretStr | None = None

    @property
    def usable_api_key(self) -> str | None:
        """The API key in the clear; None also for an empty one: then the provider cannot be asked."""
        return (self.api_key.get_secret_value() or None) if self.api_key else None


class RotatingSecret:
    """One secret of AWS Secrets Manager with its versions that are valid now.

    Powertools' provider would cache both versions under one key and a missing previous version not at all.
    """

    def __init__(
        self, secret_id: str, client: "SecretsManagerClient", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._secret_id = secret_id
        self._client = client
        self._clock = clock
        self._cache: dict[str, tuple[float, str | None]] = {}

    def current(self) -> str:
        """The current value, at most `CACHE_SECONDS` old.

        Raises:
            SettingsError: there is no such secret.
            StoreUnavailableError: Secrets Manager cannot be reached.
        """
        value = self._read("AWSCURRENT", CACHE_SECONDS)
        if value is None:
            raise SettingsError("a secret has no current version; put a value into it")
        return value

    def provider_keys(self, provider_id: str) -> "ProviderKeys":
        """One provider's current keys, if this is the provider keys secret.

        Raises:
            SettingsError, StoreUnavailableError: see `current` and the function of the same name.
        """
        return provider_keys(self.current(), provider_id)

    def versions(self) -> Iterator[str]:
        """Values to try in turn: current, previous, and both once more if what is cached may have been rotated.

        Lazy: the calls that a match makes unnecessary are not made.
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
            value = None  # not rotated yet
        except (BotoCoreError, ClientError) as exc:
            raise StoreUnavailableError(f"Secrets Manager did not give a secret: {type(exc).__name__}") from exc
        self._cache[stage] = (now, value)
        return value


def provider_keys(secret: str, provider_id: str) -> ProviderKeys:
    """One provider's keys in a version of the provider keys secret; empty ones if it has no entry.

    Raises:
        SettingsError: the secret is not `{"PROVIDER": {"apiKey": "...", "webhookKey": "..."}}`.
    """
    try:
        # In two steps: pydantic's JSON errors quote the text around them.
        return ProviderKeys.model_validate(json.loads(secret).get(provider_id, {}))
    except (AttributeError, ValidationError, ValueError):
        raise SettingsError(
            'the provider keys secret must be JSON like {"flux-kontext": {"apiKey": "...", "webhookKey": "..."}}'
        ) from None
