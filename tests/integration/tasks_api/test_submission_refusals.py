"""Submissions that fail for certain: no image is generated, and the idempotency key can be used again."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import httpx
import pytest

from tests.canary_secrets import API_KEYS, CALLBACK_TOKEN
from tests.integration.tasks_api.api_harness import ACCEPTED, CALLBACK_BASE_URL, TasksApiHarness, refusal

TASK = "flux-kontext#task12345"


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def connect_timeout(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("3 s", request=request)


CERTAIN_FAILURES: dict[str, tuple[Callable[[httpx.Request], httpx.Response], int, str]] = {
    "parameters": (refusal(200, {"code": 422, "msg": "prompt is required"}), 422, "request-refused"),
    "bad request": (refusal(400, {"code": 400, "msg": "?"}), 422, "request-refused"),
    "no such path": (refusal(404, None), 422, "request-refused"),
    "key": (refusal(401, {"code": 401}), 424, "account-refused"),
    "credits": (refusal(200, {"code": 402, "msg": "Insufficient Credits"}), 424, "account-refused"),
    "rate limit": (refusal(429, {"code": 429}), 429, "provider-busy"),
    "maintenance": (refusal(200, {"code": 455}), 429, "provider-busy"),
    "unreachable": (unreachable, 503, "provider-unavailable"),
    "no connection": (connect_timeout, 503, "provider-unavailable"),
}


@pytest.mark.parametrize("name", CERTAIN_FAILURES)
def test_a_refused_request_may_be_sent_again_with_the_same_key(api: TasksApiHarness, name: str) -> None:
    api.providers.respond, status, problem = CERTAIN_FAILURES[name]

    response = api.submit()

    assert (response.status, response.problem) == (status, problem)
    assert "Nothing was generated" in response.body["advice"]
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert api.tasks() == []
    api.providers.respond = refusal(200, ACCEPTED["flux-kontext"])
    # The key may also be used for another request: the first one generated nothing.
    assert api.submit(prompt="a lighthouse by day").status == 201
    assert len(api.providers.requests) == 2
    assert api.tasks() == [TASK]


def test_the_providers_reply_is_returned_unchanged(api: TasksApiHarness) -> None:
    reply = {"code": 422, "msg": "aspectRatio: one of 1:1, 16:9", "data": {"field": "aspectRatio", "n": [1, None, 2.5]}}
    api.providers.respond = refusal(200, reply)

    assert api.submit().body["providerReply"] == {"status": 200, "body": reply}


@pytest.mark.parametrize(
    ("content", "returned"),
    [
        (b"<html>Bad Request</html>", "<html>Bad Request</html>"),
        (b"\xff\x00", "\ufffd\x00"),
        (b"x" * 60_000, "x" * 4000),
        (b'{"msg": "\\ud800", "n": NaN}', {"msg": "\ud800", "n": "NaN"}),
        (b"[" * 500 + b"]" * 500, "[" * 500 + "]" * 500),
        (b"[" * 30_000, "[" * 4000),
        (b"9" * 5000, "9" * 4000),
        (b"", ""),
    ],
)
def test_any_reply_of_a_provider_can_be_returned(api: TasksApiHarness, content: bytes, returned: Any) -> None:
    api.providers.respond = lambda _: httpx.Response(400, content=content)

    assert api.submit().body["providerReply"] == {"status": 400, "body": returned}


def test_secrets_in_a_providers_reply_are_redacted(api: TasksApiHarness) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content)
        return httpx.Response(
            401, json={"code": 401, "msg": f"invalid {request.headers['authorization']}", "data": sent}
        )

    api.providers.respond = echo

    body = json.dumps(api.submit().body)

    assert CALLBACK_TOKEN not in body
    assert API_KEYS["flux-kontext"] not in body
    assert f"{CALLBACK_BASE_URL}/callbacks/flux-kontext/[redacted]" in body


@pytest.mark.parametrize(
    "reply",
    [
        rb'{"code": 401, "msg": "invalid key: ab/cd+ef=="}',
        rb'{"code": 401, "msg": "invalid key: ab\/cd+ef=="}',
        rb'{"code": 401, "msg": "invalid key: ab/cd\u002Bef\u003d\u003D"}',
        rb"Invalid key: ab/cd+ef==",
        b'{"code": 401, "long": "%s", "msg": "ab\\/cd+ef=="}' % (b"x" * 3955),
    ],
)
def test_a_secret_is_redacted_in_every_encoding(api: TasksApiHarness, reply: bytes) -> None:
    secret = json.dumps({"flux-kontext": {"apiKey": "ab/cd+ef=="}})
    boto3.client("secretsmanager").put_secret_value(SecretId=api.keys_secret, SecretString=secret)
    api.providers.respond = lambda _: httpx.Response(401, content=reply)

    returned = json.dumps(api.submit().body["providerReply"])

    assert "[redacted]" in returned
    assert "cd" not in returned


@pytest.mark.parametrize(
    ("header", "seconds"),
    [({"retry-after": "7"}, 7), ({}, 10), ({"retry-after": "soon"}, 10), ({"retry-after": "9" * 5}, 300)],
)
def test_a_rate_limited_submission_has_a_retry_after_header(
    api: TasksApiHarness, header: dict[str, str], seconds: int
) -> None:
    api.providers.respond = refusal(429, {"code": 429}, **header)

    assert int(api.submit().headers["retry-after"]) == seconds


def test_without_an_api_key_nothing_is_sent(api: TasksApiHarness) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=api.keys_secret, SecretString="{}")

    response = api.submit()

    assert (response.status, response.problem) == (424, "account-refused")
    assert api.providers.requests == []
    assert api.store.items() == []


@pytest.mark.parametrize(
    ("key", "detail"),
    [("s3\u200bcret", "U+200B (ZERO WIDTH SPACE) at position 3"), (["s3cret"], "is not a string")],
    ids=["character", "list"],
)
def test_an_api_key_that_no_header_can_hold_is_reported_without_a_request(
    api: TasksApiHarness, key: object, detail: str
) -> None:
    secret = json.dumps({"flux-kontext": {"apiKey": key}, "nanobanana": {"apiKey": "g00d"}})
    boto3.client("secretsmanager").put_secret_value(SecretId=api.keys_secret, SecretString=secret)

    response = api.submit()

    assert (response.status, response.problem) == (424, "account-refused")
    assert response.body["detail"].startswith("apiKey of flux-kontext in the provider keys secret ")
    assert detail in response.body["detail"]
    assert "Nothing was sent" in response.body["advice"]
    assert "s3" not in json.dumps(response.body)
    assert api.providers.requests == []
    assert api.store.items() == []  # the idempotency key is not reserved

    assert api.submit(provider="nanobanana").status == 201


@pytest.mark.parametrize(
    ("token", "detail"),
    [("short", "needs 32 to 128 letters"), (f"{CALLBACK_TOKEN} {CALLBACK_TOKEN}", "has U+0020 (SPACE) at position")],
)
def test_an_invalid_callback_token_is_reported_without_a_request(api: TasksApiHarness, token: str, detail: str) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId="token", SecretString=token)

    response = api.submit()

    assert (response.status, response.problem) == (424, "account-refused")
    assert f"the callback token {detail}" in response.body["detail"]
    assert CALLBACK_TOKEN not in json.dumps(response.body)
    assert (api.providers.requests, api.store.items()) == ([], [])


@pytest.mark.parametrize("padding", ["\n", "\u200b", "\ufeff", "\u00a0"], ids=ascii)
def test_white_space_around_secrets_is_not_sent(api: TasksApiHarness, padding: str) -> None:
    client = boto3.client("secretsmanager")
    client.put_secret_value(SecretId="token", SecretString=f"{padding}{CALLBACK_TOKEN}{padding}")
    keys = json.dumps({"flux-kontext": {"apiKey": f"{padding}k3y{padding}"}})
    client.put_secret_value(SecretId=api.keys_secret, SecretString=keys)

    assert api.submit().status == 201

    (request,) = api.providers.requests
    assert request.headers["authorization"] == "Bearer k3y"
    assert json.loads(request.content)["callBackUrl"] == f"{CALLBACK_BASE_URL}/callbacks/flux-kontext/{CALLBACK_TOKEN}"


def test_a_malformed_provider_keys_secret_is_a_503(api: TasksApiHarness) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=api.keys_secret, SecretString="no JSON")

    assert (api.submit().status, api.store.items()) == (503, [])


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"request": {"prompt": "p", "callBackUrl": "https://mine.example"}}, "request.callBackUrl"),
        ({"request": {"prompt": "p", "callback_url": None}}, "request.callback_url"),
        ({"request": {"prompt": "p", "CALLBACKURL": "x"}}, "request.CALLBACKURL"),
        ({"request": {"prompt": [[[[[[[["deep"]]]]]]]]}}, "request"),
        ({"request": {"prompt": "\ud800"}}, "request"),
        ({"request": {"prompt": {"\udfff": 1}}}, "request"),
        ({"request": {}}, "request"),
        ({"request": "a lighthouse"}, "request"),
        ({"request": {"prompt": "p"}, "endpoint": "generate-9"}, "endpoint"),
        ({"request": {"prompt": "p"}, "endpoint": ""}, "endpoint"),
        ({"request": {"prompt": "p"}, "endpoint": "../../x"}, "endpoint"),
        ({"request": {"prompt": "p"}, "callBackUrl": "https://mine.example"}, "callBackUrl"),
        ({"request": {"prompt": "p"}, "provider": "https://evil.example"}, "provider"),
    ],
)
def test_malformed_submissions_are_rejected_without_a_request(
    api: TasksApiHarness, body: dict[str, Any], at: str
) -> None:
    response = api.send(
        "POST", "/submissions", body={"provider": "flux-kontext", **body}, headers={"Idempotency-Key": "1"}
    )

    assert (response.status, response.problem) == (422, "invalid-request")
    assert [error["at"] for error in response.body["errors"]] == [at]
    assert api.providers.requests == []
    assert api.store.items() == []


def test_a_number_beyond_the_range_of_json_is_rejected_without_a_request(api: TasksApiHarness) -> None:
    body = b'{"provider": "flux-kontext", "request": {"prompt": "p", "seed": 1e400}}'

    response = api.send("POST", "/submissions", body=body, headers={"Idempotency-Key": "1"})

    assert response.body["errors"] == [{"at": "request", "detail": "contains a number that is too large"}]
    assert api.providers.requests == []


def test_a_submission_without_idempotency_key_is_rejected_without_a_request(api: TasksApiHarness) -> None:
    response = api.submit(None)

    assert (response.status, response.problem) == (400, "idempotency-key-missing")
    assert api.providers.requests == []


@pytest.mark.parametrize("key", ["", "a b", "a/b", "ü", "x" * 129, "a,b", "#"])
def test_invalid_idempotency_keys_are_rejected_without_a_request(api: TasksApiHarness, key: str) -> None:
    response = api.submit(key)

    assert (response.status, response.problem) == (400, "invalid-parameter")
    assert api.providers.requests == []
