# ruff: noqa: A001, ARG001 - names and arguments are those of the native module
"""Provides the functions of awslambdaric's native module `runtime_client`, which is compiled on Linux only.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import http.client
import os

_user_agent = ""
_connection: http.client.HTTPConnection | None = None


def initialize_client(user_agent: str) -> None:
    global _user_agent
    _user_agent = user_agent


def next() -> tuple[bytes, dict[str, str]]:
    """Waits for the next event and returns it with the headers of the Runtime API's response."""
    return _call("GET", "next", b"", {})


def post_invocation_result(invoke_id: str, result: bytes, content_type: str, invocation_id: str | None = None) -> None:
    _call("POST", f"{invoke_id}/response", result, {"Content-Type": content_type})


def post_error(invoke_id: str, error: str, xray_cause: str, invocation_id: str | None = None) -> None:
    headers = {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": "Unhandled"}
    _call("POST", f"{invoke_id}/error", error.encode(), headers)


def _call(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    global _connection
    # The local stack's address has a path: the secret of this sandbox.
    address, slash, secret = os.environ["AWS_LAMBDA_RUNTIME_API"].partition("/")
    if _connection is None:
        _connection = http.client.HTTPConnection(address)
    headers = {"User-Agent": _user_agent, **headers}
    _connection.request(method, f"{slash}{secret}/2018-06-01/runtime/invocation/{path}", body or None, headers)
    response = _connection.getresponse()
    content = response.read()
    if response.status >= 300:
        raise RuntimeError(f"The Runtime API responded with {response.status} to {method} {path}.")
    return content, dict(response.headers.items())
