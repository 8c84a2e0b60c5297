"""Signatures are those that API Gateway expects: the tests compute them again from the request that was sent."""

import hashlib
import hmac
from typing import Any

import boto3
import httpx
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError

from catchlight.client import AsyncTasksClient, TasksClient
from catchlight.client.signing import SignedRequests
from catchlight.models import TaskStatus
from tests.canary_secrets import canary
from tests.event_loop import run

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
API = "https://abc123.execute-api.eu-central-1.amazonaws.com"
SECRET_KEY = canary("AWS secret key", "canaryAwsSecretKeyOfACaller")
SESSION_TOKEN = canary("AWS session token", "canaryAwsSessionTokenOfACaller")


class Gateway:
    """A tasks API that accepts every submission and lists no tasks. It records the requests."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.method == "POST":
            task = {"task": "acedata#a", "provider": "acedata", "taskId": "a", "outcome": "submitted"}
            return httpx.Response(201, json=task)
        return httpx.Response(200, json={"tasks": []})

    def client(self, **credentials: str) -> TasksClient:
        auth = SignedRequests(Credentials(ACCESS_KEY, SECRET_KEY, **credentials), "eu-central-1")
        return TasksClient(API, auth, transport=httpx.MockTransport(self))


def signature_of(request: httpx.Request) -> str:
    """Computes the signature: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html"""
    fields = dict(part.split("=", 1) for part in request.headers["Authorization"].split(" ", 1)[1].split(", "))
    path, _, query = request.url.raw_path.decode().partition("?")
    signed = fields["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            request.method,
            path,
            "&".join(sorted(query.split("&"))) if query else "",
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in signed),
            "",
            fields["SignedHeaders"],
            hashlib.sha256(request.content).hexdigest(),
        ]
    )
    _, date, region, service, ending = fields["Credential"].split("/")
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (date, region, service, ending):
        key = hmac.digest(key, part.encode(), "sha256")
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    scope = f"{date}/{region}/{service}/{ending}"
    to_sign = f"AWS4-HMAC-SHA256\n{request.headers['X-Amz-Date']}\n{scope}\n{hashed}"
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def sent_signature(request: httpx.Request) -> str:
    return str(request.headers["Authorization"].rpartition("Signature=")[2])


def test_look_ups_are_signed_with_their_query() -> None:
    gateway = Gateway()
    cursor = 'a+b/c=="ä &?#%2B'
    gateway.client().page(status=TaskStatus.FAILED, provider="acedata", cursor=cursor)
    (request,) = gateway.requests
    assert request.url.params["cursor"] == cursor
    assert sent_signature(request) == signature_of(request)
    assert "/eu-central-1/execute-api/aws4_request" in request.headers["Authorization"]


def test_submissions_are_signed_with_body_and_key() -> None:
    gateway = Gateway()
    gateway.client().submit("acedata", {"prompt": "ein Würfel", "action": "generate"}, idempotency_key="order-17")
    (request,) = gateway.requests
    assert request.headers["Idempotency-Key"] == "order-17"
    assert "content-type;host;idempotency-key;x-amz-date" in request.headers["Authorization"]
    assert sent_signature(request) == signature_of(request)


@pytest.mark.parametrize("part_of_request", ["body", "key", "query"])
def test_a_signature_does_not_match_a_changed_request(part_of_request: str) -> None:
    gateway = Gateway()
    gateway.client().submit("acedata", {"prompt": "a"}, idempotency_key="order-17")
    (sent,) = gateway.requests
    changed: dict[str, Any] = {"url": sent.url, "headers": dict(sent.headers), "content": sent.content}
    match part_of_request:
        case "body":
            changed["content"] = sent.content.replace(b"a", b"b", 1)
        case "key":
            changed["headers"]["idempotency-key"] = "order-18"
        case "query":
            changed["url"] = sent.url.copy_merge_params({"wait": "20"})
    assert sent_signature(sent) != signature_of(httpx.Request("POST", **changed))


def test_an_asynchronous_client_signs_as_well() -> None:
    gateway = Gateway()
    auth = SignedRequests(Credentials(ACCESS_KEY, SECRET_KEY, token=SESSION_TOKEN), "eu-central-1")

    async def submit() -> None:
        async with AsyncTasksClient(API, auth, transport=httpx.MockTransport(gateway)) as client:
            await client.submit("acedata", {"prompt": "ein Würfel"}, idempotency_key="order-17")

    run(submit())
    (request,) = gateway.requests
    assert request.headers["X-Amz-Security-Token"] == SESSION_TOKEN
    assert sent_signature(request) == signature_of(request)


def test_temporary_credentials_send_their_token() -> None:
    gateway = Gateway()
    gateway.client(token=SESSION_TOKEN).page()
    (request,) = gateway.requests
    assert request.headers["X-Amz-Security-Token"] == SESSION_TOKEN
    assert "x-amz-security-token" in request.headers["Authorization"]
    assert sent_signature(request) == signature_of(request)


def test_each_attempt_is_signed_with_the_current_credentials() -> None:
    credentials = Credentials(ACCESS_KEY, "expired")
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        credentials.secret_key = SECRET_KEY
        return httpx.Response(503 if len(requests) == 1 else 200, json={"tasks": []}, headers={"Retry-After": "0"})

    auth = SignedRequests(credentials, "eu-central-1")
    TasksClient("https://abc.example", auth, transport=httpx.MockTransport(answer)).page()
    first, second = requests
    assert sent_signature(first) != signature_of(first)
    assert sent_signature(second) == signature_of(second)


def test_nothing_is_sent_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(NoCredentialsError):
        SignedRequests.of(boto3.Session(region_name="eu-central-1"))
