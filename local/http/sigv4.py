"""Verifies AWS Signature Version 4 as API Gateway does on routes with IAM authorisation.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from local.account import REGION
from local.http.events import HttpRequest

# The credentials for all users of the local stack.
ACCESS_KEY_ID = "local"
SECRET_ACCESS_KEY = "local"

SERVICE = "execute-api"
CLOCK_TOLERANCE = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<scope>[^, ]+), *SignedHeaders=(?P<headers>[^, ]+), *"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


class NotSignedError(Exception):
    """A request has no valid signature. The message states the reason, which API Gateway does not return to callers."""


def verify_signature(request: HttpRequest, *, now: datetime) -> str:
    """Returns the access key id that the request was signed with.

    Raises:
        NotSignedError: the request has no valid signature.
    """
    authorization = _AUTHORIZATION.fullmatch(request.header("authorization").strip())
    if authorization is None:
        raise NotSignedError("no Authorization header of Signature Version 4")
    timestamp = request.header("x-amz-date")
    access_key_id, *scope = authorization["scope"].split("/")
    if access_key_id != ACCESS_KEY_ID:
        raise NotSignedError(f"unknown access key id; the local stack has only {ACCESS_KEY_ID!r}")
    if scope != [timestamp[:8], REGION, SERVICE, "aws4_request"]:
        raise NotSignedError(f"signed for another day, region or service; the local stack has {REGION} and {SERVICE}")
    if abs(now - _time(timestamp)) > CLOCK_TOLERANCE:
        raise NotSignedError("the time of the signature differs from now by more than five minutes")
    signed_headers = authorization["headers"].split(";")
    if "host" not in signed_headers:
        raise NotSignedError("the host is not signed")
    body_hash = hashlib.sha256(request.body).hexdigest()
    if request.header("x-amz-content-sha256") not in ("", body_hash):
        raise NotSignedError("x-amz-content-sha256 is not the hash of the body")
    expected = _signature(request, signed_headers, timestamp)
    if not hmac.compare_digest(expected, authorization["signature"]):
        raise NotSignedError("the signature does not match the request")
    return access_key_id


def _time(timestamp: str) -> datetime:
    try:
        return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise NotSignedError("no X-Amz-Date header") from None


def _signature(request: HttpRequest, signed_headers: list[str], timestamp: str) -> str:
    signer = _AsSigned(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), SERVICE, REGION)
    headers = HTTPHeaders()
    for name, value in _headers(request, signed_headers):
        headers.add_header(name, value)
    signed = AWSRequest(request.method, f"http://{request.header('host')}{request.target}", data=request.body)
    signed.headers = headers
    signed.context["timestamp"] = timestamp
    signature: str = signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed)
    return signature


def _headers(request: HttpRequest, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        values = [value for key, value in request.headers if key.lower() == name]
        if not values:
            raise NotSignedError(f"the signed header {name} is missing")
        yield from ((name, value) for value in values)


class _AsSigned(SigV4Auth):
    """botocore's signer, restricted to the headers that the caller has signed."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers
