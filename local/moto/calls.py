"""Parses requests to AWS services at the endpoint: the calling function, the operation and the item or object."""

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
# Query parameters of requests for a whole object: signature, response headers, operation and version. Any other
# parameter selects a subresource.
_S3_PLAIN_QUERY = re.compile(r"(?i)x-amz-.*|x-id|response-.*|versionId")
_INVOCATION = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")


@dataclass(frozen=True, slots=True)
class AwsCall:
    """One request of a function to an AWS service."""

    function: str
    sandbox: str  # the sandbox's id
    service: str  # dynamodb, lambda, s3, sqs, states, secretsmanager
    operation: str  # the API's name, such as UpdateItem
    subject: str  # the key of the item or object; empty for calls about several
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False)  # as in the API; for S3, from the path

    @classmethod
    def of(cls, environ: WSGIEnvironment) -> "AwsCall | None":
        """Returns the call of a request, or None if no function sent it. The request's JSON body stays readable."""
        sandbox = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        credential = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        if not (sandbox and credential):
            return None
        function, service = credential.group(1), credential.group(2)
        if service == "s3":
            return cls._of_s3(function, sandbox, environ)
        if service == "lambda":
            return cls._of_lambda(function, sandbox, environ)
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        parameters = request_json(environ)
        key = parameters.get("Key", {})
        subject = "/".join(next(iter(value.values())) for value in key.values()) if service == "dynamodb" else ""
        return cls(function, sandbox, service, operation, subject, parameters)

    @classmethod
    def of_presigned_link(cls, environ: WSGIEnvironment) -> "AwsCall | None":
        """Returns the call of a presigned URL: it runs with the permissions of the function that signed it."""
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

    @classmethod
    def _of_lambda(cls, function: str, sandbox: str, environ: WSGIEnvironment) -> "AwsCall":
        # POST /2015-03-31/functions/NAME/invocations. The body is the function's event.
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        invoked = _INVOCATION.fullmatch(path) if method == "POST" else None
        if invoked is None:
            return cls(function, sandbox, "lambda", f"{method} {path}", "")
        name = unquote(invoked[1])
        return cls(function, sandbox, "lambda", "Invoke", name, {"FunctionName": name})


def request_json(environ: WSGIEnvironment) -> dict[str, Any]:
    """Returns a request's JSON body and keeps it readable for the application."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    decoded = json.loads(body or b"{}")
    return decoded if isinstance(decoded, dict) else {}
