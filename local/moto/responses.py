"""Builds complete HTTP responses of AWS services, and errors in each service's format."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.test import run_wsgi_app

from local.moto.calls import AwsCall

# The other services use AccessDeniedException.
_ACCESS_DENIED = {
    "dynamodb": "com.amazon.coral.service#AccessDeniedException",
    "s3": "AccessDenied",
    "sqs": "com.amazon.coral.service#AccessDeniedException",
}


@dataclass(slots=True)
class AwsResponse:
    """A complete response that has not been sent yet."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def of(cls, application: WSGIApplication, environ: WSGIEnvironment) -> "AwsResponse":
        """Returns the response of an application to a request."""
        parts, status, headers = run_wsgi_app(application, environ, buffered=True)
        return cls(status, list(headers), b"".join(parts))

    def change(self, body: bytes) -> None:
        """Replaces the body. DynamoDB's checksum, which clients compare, is removed with the old body."""
        stale = {"content-length", "x-amz-crc32"}
        self.headers = [(name, value) for name, value in self.headers if name.lower() not in stale]
        self.headers.append(("Content-Length", str(len(body))))
        self.body = body

    def send(self, start_response: StartResponse) -> list[bytes]:
        """Passes the response to the server."""
        start_response(self.status, self.headers)
        return [self.body]


def access_denied(call: AwsCall, message: str) -> AwsResponse:
    """Returns the service's error for a call that the caller's permissions do not include."""
    status = "403 Forbidden" if call.service in ("s3", "sqs") else "400 Bad Request"
    response = error_response(call, status, _ACCESS_DENIED.get(call.service, "AccessDeniedException"), message)
    if call.service == "sqs":
        # The error's code in the query protocol that SQS used before JSON. Clients still read it.
        response.headers.append(("x-amzn-query-error", "AccessDenied;Sender"))
    return response


def error_response(call: AwsCall, status: str, code: str, message: str) -> AwsResponse:
    """Returns an error in the format of the call's service: XML for S3, without a body for HeadObject, else JSON."""
    if call.service != "s3":
        return json_response(status, {"__type": code, "message": message})
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{html.escape(message)}</Message></Error>"
    return _response(status, "application/xml", b"" if call.operation == "HeadObject" else body.encode())


def json_response(status: str, document: Mapping[str, Any]) -> AwsResponse:
    """Returns a JSON response, as all services except S3 send."""
    return _response(status, "application/x-amz-json-1.0", json.dumps(document).encode())


def _response(status: str, content_type: str, body: bytes) -> AwsResponse:
    return AwsResponse(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))], body)
