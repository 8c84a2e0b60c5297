"""Requests to AWS services as the endpoint sees them: whose they are, what they ask for, and about which task."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote
from wsgiref.types import WSGIEnvironment

_CREDENTIAL = re.compile(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/aws4_request")
_S3_OPERATIONS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
# Of a query that says how to sign, what to answer with, or only the operation's name. Any other names a subresource.
_S3_PLAIN_QUERY = re.compile(r"(?i)x-amz-.*|x-id|response-.*|versionId")
# By the names in signatures where botocore has another one.
_BOTOCORE_NAMES = {"states": "stepfunctions"}


@dataclass(frozen=True, slots=True)
class AwsCall:
    """One request of a function."""

    function: str
    sandbox: str  # its id
    service: str  # dynamodb, s3, sqs, states, secretsmanager
    operation: str  # as the API names it, UpdateItem
    subject: str  # the item's key or the object's; empty where a call is about many
    parameters: Mapping[str, Any] = field(
        default_factory=dict, compare=False
    )  # as the API names them; of S3, the path's

    @classmethod
    def of(cls, environ: WSGIEnvironment) -> "AwsCall | None":
        """The call that a request makes; None if no function makes it. The request's JSON can be read again."""
        sandbox = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        credential = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        if not (sandbox and credential):
            return None
        function, service = credential.group(1), credential.group(2)
        if service == "s3":
            return cls._of_s3(function, sandbox, environ)
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        parameters = request_json(environ)
        key = parameters.get("Key", {})
        subject = "/".join(next(iter(value.values())) for value in key.values()) if service == "dynamodb" else ""
        return cls(function, sandbox, service, operation, subject, parameters)

    @classmethod
    def of_presigned_link(cls, environ: WSGIEnvironment) -> "AwsCall | None":
        """The call of a link that a function has signed: it acts as that function, whoever follows it."""
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        sandbox, credential = query.get("X-Amz-Security-Token"), query.get("X-Amz-Credential", "")
        return cls._of_s3(credential.partition("/")[0], sandbox, environ) if sandbox else None

    @classmethod
    def _of_s3(cls, function: str, sandbox: str, environ: WSGIEnvironment) -> "AwsCall":
        bucket, _, key = environ["PATH_INFO"].removeprefix("/").partition("/")
        method = str(environ["REQUEST_METHOD"])
        operation = _S3_OPERATIONS.get(method, method)
        parameters = {"Bucket": bucket, "Key": key}
        names = [name for name, _ in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)]
        if subresources := [name for name in names if not _S3_PLAIN_QUERY.fullmatch(name)]:
            operation = f"{method} {'&'.join(subresources)}"
        elif operation == "PutObject" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
            operation = "CopyObject"
            parameters["CopySource"] = unquote(environ["HTTP_X_AMZ_COPY_SOURCE"])
        return cls(function, sandbox, "s3", operation, key, parameters)

    @property
    def botocore_service(self) -> str:
        """The service as botocore names it."""
        return _BOTOCORE_NAMES.get(self.service, self.service)


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
