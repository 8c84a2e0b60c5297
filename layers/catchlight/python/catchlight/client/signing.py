"""AWS Signature Version 4 for httpx, made by botocore."""

from collections.abc import Generator

import boto3
import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError, NoRegionError

# Signed are headers that arrive as they were sent: proxies and httpx itself change others.
_SIGNED = ("content-type", "idempotency-key")


class SignedRequests(httpx.Auth):
    """Signs every request for API Gateway with credentials that are renewed as they expire."""

    requires_request_body = True

    def __init__(self, credentials: Credentials, region: str) -> None:
        self._credentials = credentials
        self._region = region

    @classmethod
    def of(cls, session: boto3.Session) -> "SignedRequests":
        """Signs as a boto3 session would.

        Raises:
            NoCredentialsError, NoRegionError: the session has none.
        """
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        if not session.region_name:
            raise NoRegionError
        return cls(credentials, session.region_name)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds `Authorization`, `X-Amz-Date` and, for temporary credentials, `X-Amz-Security-Token`."""
        headers = {name: request.headers[name] for name in _SIGNED if name in request.headers}
        signed = AWSRequest(request.method, str(request.url), headers=headers, data=request.content)
        SigV4Auth(self._credentials.get_frozen_credentials(), "execute-api", self._region).add_auth(signed)
        request.headers.update(dict(signed.headers))
        yield request
