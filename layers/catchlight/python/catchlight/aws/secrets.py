"""Reads and caches secrets of AWS Secrets Manager, verifies tokens, and overwrites secrets in text from outside.

The previous version of a secret stays valid during a rotation. White space and invisible characters around a secret are
ignored, because they are often pasted with it.
"""

import base64
import hmac
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from catchlight.errors import InvalidSecretError, SettingsError, StoreUnavailableError, UnauthorizedError
from catchlight.providers import PROVIDER_ID_PATTERN

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
# Replaces a secret in text. The brackets make a task id or a host name invalid if it contained the secret.
MASK = "[redacted]"
# Shorter keys, or parts of their base64, may occur in any text: overwriting them would damage the parsed content.
MIN_SECRET_LENGTH = 8
# The placeholders for keys in examples: dots, or a name in angle brackets. Nothing else is treated as a placeholder,
# because a key that works must never be ignored; `catchlight keys` warns of further ones.
_PLACEHOLDER = re.compile(r"[.…]+|<[^<>]*>")
# The maximum number of escapes within each other. JSON in a URL's query within JSON has three.
MAX_NESTING = 4

_MASK = MASK.encode()
# Encoded characters, and the characters that only occur in encoded ones. The time of a match is linear in its length,
# because senders choose the text.
_ESCAPE = re.compile(rb"\\(?:\\*u00([0-9a-fA-F]{2})|[\\\0]*)|%(?:25)*([0-9a-fA-F]{2})|\0[\\\0]*")
_ONLY_IN_ESCAPES = b"\\\0"
_CALLBACK_URL = re.compile(f"(callbacks/{PROVIDER_ID_PATTERN[1:-1]}/){TOKEN_PATTERN.pattern}".encode())


@dataclass(frozen=True, slots=True)
class ProviderKeys:
    """One provider's entry in the provider keys secret. Each key is checked when it is used, not with the others."""

    provider_id: str
    _entry: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_stored(self) -> bool:
        """Whether the secret has an entry for the provider."""
        return bool(self._entry)

    @property
    def usable_api_key(self) -> str | None:
        """The API key in plain text; None if it is missing, empty or a placeholder: the provider cannot be polled.

        Raises:
            InvalidSecretError: it is not a string, or has a character that no HTTP header can hold.
        """
        key = self._key("apiKey")
        if key and _is_placeholder(key):
            return None
        if problem := character_problem(key or ""):
            raise self._invalid("apiKey", f"{problem}, which no HTTP header can hold")
        return (key and stripped(key)) or None

    @property
    def missing_api_key(self) -> str:
        """The reason why `usable_api_key` is None."""
        return "the API key is a placeholder" if "apiKey" in self.placeholders else "there is no API key"

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the keys that are placeholders."""
        named = (name for name in ("apiKey", "webhookKey") if isinstance(self._entry.get(name), str))
        return tuple(name for name in named if _is_placeholder(self._entry[name]))

    @property
    def webhook_key(self) -> str | None:
        """The key of callback signatures in plain text.

        None: the provider's callbacks are not signed. Empty: signatures are required, but no signature is valid. A
        placeholder counts as an empty key, because anyone can sign with it.

        Raises:
            InvalidSecretError: it is not a string.
        """
        key = self._key("webhookKey")
        return None if key is None else "" if _is_placeholder(key) else stripped(key)

    def problem_of_webhook_key(self) -> str | None:
        """Describes the character in the webhook key that was probably pasted by mistake; None if there is none."""
        return character_problem(self._key("webhookKey") or "")

    def _key(self, name: str) -> str | None:
        key = self._entry.get(name)
        if key is None or isinstance(key, str):
            return key
        raise self._invalid(name, "is not a string: put it in quotation marks")

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

    def current_and_previous(self) -> tuple[str, str | None]:
        """Returns the current value and the one before; None if the secret was never rotated. See `current`."""
        return self.current(), self._read("AWSPREVIOUS", CACHE_SECONDS)

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
            raise StoreUnavailableError(f"Secrets Manager did not return a secret: {type(exc).__name__}") from exc
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
        UnauthorizedError: the token is malformed or not one of the valid ones.
    """
    # The format first: a malformed token must not cause a call to Secrets Manager.
    if TOKEN_PATTERN.fullmatch(presented):
        for token in live_tokens:
            # The secret may contain any text, even a lone surrogate (half of a character).
            if hmac.compare_digest(presented.encode(), token.encode(errors="surrogatepass")):
                return
    raise UnauthorizedError("the token in the URL is not valid")


def secret_text(response: "GetSecretValueResponseTypeDef") -> str | None:
    """Returns the value in a response of GetSecretValue, as `stripped` does; None if it has none.

    Bytes that are not UTF-8 become U+FFFD, a character that the checks of keys and tokens reject.
    """
    text, binary = response.get("SecretString"), response.get("SecretBinary")
    if text is None and binary is not None:
        text = binary.decode(errors="replace")
    return None if text is None else stripped(text)


def _is_placeholder(key: str) -> bool:
    return _PLACEHOLDER.fullmatch(stripped(key)) is not None


def stripped(secret: str) -> str:
    """Returns a secret without blanks, line ends, zero-width characters and byte order marks around it."""
    visible = [at for at, character in enumerate(secret) if _is_visible(character)]
    return secret[visible[0] : visible[-1] + 1] if visible else ""


def character_problem(secret: str) -> str | None:
    """Describes the first character inside a secret that is not visible ASCII, by code point and position; or None.

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


def _is_visible(character: str) -> bool:
    # False for Unicode's categories "separator" and "other", to which zero-width characters and control codes belong.
    return character.isprintable() and character != " "


# ------------------------------------------------------------------------------------------------ secrets in text


class Redactor:
    """Overwrites this stack's own secrets in text from outside, before any of it is stored, logged or shown.

    Providers repeat parts of the request: callbacks of kie.ai's Market and of Replicate contain the callback URL, and
    with it the callback token; an error message may quote an API key. Anyone who can read a task, an event or a
    rejected delivery could then forge callbacks or use the key.

    A secret is found in these encodings, also nested in each other, up to `MAX_NESTING` levels:

    - plain, and in UTF-16;
    - with backslashes and `\\u00XX`, as in JSON and in JSON inside a JSON string;
    - percent-encoded, also repeatedly, whichever characters are encoded;
    - base64, standard or URL-safe, at any offset of the encoded text.

    In addition, the token of any callback URL is found by its place in the URL, because the functions that poll
    providers do not read the token, and because the URL may belong to another stack. Secrets in compressed text, as
    hexadecimal digits or as HTML entities are not found.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Ignores secrets shorter than `MIN_SECRET_LENGTH`, and those of digits only, which may be numbers in JSON."""
        self._spellings = tuple(
            spelling
            for secret in secrets
            if len(secret) >= MIN_SECRET_LENGTH and not secret.isdecimal()
            for spelling in _spellings(secret)
        )

    def redact(self, content: bytes) -> bytes:
        """Returns the content with every secret overwritten; JSON with secrets in its strings stays valid JSON."""
        # Unescaped secrets first: a search for bytes takes a microsecond.
        for spelling in self._spellings:
            if spelling in content:
                *parts, last = content.split(spelling)
                # A backslash before a secret belongs to its first character: JSON may spell "/" as "\/".
                content = _MASK.join([*(part.rstrip(b"\\") for part in parts), last])
        content = _CALLBACK_URL.sub(rb"\1" + _MASK, content)
        parts, at = [], 0
        for start, end in sorted(self._escaped_secrets(content, MAX_NESTING)):
            if start >= at:  # else it overlaps with the one before
                parts += [content[at:start], _MASK]
            at = max(at, end)
        return b"".join([*parts, content[at:]])

    def redact_text(self, text: str) -> str:
        """Returns the text with every secret overwritten."""
        # surrogatepass: JSON can contain lone surrogates.
        return self.redact(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")

    def _escaped_secrets(self, content: bytes, levels: int) -> list[tuple[int, int]]:
        """Returns the start and end of each secret that appears once `levels` levels of escapes are removed."""
        plain = _unescaped(content) if levels else content
        if plain == content:
            return []
        found = [*self._plain_secrets(plain), *self._escaped_secrets(plain, levels - 1)]
        if not found:
            return []
        places = _places(content)
        return [(places[start][0], places[stop - 1][1]) for start, stop in found]

    def _plain_secrets(self, content: bytes) -> Iterator[tuple[int, int]]:
        for spelling in self._spellings:
            start = content.find(spelling)
            while start >= 0:
                yield start, start + len(spelling)
                start = content.find(spelling, start + len(spelling))
        for url in _CALLBACK_URL.finditer(content):
            yield url.end(1), url.end()


def secrets_in(value: str) -> Iterator[str]:
    """Yields the secrets in a value of Secrets Manager: every string in its JSON, or all of it if it is not JSON."""
    try:
        levels = [json.loads(value)]
    except (ValueError, RecursionError):
        levels = [value]
    while levels:
        part = levels.pop()
        if isinstance(part, str):
            yield stripped(part)
        elif isinstance(part, dict | list):
            levels += part.values() if isinstance(part, dict) else part


@cache
def _spellings(secret: str) -> tuple[bytes, ...]:
    """Returns the encodings of a secret that `Redactor` searches for, in content with and without its escapes."""
    content = plain = secret.encode(errors="surrogatepass")
    spellings = {content}
    # A secret that contains escapes itself changes when escapes are removed.
    while (plain := _unescaped(plain)) not in spellings:
        spellings.add(plain)
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + content)
        # The characters that do not depend on the bytes before or after the secret.
        part = encoded[-(-8 * offset // 6) : 8 * (offset + len(content)) // 6]
        spellings |= {part, part.translate(bytes.maketrans(b"+/", b"-_"))}
    # Longest first: otherwise a shorter spelling would overwrite only a part of a longer one.
    return tuple(sorted((each for each in spellings if len(each) >= MIN_SECRET_LENGTH), key=len, reverse=True))


def _unescaped(content: bytes) -> bytes:
    if b"\\u00" in content or b"%" in content:
        return _ESCAPE.sub(_character, content)
    return content.translate(None, _ONLY_IN_ESCAPES)  # the same result, fifty times as fast


def _character(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex((escape[1] or escape[2] or b"").decode())


def _places(content: bytes) -> list[tuple[int, int]]:
    """Returns the start and end in `content` of each byte of the unescaped content.

    Backslashes belong to the character that follows them.
    """
    places = []
    start = end = 0
    for escape in _ESCAPE.finditer(content):
        for position in range(end, escape.start()):
            places.append((start, position + 1))
            start = position + 1
        end = escape.end()
        if _character(escape):
            places.append((start, end))
            start = end
    for position in range(end, len(content)):
        places.append((start, position + 1))
        start = position + 1
    return places
