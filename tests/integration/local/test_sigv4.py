"""Signed routes accept requests signed by botocore and curl, and no others."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.account import ACCOUNT_ID
from local.http import sigv4
from local.http.events import HttpRequest
from local.http.sigv4 import NotSignedError, verify_signature
from tests.integration.local.running_example import Example

URL = "http://127.0.0.1:3001/signed/a/b?x=1&y=%20%2F&x=0"
BODY = b'{"a": 1}'


def signed(
    method: str = "POST",
    url: str = URL,
    body: bytes = BODY,
    *,
    credentials: Credentials | None = None,
    region: str = "us-east-1",
    service: str = "execute-api",
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Returns the headers of a request that botocore has signed."""
    host = url.split("/")[2]
    request = AWSRequest(method, url, {"host": host, **(headers or {})}, body)
    SigV4Auth(credentials or Credentials("local", "local"), service, region).add_auth(request)
    return dict(request.headers.items())


def received(
    headers: Mapping[str, str],
    changes: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    url: str = URL,
    body: bytes = BODY,
) -> HttpRequest:
    """Returns the request as received, with some headers changed."""
    target = "/" + url.split("/", 3)[3]
    sent = {name.lower(): value for name, value in headers.items()} | dict(changes or {})
    return HttpRequest(method, target, list(sent.items()), body)


def now() -> datetime:
    return datetime.now(UTC)


def test_a_request_signed_by_botocore_is_accepted() -> None:
    assert verify_signature(received(signed()), now=now()) == "local"


def test_additional_signed_headers_are_accepted() -> None:
    headers = signed(headers={"Idempotency-Key": "a  b", "content-type": "application/json"})

    assert "idempotency-key" in headers["Authorization"]
    assert verify_signature(received(headers), now=now()) == "local"


def test_a_session_token_is_signed_like_any_header() -> None:
    headers = signed(credentials=Credentials("local", "local", "session"))

    assert verify_signature(received(headers), now=now()) == "local"
    with pytest.raises(NotSignedError, match="does not match"):
        verify_signature(received(headers, {"x-amz-security-token": "another"}), now=now())


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (received({"host": "127.0.0.1:3001"}), "no Authorization"),
        (received(signed(), {"authorization": "Bearer x"}), "no Authorization"),
        (received(signed(), {"authorization": "AWS4-HMAC-SHA256 Credential=local"}), "no Authorization"),
        (received(signed(credentials=Credentials("other", "local"))), "access key id"),
        (received(signed(credentials=Credentials("local", "wrong"))), "does not match"),
        (received(signed(region="eu-central-1")), "region"),
        (received(signed(service="s3")), "service"),
        (received(signed(), method="DELETE"), "does not match"),
        (received(signed(), url=URL + "&z=1"), "does not match"),
        (received(signed(), url=URL.replace("/a/b", "/a/c")), "does not match"),
        (received(signed(), body=b"{}"), "does not match"),
        (received(signed(), {"host": "elsewhere"}), "does not match"),
        (received(signed(headers={"idempotency-key": "1"}), {"idempotency-key": "2"}), "does not match"),
        (received(signed(), {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}), "not the hash of the body"),
    ],
)
def test_any_other_request_is_refused(request_: HttpRequest, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The requests were signed at collection. A signature may expire before the test runs.
    monkeypatch.setattr(sigv4, "CLOCK_TOLERANCE", timedelta(hours=1))
    with pytest.raises(NotSignedError, match=why):
        verify_signature(request_, now=now())


def test_a_missing_signed_header_is_refused() -> None:
    request = received(signed(headers={"idempotency-key": "1"}))
    stripped = [(name, value) for name, value in request.headers if name != "idempotency-key"]

    with pytest.raises(NotSignedError, match=r"the signed header .* is missing"):
        verify_signature(HttpRequest(request.method, request.target, stripped, request.body), now=now())


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_signature_is_valid_for_five_minutes(minutes: int) -> None:
    request = received(signed())

    with pytest.raises(NotSignedError, match="five minutes"):
        verify_signature(request, now=now() + timedelta(minutes=minutes))
    assert verify_signature(request, now=now() + timedelta(minutes=minutes / 2))


# ------------------------------------------------------------------------------------------------ the running API


def tasks_api_url(example: Example) -> str:
    urls = [api.url for api in example.stack._apis.values()]
    assert len(set(urls)) == 2
    return urls[1]


def test_each_api_has_its_own_routes(example: Example) -> None:
    signed_url = tasks_api_url(example)
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{signed_url}/things/exact/one").status_code == 404
        assert example.http.get("/signed/a").status_code == 404


def test_an_unsigned_request_does_not_invoke_the_function(example: Example) -> None:
    with httpx.Client(trust_env=False) as client:
        response = client.post(f"{tasks_api_url(example)}/signed/a", json={"raise": "the function was invoked"})

    assert (response.status_code, response.json()) == (403, {"message": "Forbidden"})
    assert "no Authorization header" in example.log("api")


def test_the_event_has_the_signer(example: Example) -> None:
    url = f"{tasks_api_url(example)}/signed/a?b=1"
    with httpx.Client(trust_env=False) as client:
        event: dict[str, Any] = client.get(url, headers=signed("GET", url, b"")).json()

    caller = event["requestContext"]["authorizer"]["iam"]
    assert caller["accessKey"] == "local"
    assert caller["accountId"] == ACCOUNT_ID
    assert caller["userArn"] == f"arn:aws:iam::{ACCOUNT_ID}:user/local"
    assert event["routeKey"] == "ANY /signed/{rest+}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("arguments", [["-d", '{"a": 1}'], ["-H", "Idempotency-Key: k1", "-d", "{}"], []])
def test_a_request_signed_by_curl_is_accepted(example: Example, arguments: list[str]) -> None:
    sign = ["--aws-sigv4", "aws:amz:us-east-1:execute-api", "--user", "local:local", "--noproxy", "*"]
    url = f"{tasks_api_url(example)}/signed/flux-kontext/task12345?limit=5&status=PENDING"
    process = subprocess.run(
        ["curl", "-sS", *sign, "-H", "content-type: application/json", *arguments, url],
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(process.stdout)["requestContext"]["authorizer"]["iam"]["accessKey"] == "local"
