"""Converts HTTP requests to Lambda events of payload format 2.0, and function results to HTTP responses.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from local.account import ACCOUNT_ID
from local.lambda_.runtime_api import InvocationResult

# The documentation states only that bodies with a binary content type are base64-encoded. These are the content types
# that the service was observed to treat as text. Forms, and bodies without a content type, are treated as binary.
_TEXT_CONTENT = re.compile(r"(text/.*|application/(json|javascript|xml))", re.IGNORECASE)

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class HttpRequest:
    """A request as the client sent it. `target` is the path and the query, percent-encoded."""

    method: str
    target: str
    headers: Headers
    body: bytes = b""
    source_ip: str = "127.0.0.1"
    protocol: str = "HTTP/1.1"
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def path(self) -> str:
        """The decoded path: an HTTP API passes `%2B` on as `+`, in the path and in its parameters."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True)
class HttpResponse:
    status: int
    body: bytes
    headers: Headers


def message_response(status: int, message: str) -> HttpResponse:
    """Returns a response of API Gateway itself, not of a function."""
    return HttpResponse(status, json.dumps({"message": message}).encode(), [("content-type", "application/json")])


def request_event(
    request: HttpRequest, route_key: str, path_parameters: Mapping[str, str], access_key_id: str | None = None
) -> dict[str, Any]:
    """Returns the event for the route's function. `access_key_id` is the one with which the request was signed."""
    now = datetime.now(UTC)
    host = request.header("host")
    headers = [(name.lower(), value) for name, value in request.headers]
    cookies = [item.strip() for name, value in headers if name == "cookie" for item in value.split(";")]
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": _joined(
            [
                *((name, value) for name, value in headers if name not in ("connection", "cookie")),
                ("x-amzn-trace-id", f"Root=1-{int(time.time()):08x}-{request.request_id.replace('-', '')[:24]}"),
                ("x-forwarded-for", request.source_ip),
                ("x-forwarded-port", host.rpartition(":")[2]),
                ("x-forwarded-proto", "http"),
            ]
        ),
        "requestContext": {
            "accountId": ACCOUNT_ID,
            "apiId": "local",
            "domainName": host,
            "domainPrefix": host.split(".")[0],
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": request.protocol,
                "sourceIp": request.source_ip,
                "userAgent": request.header("user-agent"),
            },
            "requestId": request.request_id,
            "routeKey": route_key,
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    if access_key_id is not None:
        event["requestContext"]["authorizer"] = {"iam": _caller(access_key_id)}
    if cookies:
        event["cookies"] = cookies
    if path_parameters:
        event["pathParameters"] = dict(path_parameters)
    if query := parse_qsl(request.query, keep_blank_values=True):
        event["queryStringParameters"] = _joined(query)
    if request.body:
        event |= _event_body(request.body, request.header("content-type"))
    return event


def _caller(access_key_id: str) -> dict[str, str | None]:
    return {
        "accessKey": access_key_id,
        "accountId": ACCOUNT_ID,
        "callerId": access_key_id,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": f"arn:aws:iam::{ACCOUNT_ID}:user/{access_key_id}",
        "userId": access_key_id,
    }


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Joins the values of the same name with commas, because format 2.0 has no lists of values."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _event_body(body: bytes, content_type: str) -> dict[str, Any]:
    if _TEXT_CONTENT.fullmatch(content_type.partition(";")[0].strip()):
        try:
            return {"body": body.decode(), "isBase64Encoded": False}
        except UnicodeDecodeError:
            pass  # not UTF-8: base64-encoded like binary content
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def function_response(outcome: InvocationResult) -> HttpResponse:
    """Returns the client's response for a function's result: 500 if the function failed or the result is malformed."""
    if outcome.function_error:
        return message_response(500, "Internal Server Error")
    try:
        return _mapped(json.loads(outcome.payload or b"null"))
    except (ValueError, TypeError, AttributeError):
        return message_response(500, "Internal Server Error")


def _mapped(result: Any) -> HttpResponse:
    if not isinstance(result, dict) or "statusCode" not in result:
        # The whole result is the response's body.
        body = result if isinstance(result, str) else json.dumps(result)
        return HttpResponse(200, body.encode(), [("content-type", "application/json")])
    status = int(result["statusCode"])
    body = result.get("body") or ""
    if not isinstance(body, str) or not 100 <= status <= 599:
        raise ValueError("malformed proxy response")
    content = base64.b64decode(body, validate=True) if result.get("isBase64Encoded") else body.encode()
    headers = [(str(key).lower(), _header_value(value)) for key, value in (result.get("headers") or {}).items()]
    # multiValueHeaders belongs to format 1.0 and is ignored. Headers that frame the response are set by the server.
    headers = [
        (key, value) for key, value in headers if key not in ("content-length", "transfer-encoding", "connection")
    ]
    if not any(key == "content-type" for key, _ in headers):
        headers.append(("content-type", "text/plain;charset=UTF-8"))
    headers += [("set-cookie", str(cookie)) for cookie in result.get("cookies") or []]
    return HttpResponse(status, content, headers)


def _header_value(value: Any) -> str:
    if isinstance(value, (dict, list)) or value is None:
        raise ValueError("a header's value must be one value")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\n" in text or "\r" in text:
        raise ValueError("a header's value must be one line")
    return text
