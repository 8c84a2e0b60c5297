"""Defines callbacks of attackers, broken proxies and unusual clients, with the required responses."""

import base64
import gzip
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.canary_secrets import CALLBACK_TOKEN as TOKEN
from tests.canary_secrets import OTHER_TOKEN, SIGNATURE, canary

# The documented test vector, and the time at which all callbacks arrive.
KEY, TASK_ID, NOW = "k3y", "task12345", 1_700_000_000

PREVIOUS_TOKEN = canary("previous token", "previousCallbackToken0123456789abcdefghijklmnopq")
OLD_TOKEN = canary("old token", "oldCallbackToken0123456789abcdefghijklmnopqrstuv")

SIGNED: tuple[tuple[str, str], ...] = (("x-webhook-timestamp", str(NOW)), ("x-webhook-signature", SIGNATURE))
JSON_TYPE = ("content-type", "application/json")
MAX_BODY_BYTES = 65_536

ARABIC_DIGITS = {ord("0") + digit: 0x0660 + digit for digit in range(10)}

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Hostile:
    """One request and its required response."""

    status: int
    path: str = f"/callbacks/flux-kontext/{TOKEN}"
    headers: Headers = (JSON_TYPE,)
    body: bytes = b""
    keys: str = "none"  # the webhook keys in the secret, see KEYS
    method: str = "POST"

    @property
    def error(self) -> str | None:
        """The error code in the response; None for a success and for a response of API Gateway itself."""
        if self.status == 404 and not self.is_routed:
            return None
        return ERRORS[self.status]

    @property
    def is_routed(self) -> bool:
        """Whether the request reaches the function."""
        return self.method == "POST" and len(self.path.removeprefix("/callbacks/").partition("/")[2]) > 0


ERRORS = {
    200: None,
    400: "malformed_body",
    401: "unauthorized",
    404: "unknown_provider",
    413: "payload_too_large",
    422: "invalid_callback",
}
# The provider keys secret: its previous and its current version.
KEYS: dict[str, tuple[Any, Any]] = {
    "none": ({}, {}),
    "one": ({}, {"flux-kontext": {"webhookKey": KEY}}),
    "rotating, signed with the previous": (
        {"flux-kontext": {"webhookKey": KEY}},
        {"flux-kontext": {"webhookKey": "new"}},
    ),
    "rotating, signed with the new": ({"flux-kontext": {"webhookKey": "old"}}, {"flux-kontext": {"webhookKey": KEY}}),
    "another": ({}, {"flux-kontext": {"webhookKey": "another"}}),
    "empty": ({}, {"flux-kontext": {"webhookKey": ""}}),
    "empty, one before": ({"flux-kontext": {"webhookKey": KEY}}, {"flux-kontext": {"webhookKey": ""}}),
    "of another provider": ({}, {"nanobanana": {"webhookKey": KEY}}),
    "null": ({}, {"flux-kontext": {"webhookKey": None}}),
}


def success(**changes: Any) -> dict[str, Any]:
    url = "https://tempfile.aiquickdraw.com/r/1.jpg"
    return {"code": 200, "msg": "done", "data": {"taskId": TASK_ID, "info": {"resultImageUrl": url}}} | changes


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


def with_id(task_id: Any) -> bytes:
    return encoded({"code": 501, "msg": "failed", "data": {"taskId": task_id}})


def with_code(text: str) -> bytes:
    return b'{"code": %s, "data": {"taskId": "task12345"}}' % text.encode()


def with_url(url: Any) -> bytes:
    return encoded({"code": 200, "data": {"taskId": TASK_ID, "info": {"resultImageUrl": url}}})


def at(token: str, provider: str = "flux-kontext") -> str:
    return f"/callbacks/{provider}/{token}"


def sign(key: str, task_id: str = TASK_ID, timestamp: str = str(NOW)) -> str:
    digest = hmac.new(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return canary("webhook signature", base64.b64encode(digest).decode())


def signed(
    timestamp: str = str(NOW), signature: str | None = None, *, task_id: str = TASK_ID, key: str = KEY
) -> Headers:
    return (
        JSON_TYPE,
        ("X-Webhook-Timestamp", timestamp),
        ("X-Webhook-Signature", sign(key, task_id, timestamp) if signature is None else signature),
    )


def padded(length: int) -> bytes:
    body = encoded(success())
    return body + b" " * (length - len(body))


SUCCESS = encoded(success())
FULL_WIDTH = "".join(chr(ord(character) + 0xFEE0) for character in TOKEN)

TOKENS = {
    "the token": Hostile(200, body=SUCCESS),
    "another of the same length": Hostile(401, at(OTHER_TOKEN), body=SUCCESS),
    "the token without its last character": Hostile(401, at(TOKEN[:-1]), body=SUCCESS),
    "the token and one character more": Hostile(401, at(f"{TOKEN}x"), body=SUCCESS),
    "the token with one character changed": Hostile(401, at(f"{TOKEN[:-1]}x"), body=SUCCESS),
    "the token in capitals": Hostile(401, at(TOKEN.upper()), body=SUCCESS),
    "the token twice": Hostile(401, at(TOKEN * 2), body=SUCCESS),
    "the token twice with a slash": Hostile(401, at(f"{TOKEN}/{TOKEN}"), body=SUCCESS),
    "one character": Hostile(401, at("x"), body=SUCCESS),
    "8,000 characters": Hostile(401, at("x" * 8000), body=SUCCESS),
    "no token": Hostile(404, "/callbacks/flux-kontext/", body=SUCCESS),
    "no token and no slash": Hostile(404, "/callbacks/flux-kontext", body=SUCCESS),
    "only a slash for a token": Hostile(401, at("/"), body=SUCCESS),
    "a slash after it": Hostile(200, at(f"{TOKEN}/"), body=SUCCESS),
    "an encoded slash after it": Hostile(200, at(f"{TOKEN}%2F"), body=SUCCESS),
    "a slash encoded twice after it": Hostile(401, at(f"{TOKEN}%252F"), body=SUCCESS),
    "two slashes after it": Hostile(401, at(f"{TOKEN}//"), body=SUCCESS),
    "a slash before it": Hostile(401, at(f"/{TOKEN}"), body=SUCCESS),
    "a path through another": Hostile(401, at(f"x/../{TOKEN}"), body=SUCCESS),
    "percent-encoded": Hostile(200, at("".join(f"%{ord(character):02X}" for character in TOKEN)), body=SUCCESS),
    "percent-encoded twice": Hostile(401, at(quote("".join(f"%{ord(c):02X}" for c in TOKEN))), body=SUCCESS),
    "a line break after it": Hostile(401, at(f"{TOKEN}%0A"), body=SUCCESS),
    "a NUL after it": Hostile(401, at(f"{TOKEN}%00"), body=SUCCESS),
    "a blank after it": Hostile(401, at(f"{TOKEN}%20"), body=SUCCESS),
    "a semicolon after it": Hostile(401, at(f"{TOKEN};x=1"), body=SUCCESS),
    "not ASCII": Hostile(401, at(quote("é" * 48)), body=SUCCESS),
    "not UTF-8": Hostile(401, at("%FF" * 48), body=SUCCESS),
    "with a Cyrillic a": Hostile(401, at(quote(TOKEN.replace("a", "а"))), body=SUCCESS),  # noqa: RUF001
    "in full-width characters": Hostile(401, at(quote(FULL_WIDTH)), body=SUCCESS),
    "with digits of another script": Hostile(401, at(quote(TOKEN.translate(ARABIC_DIGITS))), body=SUCCESS),
    "with an invisible character": Hostile(401, at(quote(f"{TOKEN[:9]}\u200b{TOKEN[9:]}")), body=SUCCESS),
    "a pattern": Hostile(401, at(quote("[A-Za-z0-9]{48}")), body=SUCCESS),
    "a placeholder": Hostile(401, at("%7Btoken%7D"), body=SUCCESS),
    "null": Hostile(401, at("null"), body=SUCCESS),
    "in the query": Hostile(401, f"{at('x' * 48)}?token={TOKEN}", body=SUCCESS),
    "in a header": Hostile(401, at("x" * 48), (JSON_TYPE, ("Authorization", f"Bearer {TOKEN}")), SUCCESS),
    "in the provider's place": Hostile(401, f"/callbacks/{TOKEN}/flux-kontext", body=SUCCESS),
    "with a query": Hostile(200, f"{at(TOKEN)}?debug=1&token=x", body=SUCCESS),
    "the previous one during rotation": Hostile(200, at(PREVIOUS_TOKEN), body=SUCCESS),
    "the one before the previous": Hostile(401, at(OLD_TOKEN), body=SUCCESS),
    "wrong, with a body that is not JSON": Hostile(401, at(OTHER_TOKEN), body=b"{"),
    "wrong, with a valid signature": Hostile(401, at(OTHER_TOKEN), signed(), SUCCESS, keys="one"),
    "wrong, of an unknown provider": Hostile(401, at(OTHER_TOKEN, "midjourney"), body=SUCCESS),
    "an unknown provider": Hostile(404, at(TOKEN, "midjourney"), body=SUCCESS),
    "a provider in capitals": Hostile(404, at(TOKEN, "FLUX-KONTEXT"), body=SUCCESS),
    "a provider with a blank": Hostile(404, at(TOKEN, "flux-kontext%20"), body=SUCCESS),
    "a provider of 4,000 characters": Hostile(404, at(TOKEN, "x" * 4000), body=SUCCESS),
    "a provider that is not UTF-8": Hostile(404, at(TOKEN, "%FF%FE"), body=SUCCESS),
    "a provider that is a method": Hostile(404, at(TOKEN, "__class__"), body=SUCCESS),
    "a provider that is a path": Hostile(401, at(TOKEN, "..%2F.."), body=SUCCESS),
    "a provider percent-encoded": Hostile(200, at(TOKEN, "flux%2Dkontext"), body=SUCCESS),
    "PUT": Hostile(404, body=SUCCESS, method="PUT"),
}

SIGNATURES = {
    "the documented vector": Hostile(200, headers=(JSON_TYPE, *SIGNED), body=SUCCESS, keys="one"),
    "header names in capitals": Hostile(
        200, headers=tuple((name.upper(), value) for name, value in SIGNED), body=SUCCESS, keys="one"
    ),
    "the previous key": Hostile(200, headers=signed(), body=SUCCESS, keys="rotating, signed with the previous"),
    "the new key": Hostile(200, headers=signed(), body=SUCCESS, keys="rotating, signed with the new"),
    "300 s old": Hostile(200, headers=signed(str(NOW - 300)), body=SUCCESS, keys="one"),
    "301 s old": Hostile(401, headers=signed(str(NOW - 301)), body=SUCCESS, keys="one"),
    "300 s ahead": Hostile(200, headers=signed(str(NOW + 300)), body=SUCCESS, keys="one"),
    "301 s ahead": Hostile(401, headers=signed(str(NOW + 301)), body=SUCCESS, keys="one"),
    "a day old": Hostile(401, headers=signed(str(NOW - 86_400)), body=SUCCESS, keys="one"),
    "no signature": Hostile(401, headers=(JSON_TYPE,), body=SUCCESS, keys="one"),
    "no timestamp": Hostile(401, headers=(JSON_TYPE, SIGNED[1]), body=SUCCESS, keys="one"),
    "a timestamp only": Hostile(401, headers=(JSON_TYPE, SIGNED[0]), body=SUCCESS, keys="one"),
    "of another task": Hostile(401, headers=signed(task_id="task12346"), body=SUCCESS, keys="one"),
    "of this task, with another id in the body": Hostile(
        401, headers=signed(), body=encoded({"code": 501, "data": {"taskId": "task12346"}}), keys="one"
    ),
    "of this task, with both ids in the body": Hostile(
        422,
        headers=signed(),
        body=encoded({"code": 501, "taskId": TASK_ID, "data": {"taskId": "task12346"}}),
        keys="one",
    ),
    "a timestamp that was not signed": Hostile(401, headers=signed(str(NOW + 1), SIGNATURE), body=SUCCESS, keys="one"),
    "with another key": Hostile(401, headers=signed(key="other"), body=SUCCESS, keys="one"),
    "no signature, with a key of another provider": Hostile(200, body=SUCCESS, keys="of another provider"),
    "without a configured key": Hostile(200, headers=signed(key="any"), body=SUCCESS),
    "no signature, while the configured key is null": Hostile(200, body=SUCCESS, keys="null"),
    "with the empty key, which is configured": Hostile(401, headers=signed(key=""), body=SUCCESS, keys="empty"),
    "with a key, while the configured key is empty": Hostile(401, headers=signed(), body=SUCCESS, keys="empty"),
    "no signature, while the configured key is empty": Hostile(401, body=SUCCESS, keys="empty"),
    "with the previous key, the new one empty": Hostile(200, headers=signed(), body=SUCCESS, keys="empty, one before"),
    "with the empty key, the new one empty": Hostile(
        401, headers=signed(key=""), body=SUCCESS, keys="empty, one before"
    ),
    "no signature, while a key is configured": Hostile(401, headers=signed(), body=SUCCESS, keys="another"),
    "twice": Hostile(401, headers=(*signed(), SIGNED[1]), body=SUCCESS, keys="one"),
    "the timestamp twice": Hostile(401, headers=(*signed(), SIGNED[0]), body=SUCCESS, keys="one"),
    "both twice": Hostile(401, headers=(*signed(), *SIGNED), body=SUCCESS, keys="one"),
    "another before it": Hostile(
        401, headers=(("x-webhook-signature", sign("other")), *signed()), body=SUCCESS, keys="one"
    ),
    "a blank before it": Hostile(401, headers=signed(signature=f" {SIGNATURE}"), body=SUCCESS, keys="one"),
    "a line break after it": Hostile(401, headers=signed(signature=f"{SIGNATURE}\n"), body=SUCCESS, keys="one"),
    "without padding": Hostile(401, headers=signed(signature=SIGNATURE.rstrip("=")), body=SUCCESS, keys="one"),
    "with more padding": Hostile(401, headers=signed(signature=f"{SIGNATURE}="), body=SUCCESS, keys="one"),
    "in the URL-safe alphabet": Hostile(
        401, headers=signed(signature=SIGNATURE.replace("+", "-")), body=SUCCESS, keys="one"
    ),
    "the same bytes in another base64 encoding": Hostile(
        401, headers=signed(signature=f"{SIGNATURE[:-2]}J="), body=SUCCESS, keys="one"
    ),
    "in hex": Hostile(401, headers=signed(signature=base64.b64decode(SIGNATURE).hex()), body=SUCCESS, keys="one"),
    "in small letters": Hostile(401, headers=signed(signature=SIGNATURE.lower()), body=SUCCESS, keys="one"),
    "with a scheme": Hostile(401, headers=signed(signature=f"sha256={SIGNATURE}"), body=SUCCESS, keys="one"),
    "empty": Hostile(401, headers=signed(signature=""), body=SUCCESS, keys="one"),
    "that is not ASCII": Hostile(401, headers=signed(signature="é" * 43 + "="), body=SUCCESS, keys="one"),
    "of 100,000 characters": Hostile(401, headers=signed(signature="A" * 100_000), body=SUCCESS, keys="one"),
    "an empty timestamp": Hostile(401, headers=signed(""), body=SUCCESS, keys="one"),
    "digits of another script": Hostile(
        401, headers=signed(str(NOW).translate(ARABIC_DIGITS)), body=SUCCESS, keys="one"
    ),
    "full-width digits": Hostile(401, headers=signed("１７００００００００"), body=SUCCESS, keys="one"),  # noqa: RUF001
    "milliseconds": Hostile(401, headers=signed(f"{NOW}000"), body=SUCCESS, keys="one"),
    "a float": Hostile(401, headers=signed(f"{NOW}.0"), body=SUCCESS, keys="one"),
    "a sign": Hostile(401, headers=signed(f"+{NOW}"), body=SUCCESS, keys="one"),
    "a negative time": Hostile(401, headers=signed(f"-{NOW}"), body=SUCCESS, keys="one"),
    "an underscore": Hostile(401, headers=signed("1_700_000_0"), body=SUCCESS, keys="one"),
    "an exponent": Hostile(401, headers=signed("1.7e9"), body=SUCCESS, keys="one"),
    "a time of 5,000 digits": Hostile(401, headers=signed("1" * 5000), body=SUCCESS, keys="one"),
    "the year 2286": Hostile(401, headers=signed("9999999999"), body=SUCCESS, keys="one"),
    "the year 1970": Hostile(401, headers=signed("0000000000"), body=SUCCESS, keys="one"),
    "a body that cannot be read": Hostile(400, headers=signed(), body=b"{", keys="one"),
}

BODIES = {
    "none": Hostile(400),
    "blank": Hostile(400, body=b" \n"),
    "one byte": Hostile(400, body=b"\x00"),
    "cut off": Hostile(400, body=SUCCESS[:-1]),
    "two of them": Hostile(400, body=SUCCESS + SUCCESS),
    "one per line": Hostile(400, body=SUCCESS + b"\n" + SUCCESS),
    "a NUL after it": Hostile(400, body=SUCCESS + b"\0"),
    "NULs between": Hostile(400, body=b"\0".join(bytes([byte]) for byte in SUCCESS)),
    "two byte order marks": Hostile(400, body=b"\xef\xbb\xbf" * 2 + SUCCESS),
    "UTF-16": Hostile(400, body=SUCCESS.decode().encode("utf-16")),
    "UTF-16 without a mark": Hostile(400, body=SUCCESS.decode().encode("utf-16-le")),
    "UTF-32": Hostile(400, body=SUCCESS.decode().encode("utf-32")),
    "Latin-1": Hostile(400, body='{"msg": "é"}'.encode("latin-1")),
    "overlong UTF-8": Hostile(400, body=b'{"msg": "\xc0\xaf"}'),
    "a surrogate as UTF-8": Hostile(400, body=b'{"msg": "\xed\xa0\x80"}'),
    "a character cut in two": Hostile(400, body=b'{"msg": "\xe2\x82'),
    "compressed": Hostile(400, headers=(JSON_TYPE, ("content-encoding", "gzip")), body=gzip.compress(SUCCESS, mtime=0)),
    "base64 of base64": Hostile(400, headers=(), body=base64.b64encode(SUCCESS)),
    "a form": Hostile(
        400,
        headers=(("content-type", "application/x-www-form-urlencoded"),),
        body=b"code=200&taskId=task12345",
    ),
    "JSON in a form": Hostile(
        400, headers=(("content-type", "application/x-www-form-urlencoded"),), body=b"payload=" + SUCCESS
    ),
    "multipart": Hostile(
        400,
        headers=(("content-type", "multipart/form-data; boundary=x"),),
        body=b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n' + SUCCESS + b"\r\n--x--\r\n",
    ),
    "XML": Hostile(400, body=b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'),
    "YAML": Hostile(400, body=b"code: 200\ndata: {taskId: task12345}"),
    "a pickle": Hostile(400, body=b"cos\nsystem\n(S'true'\ntR."),
    "NaN": Hostile(400, body=with_code("NaN")),
    "Infinity": Hostile(400, body=with_code("-Infinity")),
    "a comment": Hostile(400, body=SUCCESS[:-1] + b"/* */}"),
    "single quotes": Hostile(400, body=SUCCESS.replace(b'"', b"'")),
    "a trailing comma": Hostile(400, body=SUCCESS[:-1] + b",}"),
    "a leading zero": Hostile(400, body=with_code("0200")),
    "a hex number": Hostile(400, body=with_code("0xC8")),
    "a raw line break": Hostile(400, body=b'{"msg": "a\nb"}'),
    "a key twice": Hostile(400, body=b'{"code": 501, "code": 200, "taskId": "task12345"}'),
    "an id twice": Hostile(400, body=b'{"code": 501, "taskId": "task12345", "taskId": "task12346"}'),
    "a key twice, spelt differently": Hostile(400, body=rb'{"code": 501, "taskId": "a", "t\u0061skId": "b"}'),
    "a key twice, in a part that is ignored": Hostile(
        400, body=b'{"code": 501, "taskId": "a", "x": [{"y": 1, "y": 1}]}'
    ),
    "65,536 opening brackets": Hostile(400, body=b"[" * MAX_BODY_BYTES),
    "100,000 opening brackets": Hostile(413, body=b"[" * 100_000),
    "30,000 brackets": Hostile(400, body=b"[" * 30_000 + b"]" * 30_000),
    "10,000 braces": Hostile(400, body=b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "30,000 brackets beside a report": Hostile(
        400, body=SUCCESS[:-1] + b', "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    ),
    "an integer of 5,000 digits": Hostile(400, body=with_code("9" * 5000)),
    "as long as allowed": Hostile(200, body=padded(MAX_BODY_BYTES)),
    "a byte longer": Hostile(413, body=padded(MAX_BODY_BYTES + 1)),
    "a byte longer, as bytes": Hostile(413, headers=(), body=padded(MAX_BODY_BYTES + 1)),
    "wide characters, too long": Hostile(413, body=b'"' + "é".encode() * (MAX_BODY_BYTES // 2) + b'"'),
    "a megabyte without the token": Hostile(413, at(OTHER_TOKEN), body=b" " * 1_000_000),
    "null": Hostile(422, body=b"null"),
    "true": Hostile(422, body=b"true"),
    "a number": Hostile(422, body=b"200"),
    "a float beyond floats": Hostile(422, body=b"1e999"),
    "a string": Hostile(422, body=encoded(SUCCESS.decode())),
    "a list": Hostile(422, body=b"[" + SUCCESS + b"]"),
    "10,000 nulls": Hostile(422, body=b"[" + b",".join([b"null"] * 10_000) + b"]"),
    "an empty object": Hostile(422, body=b"{}"),
    "5,000 keys": Hostile(422, body=encoded({f"k{number}": 1 for number in range(5000)})),
    "data is a string": Hostile(422, body=encoded(success(data="task12345"))),
    "data is a list": Hostile(422, body=encoded(success(data=[{"taskId": TASK_ID}]))),
    "keys in other letters": Hostile(422, body=encoded({"Code": 501, "TaskId": TASK_ID})),
    "no code": Hostile(422, body=encoded({"taskId": TASK_ID})),
    "code is true": Hostile(422, body=with_code("true")),
    "code is a float": Hostile(422, body=with_code("200.0")),
    "code has an exponent": Hostile(422, body=with_code("2e2")),
    "code is a list": Hostile(422, body=with_code("[200]")),
    "code is in full-width digits": Hostile(422, body=with_code('"２００"')),  # noqa: RUF001
    "code has 4,000 digits": Hostile(422, body=with_code("9" * 4000)),
    "code is an unknown number": Hostile(200, body=with_code("-1")),
    "a success without a URL": Hostile(200, body=with_code("200")),
    "successFlag is a word": Hostile(422, body=encoded({"data": {"taskId": TASK_ID, "successFlag": "yes"}})),
    "an Ace Data success that is a string": Hostile(
        422, at(TOKEN, "acedata"), body=encoded({"task_id": TASK_ID, "success": "true", "data": []})
    ),
    "an Ace Data body with 33 images": Hostile(
        422,
        at(TOKEN, "acedata"),
        body=encoded({"task_id": TASK_ID, "success": True, "data": [{"image_url": "https://h.example/a"}] * 33}),
    ),
    "text/html that is JSON": Hostile(200, headers=(("content-type", "text/html"),), body=SUCCESS),
    "no content type": Hostile(200, headers=(), body=SUCCESS),
    "a wrong content type": Hostile(200, headers=(("content-type", "image/png"),), body=SUCCESS),
}

CONTENTS = {
    "an id of a path": Hostile(422, body=with_id("../../../etc/passwd")),
    "an id with an encoded path": Hostile(422, body=with_id("..%2f..%2fsecret")),
    "an id with a slash": Hostile(422, body=with_id("images/x")),
    "an id with a #": Hostile(422, body=with_id("a#b")),
    "an id with a NUL": Hostile(422, body=with_id("task12345\0")),
    "an id with a line break": Hostile(422, body=with_id("task12345\n")),
    "an id with a blank": Hostile(422, body=with_id(" task12345")),
    "an id of wide letters": Hostile(422, body=with_id("ｔａｓｋ")),  # noqa: RUF001
    "an id of other digits": Hostile(422, body=with_id("١٢٣")),
    "an id of half a surrogate pair": Hostile(422, body=with_id("\ud800")),
    "an id of a query": Hostile(422, body=with_id("' OR 1=1 --")),
    "an id of a template": Hostile(422, body=with_id("${jndi:ldap://x}")),
    "an empty id": Hostile(422, body=with_id("")),
    "an id of 129 characters": Hostile(422, body=with_id("x" * 129)),
    "an id of 128 characters": Hostile(200, body=with_id("x" * 128)),
    "an id that is a number": Hostile(422, body=with_id(12345)),
    "an id that is true": Hostile(422, body=with_id(True)),
    "an id that is a list": Hostile(422, body=with_id(["task12345"])),
    "an id that is an object": Hostile(422, body=with_id({"$ne": None})),
    "an id that is null": Hostile(422, body=with_id(None)),
    "an id of a method": Hostile(200, body=with_id("__proto__")),
    "two ids": Hostile(422, body=encoded({"code": 501, "taskId": "a", "data": {"taskId": "b"}})),
    "two ids in one object": Hostile(422, body=encoded({"code": 501, "data": {"taskId": "a", "task_id": "b"}})),
    "an id and a number": Hostile(422, body=encoded({"code": 501, "taskId": "1", "data": {"taskId": 1}})),
    "the same id four times": Hostile(
        200,
        body=encoded(
            {"code": 501, "taskId": "a", "task_id": "a", "data": {"taskId": "a", "task_id": "a"}},
        ),
    ),
    "a __proto__": Hostile(200, body=SUCCESS[:-1] + b', "__proto__": {"code": 501}}'),
    "names of Catchlight's own attributes": Hostile(
        200, body=encoded(success(status="ARCHIVED", rank=50, confirmedAt="now"))
    ),
    "a script for a URL": Hostile(422, body=with_url("javascript:alert(1)")),
    "data for a URL": Hostile(422, body=with_url("data:image/png;base64,AAAA")),
    "a file for a URL": Hostile(422, body=with_url("file:///etc/passwd")),
    "gopher for a URL": Hostile(422, body=with_url("gopher://127.0.0.1:6379/_x")),
    "a URL without a scheme": Hostile(422, body=with_url("//169.254.169.254/latest")),
    "a URL with a line break": Hostile(422, body=with_url("https://h.example/a\r\nHost: b")),
    "a URL with half a surrogate pair": Hostile(422, body=with_url("https://h.example/\udfff")),
    "a URL of 8,193 characters": Hostile(422, body=with_url("https://h.example/".ljust(8193, "x"))),
    "a URL of 8,192 characters with one more byte": Hostile(
        422, body=with_url("https://h.example/\xe4".ljust(8190, "x"))
    ),
    "a URL that is a list": Hostile(422, body=with_url(["https://h.example/a"])),
    "a URL that is an object": Hostile(422, body=with_url({"url": "https://h.example/a"})),
    # Stored as an unconfirmed report: the downloader decides which URLs may be fetched, see the corpus of URLs.
    "a URL of a private address": Hostile(200, body=with_url("http://169.254.169.254/latest/meta-data/")),
    "half a surrogate pair in the message": Hostile(
        200, body=encoded({"code": 501, "msg": "\ud800", "data": {"taskId": TASK_ID}})
    ),
    "a NUL in the message": Hostile(200, body=encoded({"code": 501, "msg": "a\0b", "data": {"taskId": TASK_ID}})),
    "a log line in the message": Hostile(
        200, body=encoded({"code": 501, "msg": '\n{"level":"ERROR"}\u2028\u202e', "data": {"taskId": TASK_ID}})
    ),
    "a message of 60,000 characters": Hostile(
        200, body=encoded({"code": 501, "msg": "x" * 60_000, "data": {"taskId": TASK_ID}})
    ),
    "half a surrogate pair for a key": Hostile(200, body=encoded(success(**{"\ud800": 1}))),
}

HOSTILE = {
    f"{kind}: {name}": hostile
    for kind, table in (("token", TOKENS), ("signature", SIGNATURES), ("body", BODIES), ("content", CONTENTS))
    for name, hostile in table.items()
}
