"""Reads secrets from AWS Secrets Manager on demand, caches them for minutes, and compares tokens with them.

The previous version of a secret stays valid during a rotation. White space and invisible characters around a secret are
ignored: people paste them with it.
"""

import hmac
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from catchlight.errors import InvalidSecretError, SettingsError, StoreUnavailableError, UnauthorizedError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_secretsmanager.type_defs import GetSecretValueResponseTypeDef

# The maximum time until a new version of a secret is used by every function.
CACHE_SECONDS = 300
# A mismatch refreshes a cached secret that is older than this. Without this limit, every request with invalid
# credentials would cause a call to Secrets Manager.
RECHECK_SECONDS = 30
# The format of the callback token in the URL.
TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{32,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ProviderKeys:
    """One provider's entry in the provider keys secret. Each key is checked when it is used, not with the others."""

    provider_id: str
    _entry: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def usable_api_key(self) -> str | None:
        """The API key in plain text; None if it is missing or empty, so that the provider cannot be polled.

        Raises:
            InvalidSecretError: it is no text, or has a character that no HTTP header can hold.
        """
        key = self._key("apiKey")
        if problem := character_problem(key or ""):
            raise self._invalid("apiKey", f"{problem}, which no HTTP header can hold")
        return (key and stripped(key)) or None

    @property
    def webhook_key(self) -> str | None:
        """The key of callback signatures in plain text.

        None: the provider's callbacks are not signed. Empty: signatures are required, but no signature is valid.

        Raises:
            InvalidSecretError: it is no text.
        """
        key = self._key("webhookKey")
        return None if key is None else stripped(key)

    def problem_of_webhook_key(self) -> str | None:
        """Describes the character in the webhook key that was probably pasted by mistake; None if there is none."""
        return character_problem(self._key("webhookKey") or "")

    def _key(self, name: str) -> str | None:
        key = self._entry.get(name)
        if key is None or isinstance(key, str):
            return key
        raise self._invalid(name, "is no text: put it in quotation marks")

    def _invalid(self, name: str, problem: str) -> InvalidSecretError:
        return InvalidSecretError(f"{name} of {self.provider_id} in the provider keys secret {problem}")


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
            value = secret_text(self._client.get_secret_value(SecretId=self._secret_id, VersionStage=stage))
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
        entry = json.loads(secret).get(provider_id)
    except (AttributeError, ValueError, RecursionError):
        entry = secret
    if not isinstance(entry, dict | None):
        raise SettingsError(
            'the provider keys secret must be JSON like {"flux-kontext": {"apiKey": "...", "webhookKey": "..."}}'
        )
    return ProviderKeys(provider_id, entry or {})


def verify_token(presented: str, live_tokens: Iterable[str]) -> None:
    """Checks the callback token of the URL, in constant time per token.

    Raises:
        UnauthorizedError: the token is malformed or is none of the valid ones.
    """
    # The format first: a malformed token must not cause a call to Secrets Manager.
    if TOKEN_PATTERN.fullmatch(presented):
        for token in live_tokens:
            # The secret may hold anything, also half a character (a lone surrogate).
            if hmac.compare_digest(presented.encode(), token.encode(errors="surrogatepass")):
                return
    raise UnauthorizedError("the token in the URL is not valid")


def secret_text(response: "GetSecretValueResponseTypeDef") -> str | None:
    """Returns the value in a response of GetSecretValue, without the characters around it; None if it has none.

    Bytes that are not UTF-8 become U+FFFD, a character that the checks of keys and tokens refuse.
    """
    text, binary = response.get("SecretString"), response.get("SecretBinary")
    if text is None and binary is not None:
        text = binary.decode(errors="replace")
    return None if text is None else stripped(text)


def stripped(secret: str) -> str:
    """Returns a secret without blanks, line ends, zero-width characters and byte order marks around it."""
    shown = [at for at, character in enumerate(secret) if _is_shown(character)]
    return secret[shown[0] : shown[-1] + 1] if shown else ""


def character_problem(secret: str) -> str | None:
    """Describes the first character inside a secret that is not visible ASCII, by code point and position.

    Keys and tokens consist of visible ASCII: RFC 9110 advises against other characters in headers. The position counts
    from 1, in the value as it is stored. The text does not contain any other part of the secret.
    """
    start = secret.find(stripped(secret))
    for at, character in enumerate(stripped(secret), start + 1):
        if not "!" <= character <= "~":
            import unicodedata  # here, because it would take a millisecond of each cold start

            name = unicodedata.name(character, "")
            return f"has U+{ord(character):04X}{name and f' ({name})'} at position {at}"
    return None


def _is_shown(character: str) -> bool:
    # False for Unicode's categories "separator" and "other", which zero-width characters and control codes belong to.
    return character.isprintable() and character != " "
