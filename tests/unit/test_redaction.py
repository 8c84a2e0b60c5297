"""Secrets are redacted in every spelling, and nothing else is."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchlight.aws.secrets import MASK, Redactor, secrets_in
from catchlight.providers import PROVIDERS
from tests.canary_secrets import canary, readings

TOKEN = canary("redacted token", "canaryTokenForRedaction-_0123456789abcdefghijkl")
# A header can hold each of these characters, and each encoding treats them differently.
KEY = canary("redacted key", "/canary+Key~for%20 redaction?&=:\"'<>\\end/==")
URL = f"https://api.example/callbacks/flux-kontext/{TOKEN}"
REDACTOR = Redactor((TOKEN, KEY))

Spelling = Callable[[str], str]


def percent(text: str) -> str:
    """Percent-encodes every character, also those that encoders leave unchanged."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04X}" for character in text)


def in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def base64_at(offset: int, *, urlsafe: bool = False) -> Spelling:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    return lambda text: encode(b"?" * offset + text.encode() + b">" * 5).decode()


# Each spelling can be part of a JSON string.
SPELLINGS: dict[str, Spelling] = {
    "JSON": in_json,
    "JSON, as PHP writes it": lambda text: in_json(text).replace("/", "\\/"),
    "JSON, every character escaped": escaped,
    "JSON in JSON": lambda text: in_json(in_json(text)),
    "JSON in JSON, escaped": lambda text: in_json(escaped(text)),
    "JSON in JSON in JSON": lambda text: in_json(in_json(in_json(text).replace("/", "\\/"))),
    "a query": lambda text: quote(text, safe=""),
    "a query in a query": lambda text: quote(quote(text, safe=""), safe=""),
    "percent": percent,
    "percent, in capitals": lambda text: percent(text).upper(),
    "percent twice": lambda text: quote(percent(text)),
    "percent three times": lambda text: quote(quote(percent(text))),
    "JSON in a query": lambda text: quote(in_json(text).replace("/", "\\/"), safe=""),
    "a query, escaped as JSON": lambda text: escaped(quote(text, safe="")),
    "UTF-16": lambda text: in_json("\0".join(text)).replace("\\u0000", "\0"),
    **{f"base64 at {offset}": base64_at(offset) for offset in range(4)},
    **{f"base64 for URLs at {offset}": base64_at(offset, urlsafe=True) for offset in range(4)},
    "base64 in a query": lambda text: quote(base64_at(1)(text), safe=""),
    "base64, as PHP writes it": lambda text: base64_at(2)(text).replace("/", "\\/"),
}


@pytest.mark.parametrize("secret", [TOKEN, KEY, URL], ids=["token", "key", "URL"])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_secret_is_overwritten_however_it_is_spelt(spelling: Spelling, secret: str) -> None:
    body = f'{{"a": "before {spelling(secret)} after", "b": [1, 2]}}'

    redacted = REDACTOR.redact_text(body)

    assert MASK in redacted
    assert not [reading for reading in readings(redacted) if TOKEN in reading or KEY in reading]
    if "\0" not in body:
        # The result is JSON, and everything else in it is unchanged.
        found = json.loads(redacted)
        assert found["b"] == [1, 2]
        assert found["a"].startswith("before ")
        assert found["a"].endswith(" after")


def test_the_check_finds_a_secret_in_each_of_these_spellings() -> None:
    """Otherwise the test above could not fail."""
    for name, spelling in SPELLINGS.items():
        for secret in (TOKEN, KEY):
            assert any(secret in reading for reading in readings(spelling(secret))), name


@given(st.lists(st.sampled_from([*SPELLINGS.values(), in_json]), max_size=6), st.text(max_size=8))
def test_several_secrets_in_one_text_are_overwritten(spellings: list[Spelling], between: str) -> None:
    parts = [spelling(secret) for spelling in spellings for secret in (TOKEN, KEY)]

    redacted = REDACTOR.redact_text(f"{between} ".join(parts))

    assert not [reading for reading in readings(redacted) if TOKEN in reading or KEY in reading]


@given(st.binary(max_size=300))
def test_other_content_is_unchanged(content: bytes) -> None:
    assert REDACTOR.redact(content) == content


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([TOKEN, URL, KEY]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    st.booleans(),
)
def test_json_stays_json(value: Any, ensure_ascii: bool) -> None:
    for text in (json.dumps(value, ensure_ascii=ensure_ascii), json.dumps(json.dumps(value))):
        json.loads(REDACTOR.redact_text(text))


@pytest.mark.parametrize("text", ["\ud800 \\u00e9 %E9 \x00 \\\\", "100 % of it", "%%41%zz\\u00zz", "\\", "%", ""])
def test_text_with_incomplete_escapes_is_unchanged(text: str) -> None:
    assert REDACTOR.redact_text(text) == text


@pytest.mark.parametrize(
    "url",
    [
        f"https://x.example/prod/callbacks/acedata/{'A' * 48}",
        f"callbacks\\/nanobanana\\/{'A-_' * 16}",
        f"x%2Fcallbacks%2fflux-kontext%2F{'A' * 32}",
        f"x%252Fcallbacks%252fflux-kontext%252F{'A' * 32}",
    ],
)
def test_the_token_in_any_callback_url_is_overwritten(url: str) -> None:
    redacted = Redactor().redact_text(url)

    assert "AAA" not in redacted
    assert "A-_" not in redacted
    assert "callbacks" in redacted
    assert redacted.endswith(MASK)


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example/callbacks/0123456789abcdef0123456789abcdef.png",
        "https://cdn.example/callbacks/another/0123456789abcdef0123456789abcdef.png",
        "https://cdn.example/callbacks/acedata/0123456789abcdef.png",
    ],
)
def test_other_urls_are_unchanged(url: str) -> None:
    assert Redactor().redact_text(url) == url


def test_words_and_numbers_are_not_treated_as_secrets() -> None:
    """A test key such as a plain word must not make a callback unreadable."""
    body = json.dumps({"code": 200, "seed": 1234567890, "msg": "success"})

    assert Redactor(["", "200", "success", "1234567890"]).redact_text(body) == body


@pytest.mark.parametrize(
    "content",
    [b"\\", b"\0", b"%25", b"%2", b"\\u00", b"\\u005c", b"callbacks/", b"callbacks/acedata/A", TOKEN[:-1].encode()],
    ids=repr,
)
def test_the_time_is_linear_in_the_length_of_the_content(content: bytes) -> None:
    """A quadratic search would take minutes for one of these."""
    started_at = time.process_time()

    REDACTOR.redact(content * (1_000_000 // len(content)))

    assert time.process_time() - started_at < 20


def test_many_secrets_are_overwritten_in_limited_time() -> None:
    content = (escaped(TOKEN) + percent(TOKEN)).encode() * 3000
    started_at = time.process_time()

    redacted = REDACTOR.redact(content)

    assert redacted == MASK.encode() * 6000
    assert time.process_time() - started_at < 30


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ('{"flux-kontext": {"apiKey": "a", "webhookKey": " b\\n"}, "x": [["c"], 1, null]}', {"a", "b", "c"}),
        ("just a key\n", {"just a key"}),
        ('"quoted"', {"quoted"}),
        ("{}", set()),
        ("[" * 100_000, {"[" * 100_000}),
    ],
)
def test_every_string_in_a_secret_value_is_a_secret(value: str, secrets: set[str]) -> None:
    assert set(secrets_in(value)) == secrets


def test_callback_urls_of_every_provider_are_recognized() -> None:
    for provider in PROVIDERS:
        assert Redactor().redact_text(f"callbacks/{provider}/{TOKEN}") == f"callbacks/{provider}/{MASK}"
