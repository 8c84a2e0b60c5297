"""Requests to AWS services as the endpoint sees them: whose they are, what they ask for, and about which task."""

import io
import json
import re
from dataclasses import dataclass
from typing import Any
from wsgiref.types import WSGIEnvironment

_CREDENTIAL = re.compile(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/aws4_request")
_S3_OPERATIONS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}


@dataclass(frozen=True, slots=True)
class AwsCall:
    """One request of a function."""

    function: str
    sandbox: str  # its id
    service: str  # dynamodb, s3, sqs, states, secretsmanager
    operation: str  # as the API names it, UpdateItem
    subject: str  # the item's key or the object's; empty where a call is about many

    @classmethod
    def of(cls, environ: WSGIEnvironment) -> "AwsCall | None":
        """The call that a request makes; None if no function makes it. The request's JSON can be read again."""
        sandbox = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        credential = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        if not (sandbox and credential):
            return None
        function, service = credential.group(1), credential.group(2)
        if service == "s3":
            _, _, key = environ["PATH_INFO"].removeprefix("/").partition("/")
            method = str(environ["REQUEST_METHOD"])
            return cls(function, sandbox, service, _S3_OPERATIONS.get(method, method), key)
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        key = request_json(environ).get("Key", {})
        subject = "/".join(next(iter(value.values())) for value in key.values()) if service == "dynamodb" else ""
        return cls(function, sandbox, service, operation, subject)


def request_json(environ: WSGIEnvironment) -> dict[str, Any]:
    """A request's JSON body; whoever comes next reads it again."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    decoded = json.loads(body or b"{}")
    return decoded if isinstance(decoded, dict) else {}


def replace_request_json(environ: WSGIEnvironment, document: dict[str, Any]) -> None:
    """Makes it another request, for whoever comes next."""
    body = json.dumps(document).encode()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
