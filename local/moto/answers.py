"""Builds complete HTTP responses of AWS services, with the error codes of each service."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.test import run_wsgi_app

from local.moto.calls import AwsCall

# The error codes of AWS; botocore retries all of them.
_THROTTLING = {
    "dynamodb": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "sqs": "com.amazonaws.sqs#RequestThrottled",
    "states": "ThrottlingException",
    "secretsmanager": "ThrottlingException",
    "s3": "SlowDown",
}
_INTERNAL_ERROR = {
    "dynamodb": "com.amazonaws.dynamodb.v20120810#InternalServerError",
    "sqs": "com.amazonaws.sqs#InternalError",
    "states": "InternalFailure",
    "secretsmanager": "InternalServiceError",
    "s3": "InternalError",
}
# The other services use AccessDeniedException.
_ACCESS_DENIED = {
    "dynamodb": "com.amazon.coral.service#AccessDeniedException",
    "s3": "AccessDenied",
    "sqs": "com.amazon.coral.service#AccessDeniedException",
}
_PLANNED = "a planned fault"


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


def throttled(call: AwsCall) -> AwsResponse:
    """Returns the service's throttling error."""
    return _error(call, "503 Slow Down" if call.service == "s3" else "400 Bad Request", _THROTTLING)


def internal_error(call: AwsCall) -> AwsResponse:
    """Returns the service's internal error."""
    return _error(call, "500 Internal Server Error", _INTERNAL_ERROR)


def access_denied(call: AwsCall, message: str) -> AwsResponse:
    """Returns the service's error for a call that the caller's permissions do not include."""
    status = "403 Forbidden" if call.service in ("s3", "sqs") else "400 Bad Request"
    codes = {call.service: "AccessDeniedException"} | _ACCESS_DENIED
    answer = _error(call, status, codes, message)
    if call.service == "sqs":
        # The error's name in the query protocol that SQS had before JSON; clients still read it.
        answer.headers.append(("x-amzn-query-error", "AccessDenied;Sender"))
    return answer


def write_conflict() -> AwsResponse:
    """Returns the error of a conditional PutObject while another request writes the same object."""
    return _s3_error("409 Conflict", "ConditionalRequestConflict", _PLANNED)


def json_answer(status: str, document: Mapping[str, Any]) -> AwsResponse:
    """Returns a JSON response, as all services except S3 send."""
    return _answer(status, "application/x-amz-json-1.0", json.dumps(document).encode())


def _error(call: AwsCall, status: str, codes: Mapping[str, str], message: str = _PLANNED) -> AwsResponse:
    code = codes[call.service]
    if call.service != "s3":
        return json_answer(status, {"__type": code, "message": message})
    answer = _s3_error(status, code, message)
    if call.operation == "HeadObject":
        answer.change(b"")
    return answer


def _s3_error(status: str, code: str, message: str) -> AwsResponse:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{html.escape(message)}</Message></Error>"
    return _answer(status, "application/xml", body.encode())


def _answer(status: str, content_type: str, body: bytes) -> AwsResponse:
    return AwsResponse(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))], body)
