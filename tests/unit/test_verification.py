"""Tokens, signatures and JSON from unknown senders: invalid input raises UnauthorizedError or MalformedBodyError."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catchlight.aws.secrets import verify_token
from catchlight.errors import InvalidCallbackError, MalformedBodyError, UnauthorizedError
from catchlight.models import TaskReport
from catchlight.providers import PROVIDERS
from catchlight.providers.kie import verify_signature
from catchlight.providers.payloads import decode_json
from tests.canary_secrets import CALLBACK_TOKEN as TOKEN
from tests.canary_secrets import OTHER_TOKEN

NOW = datetime.fromtimestamp(1_700_000_000, UTC)

# The headers of kie.ai's signature scheme for key "k3y", task "task12345" and this time.
SIGNED = {
    "x-webhook-timestamp": "1700000000",
    "x-webhook-signature": "LWjZ5r+BmSIrvPfebGqC4HGPtU78hS6GFEeNMwBbzRI=",
}


# ------------------------------------------------------------------------------------------------ the token


@pytest.mark.parametrize("valid_tokens", [[TOKEN], [OTHER_TOKEN, TOKEN], [TOKEN, OTHER_TOKEN]])
def test_every_valid_token_is_accepted(valid_tokens: list[str]) -> None:
    verify_token(TOKEN, valid_tokens)


@pytest.mark.parametrize(
    ("presented", "valid_tokens"),
    [
        (OTHER_TOKEN, [TOKEN]),
        (TOKEN, []),
        (TOKEN[:-1], [TOKEN]),
        (TOKEN + "x", [TOKEN]),
        (TOKEN.lower(), [TOKEN]),
        (TOKEN[:31], [TOKEN[:31]]),  # a token this short could be guessed, and is not accepted even if it is configured
        ("", [""]),
    ],
)
def test_any_other_token_is_refused(presented: str, valid_tokens: list[str]) -> None:
    with pytest.raises(UnauthorizedError) as refused:
        verify_token(presented, valid_tokens)

    assert TOKEN[:31] not in str(refused.value)


@pytest.mark.parametrize(
    "presented", ["", "x", "x" * 31, "x" * 129, f"{TOKEN}\n", f"{TOKEN}/", f"{TOKEN}é", f"{TOKEN}\udcff", "٣" * 48]
)
def test_for_a_malformed_token_no_secret_is_read(presented: str) -> None:
    def secrets() -> Iterator[str]:
        yield pytest.fail("a secret was read")

    with pytest.raises(UnauthorizedError):
        verify_token(presented, secrets())


def test_a_secret_with_non_ascii_characters_accepts_no_token() -> None:
    with pytest.raises(UnauthorizedError):
        verify_token(TOKEN, ["é" * 48])


# ------------------------------------------------------------------------------------------------ the signature


def sign(key: str, task_id: str = "task12345", timestamp: str = "1700000000") -> dict[str, str]:
    digest = hmac.new(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return {"x-webhook-timestamp": timestamp, "x-webhook-signature": base64.b64encode(digest).decode()}


def test_the_known_vector_is_accepted() -> None:
    verify_signature(SIGNED, "task12345", ["k3y"], now=NOW)


@pytest.mark.parametrize("keys", [["new", "k3y"], ["k3y", "old"], ["", "k3y"]])
def test_every_valid_key_is_accepted(keys: list[str]) -> None:
    verify_signature(SIGNED, "task12345", keys, now=NOW)


def test_a_key_of_non_ascii_characters_works() -> None:
    verify_signature(sign("schlüssel"), "task12345", ["schlüssel"], now=NOW)


@pytest.mark.parametrize("seconds", [-300, -299.5, 0, 299.5, 300])
def test_signatures_of_the_last_and_next_five_minutes_are_accepted(seconds: float) -> None:
    verify_signature(SIGNED, "task12345", ["k3y"], now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-86400, -301, -300.001, 300.001, 301, 86400])
def test_older_and_newer_signatures_are_refused(seconds: float) -> None:
    with pytest.raises(UnauthorizedError):
        verify_signature(SIGNED, "task12345", ["k3y"], now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("keys", [[], [""], ["", ""], ["other"], ["k3y "]])
def test_without_the_right_key_a_signature_is_refused(keys: list[str]) -> None:
    with pytest.raises(UnauthorizedError):
        verify_signature(SIGNED, "task12345", keys, now=NOW)


def test_a_signature_with_an_empty_key_is_refused() -> None:
    with pytest.raises(UnauthorizedError):
        verify_signature(sign(""), "task12345", [""], now=NOW)


def test_a_signature_is_valid_for_one_task_only() -> None:
    with pytest.raises(UnauthorizedError):
        verify_signature(SIGNED, "task12346", ["k3y"], now=NOW)


def test_a_signature_is_valid_for_one_timestamp_only() -> None:
    with pytest.raises(UnauthorizedError):
        verify_signature(SIGNED | {"x-webhook-timestamp": "1700000001"}, "task12345", ["k3y"], now=NOW)


SIGNATURE = SIGNED["x-webhook-signature"]


@pytest.mark.parametrize("name", SIGNED)
def test_a_missing_header_is_refused(name: str) -> None:
    with pytest.raises(UnauthorizedError):
        verify_signature({header: SIGNED[header] for header in SIGNED if header != name}, "task12345", ["k3y"], now=NOW)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        f"{SIGNATURE},{SIGNATURE}",
        f"{SIGNATURE}, {SIGNATURE}",
        f" {SIGNATURE}",
        f"{SIGNATURE}\n",
        SIGNATURE.removesuffix("="),
        SIGNATURE.replace("+", "-"),
        SIGNATURE[:-2] + "J=",  # the same bytes to a lenient decoder
        SIGNATURE[:-3] + "é==",
        "é" * 43 + "=",
        "\udcff" * 43 + "=",
        hmac.new(b"k3y", b"task12345.1700000000", hashlib.sha256).hexdigest(),
    ],
)
def test_a_malformed_signature_is_refused(signature: str) -> None:
    with pytest.raises(UnauthorizedError):
        verify_signature(SIGNED | {"x-webhook-signature": signature}, "task12345", ["k3y"], now=NOW)


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "1700000000,1700000000",
        "1700000000.0",
        "1700000000000",
        " 1700000000",
        "+1700000000",
        "1_700_000_000",
        "1700000000\n",
        "-700000000",
        "1e9",
        "nan",
        "٠١٢٣٤٥٦٧٨٩",
        "\udcff",
    ],
)
def test_a_malformed_timestamp_is_refused_even_if_it_is_signed(timestamp: str) -> None:
    digest = hmac.new(b"k3y", f"task12345.{timestamp}".encode(errors="replace"), hashlib.sha256).digest()
    headers = {"x-webhook-timestamp": timestamp, "x-webhook-signature": base64.b64encode(digest).decode()}

    with pytest.raises(UnauthorizedError):
        verify_signature(headers, "task12345", ["k3y"], now=NOW)


# ------------------------------------------------------------------------------------------------ JSON


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"code": 200, "data": null}', {"code": 200, "data": None}),
        ('{"msg": "完成 ✓ 😀"}'.encode(), {"msg": "完成 ✓ 😀"}),
        (rb'{"msg": "\ud83d\ude00"}', {"msg": "😀"}),
        (b" [1, -2.5, true] \r\n", [1, -2.5, True]),
        (b'{"a": {"x": 1}, "b": {"x": 1}}', {"a": {"x": 1}, "b": {"x": 1}}),
        (b'\xef\xbb\xbf{"code": 200}', {"code": 200}),
    ],
)
def test_json_is_read(body: bytes, value: Any) -> None:
    assert decode_json(body) == value


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b" ", "not JSON", id="blank"),
        pytest.param(b"{", "not JSON", id="cut off"),
        pytest.param(b'{"code": 200} x', "not JSON", id="trailing text"),
        pytest.param(b"{'code': 200}", "not JSON", id="single quotes"),
        pytest.param(b'{"code": 200,}', "not JSON", id="trailing comma"),
        pytest.param(b'{"msg": "a\nb"}', "not JSON", id="raw line break"),
        pytest.param(b"code=200&msg=done", "not JSON", id="form"),
        pytest.param(b"<html>", "not JSON", id="HTML"),
        pytest.param(b'\xef\xbb\xbf\xef\xbb\xbf{"code": 200}', "not JSON", id="two byte order marks"),
        pytest.param(b'{"code": \xef\xbb\xbf200}', "not JSON", id="byte order mark inside"),
        pytest.param(b'{"code": NaN}', "NaN", id="NaN"),
        pytest.param(b'{"code": -Infinity}', "NaN", id="Infinity"),
        pytest.param(b'{"taskId": "a", "taskId": "b"}', "twice", id="key twice"),
        pytest.param(rb'{"taskId": "a", "t\u0061skId": "b"}', "twice", id="key twice, once with an escape"),
        pytest.param(b'{"data": [{"x": {"a": 1, "a": 1}}]}', "twice", id="key twice, deep inside"),
        pytest.param(b'{"msg": "\xff"}', "UTF-8", id="no UTF-8"),
        pytest.param(b'{"msg": "\xed\xa0\x80"}', "UTF-8", id="surrogate as UTF-8"),
        pytest.param('{"code": 200}'.encode("utf-16"), "UTF-8", id="UTF-16"),
        pytest.param(b"[" * 500, "not JSON", id="unclosed brackets"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "nested", id="100,000 brackets"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested", id="100,000 braces"),
        pytest.param(b'{"code": ' + b"9" * 5000 + b"}", "number", id="number of 5,000 digits"),
    ],
)
def test_what_is_not_strict_json_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(MalformedBodyError, match=problem):
        decode_json(body)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"\x00")
@example(b"1e999")
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    try:
        value = decode_json(body)
    except MalformedBodyError:
        return
    assert value == json.loads(body.decode("utf-8-sig")) or value != value


# Keys that some provider's callback has.
KEYS = """code msg data taskId task_id info originImageUrl resultImageUrl successFlag response errorCode errorMessage
completeTime success error message image_url finished_at"""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[]), max_size=20)  # with lone surrogates
    | st.sampled_from(["https://host.example/a.png", "null", "200", "task12345", "1e400", "2026-01-06 24:00:00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS.split()),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("provider_id", PROVIDERS)
@given(body=json_values)
def test_any_json_is_a_report_or_refused_by_every_provider(provider_id: str, body: Any) -> None:
    decoded = decode_json(json.dumps(body).encode())
    try:
        report = PROVIDERS[provider_id].parse_callback(decoded, received_at=NOW)
    except InvalidCallbackError as refused:
        str(refused).encode()  # the text is part of the response
    else:
        assert_storable(report)


SURROGATES = [
    {"code": 501, "msg": "\ud800", "data": {"taskId": "task12345"}},
    {"code": 200, "data": {"taskId": "task12345", "info": {"resultImageUrl": "https://host.example/\udfff.png"}}},
    {"code": 200, "data": {"taskId": "task\ud800"}},
    {"data": {"taskId": "task12345", "successFlag": 3, "errorCode": "\ud800", "errorMessage": "\udfff"}},
    {"data": {"taskId": "task12345", "successFlag": 1, "response": "https://host.example/\ud800"}},
    {"data": {"taskId": "task12345", "successFlag": 1, "response": '{"resultImageUrl": "https://h.example/\ud800"}'}},
    {"data": {"taskId": "task12345", "successFlag": 1, "response": r'{"resultImageUrl": "https://h.example/\ud800"}'}},
    {"task_id": "task12345", "success": False, "error": {"code": "\ud800", "message": "\udfff"}},
    {"task_id": "task12345", "success": False, "error": "\ud800"},
    {"task_id": "task12345", "success": True, "data": [{"image_url": "https://host.example/\ud800.png"}]},
]


@pytest.mark.parametrize("provider_id", PROVIDERS)
@pytest.mark.parametrize("body", SURROGATES, ids=range(len(SURROGATES)))
def test_a_lone_surrogate_is_refused_or_replaced(provider_id: str, body: Any) -> None:
    decoded = decode_json(json.dumps(body).encode())
    try:
        report = PROVIDERS[provider_id].parse_callback(decoded, received_at=NOW)
    except InvalidCallbackError as refused:
        str(refused).encode()
    else:
        assert_storable(report)


@pytest.mark.parametrize("provider_id", PROVIDERS)
@pytest.mark.parametrize("depth", [100, 500, 900, 1500, 5000, 20_000])
@pytest.mark.parametrize(
    "body",
    [
        '{"code": 501, "data": {"taskId": "task12345"}, "more": %s}',
        '{"code": 200, "data": {"taskId": "task12345", "info": %s}}',
        '{"data": {"taskId": "task12345", "successFlag": 1, "response": "{\\"x\\": %s}"}}',
        '{"task_id": "task12345", "success": true, "data": %s}',
    ],
)
def test_deeply_nested_json_is_a_report_or_refused(provider_id: str, body: str, depth: int) -> None:
    try:
        decoded = decode_json((body % ("[" * depth + "]" * depth)).encode())
        report = PROVIDERS[provider_id].parse_callback(decoded, received_at=NOW)
    except (MalformedBodyError, InvalidCallbackError) as refused:
        str(refused).encode()
    else:
        assert_storable(report)


def assert_storable(report: TaskReport) -> None:
    """Checks that DynamoDB accepts the report's text, which must be valid UTF-8."""
    report.model_dump_json().encode()
