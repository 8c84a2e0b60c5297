"""Signs httpx requests with AWS Signature Version 4, computed by botocore."""

import asyncio
from collections.abc import AsyncGenerator, Generator

import boto3
import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError, NoRegionError

# Besides those that SigV4Auth adds, only these headers are signed: httpx and proxies may change the other ones.
_SIGNED = ("content-type", "idempotency-key")


class SignedRequests(httpx.Auth):
    """Signs every request for API Gateway, with credentials that botocore renews before they expire."""

    requires_request_body = True

    def __init__(self, credentials: Credentials, region: str) -> None:
        self._credentials = credentials
        self._region = region

    @classmethod
    def of(cls, session: boto3.Session) -> "SignedRequests":
        """Returns an authentication that uses the credentials and the region of a boto3 session.

        Raises:
            NoCredentialsError, NoRegionError: the session has no credentials, or no region.
        """
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        if not session.region_name:
            raise NoRegionError
        return cls(credentials, session.region_name)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds `Authorization`, `X-Amz-Date` and, for temporary credentials, `X-Amz-Security-Token`."""
        self._sign(request, self._credentials.get_frozen_credentials())
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Does the same. A thread reads the credentials, because botocore blocks while it renews them."""
        await request.aread()
        self._sign(request, await asyncio.to_thread(self._credentials.get_frozen_credentials))
        yield request

    def _sign(self, request: httpx.Request, credentials: ReadOnlyCredentials) -> None:
        headers = {name: request.headers[name] for name in _SIGNED if name in request.headers}
        signed = AWSRequest(request.method, str(request.url), headers=headers, data=request.content)
        SigV4Auth(credentials, "execute-api", self._region).add_auth(signed)
        request.headers.update(dict(signed.headers))
