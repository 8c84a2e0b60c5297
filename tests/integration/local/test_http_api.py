"""The HTTP API uses payload format 2.0, and sends API Gateway's own responses if no function responds."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from local import LocalStackError
from local.http.api import HttpApi, Route, Stage
from local.http.events import function_response
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function
from local.lambda_.runtime_api import InvocationResult
from tests.integration.local.running_example import Example


def event_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    event: dict[str, Any] = response.json()
    return event


def test_the_event_has_the_parts_of_the_request(example: Example) -> None:
    response = example.http.post(
        "/things/a%2Fb%20c/d/e/?x=1&x=2&y=%2B&z=",
        content=b'{"a": 1}',
        headers=[
            ("Content-Type", "application/json; charset=utf-8"),
            ("X-Twice", "one"),
            ("x-twice", "two"),
            ("Cookie", "a=1; b=2"),
            ("User-Agent", "tests"),
        ],
    )
    event = event_of(response)

    assert event["version"] == "2.0"
    assert event["routeKey"] == "POST /things/{kind}/{rest+}"
    assert event["rawPath"] == "/things/a/b c/d/e/"
    assert event["rawQueryString"] == "x=1&x=2&y=%2B&z="
    assert event["queryStringParameters"] == {"x": "1,2", "y": "+", "z": ""}
    assert event["headers"]["x-twice"] == "one,two"
    assert event["headers"]["content-type"] == "application/json; charset=utf-8"
    assert event["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert "cookie" not in event["headers"]
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["body"] == '{"a": 1}'
    assert event["isBase64Encoded"] is False
    context = event["requestContext"]
    assert context["http"] == {
        "method": "POST",
        "path": event["rawPath"],
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "tests",
    }
    assert context["stage"] == "$default"
    assert context["routeKey"] == event["routeKey"]
    assert context["requestId"] == response.headers["apigw-requestid"]
    assert context["timeEpoch"] > 1_700_000_000_000


@pytest.mark.parametrize(
    ("content_type", "body", "encoded"),
    [
        ("application/json", b"[1]", False),
        ("text/plain; charset=utf-8", "ü".encode(), False),
        ("application/xml", b"<a/>", False),
        ("application/x-www-form-urlencoded", b"a=1", True),
        ("application/octet-stream", b"\x00", True),
        ("", b"[1]", True),
        ("application/json", b"\xff", True),
    ],
)
def test_binary_bodies_are_base64_encoded(example: Example, content_type: str, body: bytes, encoded: bool) -> None:
    headers = {"content-type": content_type} if content_type else {}
    event = event_of(example.http.post("/things/a/b", content=body, headers=headers))

    assert event["isBase64Encoded"] is encoded
    assert (base64.b64decode(event["body"]) if encoded else event["body"].encode()) == body


def test_missing_parts_of_a_request_are_not_in_the_event(example: Example) -> None:
    event = event_of(example.http.get("/things/exact/one"))

    assert not {"body", "cookies", "pathParameters", "queryStringParameters"} & set(event)
    assert event["rawQueryString"] == ""


def test_a_chunked_body_is_decoded(example: Example) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"[1,"
        yield b"2]"

    event = event_of(example.http.post("/things/a/b", content=chunks(), headers={"content-type": "application/json"}))

    assert event["body"] == "[1,2]"


def test_a_greedy_variable_matches_the_rest_of_the_path(example: Example) -> None:
    assert event_of(example.http.post("/things/a/b/"))["pathParameters"] == {"kind": "a", "rest": "b/"}
    assert event_of(example.http.post("/things/a/b/c"))["pathParameters"] == {"kind": "a", "rest": "b/c"}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("GET", "/things/a/b"), ("POST", "/things/a"), ("PUT", "/slow")]
)
def test_a_request_without_a_route_is_404(example: Example, method: str, path: str) -> None:
    response = example.http.request(method, path)

    assert (response.status_code, response.json()) == (404, {"message": "Not Found"})
    assert response.headers["content-type"] == "application/json"


def test_the_most_specific_route_has_precedence() -> None:
    keys = [("ANY", "/a/{x}"), ("GET", "/a/{rest+}"), ("GET", "/a/b"), ("GET", "/a/{x}")]
    routes = [Route(method, path, "F") for method, path in keys]

    assert [route.key for route in sorted(routes, key=lambda route: route.precedence)] == [
        "GET /a/b",
        "GET /a/{x}",
        "ANY /a/{x}",
        "GET /a/{rest+}",
    ]


def test_a_route_variable_that_cannot_be_matched_prevents_the_start(tmp_path: Path) -> None:
    api = HttpApi(0, LogFolder(tmp_path))
    with pytest.raises(LocalStackError, match="my-name"):
        api.serve([Route("GET", "/{my-name}", "F")], Stage(), {})
    api.stop()


@pytest.mark.parametrize(
    ("result", "status", "body", "content_type"),
    [
        ({"statusCode": 201, "body": "made", "headers": {"Content-Type": "text/x"}}, 201, b"made", "text/x"),
        ({"statusCode": "204"}, 204, b"", "text/plain;charset=UTF-8"),
        ({"statusCode": 200, "body": "AAE=", "isBase64Encoded": True}, 200, b"\0\1", "text/plain;charset=UTF-8"),
        ({"any": "thing"}, 200, b'{"any": "thing"}', "application/json"),
        ("text", 200, b"text", "application/json"),
        (None, 200, b"null", "application/json"),
    ],
)
def test_results_become_responses(result: Any, status: int, body: bytes, content_type: str) -> None:
    response = function_response(InvocationResult(json.dumps(result).encode()))

    assert (response.status, response.body) == (status, body)
    assert dict(response.headers)["content-type"] == content_type


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "many"},
        {"statusCode": None},
        {"statusCode": 999},
        {"statusCode": 200, "body": {"not": "text"}},
        {"statusCode": 200, "body": "***", "isBase64Encoded": True},
        {"statusCode": 200, "headers": {"x": ["1"]}},
        {"statusCode": 200, "headers": {"x": "1\r\ny: 2"}},
        {"statusCode": 200, "headers": "x"},
    ],
)
def test_a_malformed_result_is_500(result: Any) -> None:
    response = function_response(InvocationResult(json.dumps(result).encode()))

    assert (response.status, json.loads(response.body)) == (500, {"message": "Internal Server Error"})


def test_cookies_of_the_result_are_set_and_multi_value_headers_ignored(example: Example) -> None:
    result = {"statusCode": 200, "cookies": ["a=1", "b=2"], "multiValueHeaders": {"x": ["1"]}, "headers": {"y": True}}
    response = example.http.post("/things/a/b", json={"result": result})

    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "x" not in response.headers
    assert response.headers["y"] == "true"


@pytest.mark.parametrize("instructions", [{"raise": "no"}, {"exit": 1}, {"sleep": 30}, {"result": {"statusCode": "x"}}])
def test_a_function_that_fails_is_500(example: Example, instructions: dict[str, Any]) -> None:
    response = example.http.post("/things/a/b", json=instructions)

    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


def test_a_function_slower_than_its_route_allows_is_503(example: Example) -> None:
    response = example.http.post("/slow", json={"sleep": 0.5})

    assert (response.status_code, response.json()) == (503, {"message": "Service Unavailable"})


def test_a_body_above_10_mb_is_413(example: Example) -> None:
    response = example.http.post("/things/a/b", content=b"x" * (10 * 1024 * 1024 + 1))

    assert (response.status_code, response.json()) == (413, {"message": "Request Entity Too Large"})


def test_requests_above_the_rate_are_429(tmp_path: Path) -> None:
    api = HttpApi(0, LogFolder(tmp_path))
    function = SimpleNamespace(invoke=lambda _: InvocationResult(b'"done"'))
    api.serve([Route("GET", "/", "F")], Stage(rate_limit=0.001, burst_limit=1), {"F": cast("Function", function)})
    with httpx.Client(base_url=api.url, trust_env=False) as client:
        first, second = client.get("/"), client.get("/")
    api.stop()

    assert (first.status_code, first.text) == (200, "done")
    assert (second.status_code, second.json()) == (429, {"message": "Too Many Requests"})


def test_the_access_log_has_the_templates_format(example: Example) -> None:
    example.http.get("/things/exact/one")
    example.http.get("/no/such/thing")

    lines = example.log("access").splitlines()
    assert "GET /things/exact/one 200 -" in lines
    assert "- 404 -" in lines


def test_a_client_that_expects_100_continue_receives_it(example: Example) -> None:
    host, port = "127.0.0.1", example.http.base_url.port
    assert port
    with socket.create_connection((host, port), timeout=60) as connection:
        head = "POST /things/a/b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b"[]")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_an_incomplete_body_does_not_invoke_the_function(tmp_path: Path) -> None:
    calls: list[bytes] = []

    def invoke(event: bytes) -> InvocationResult:
        calls.append(event)
        return InvocationResult(b'"done"')

    api = HttpApi(0, LogFolder(tmp_path))
    function = SimpleNamespace(invoke=invoke)
    api.serve([Route("POST", "/", "F")], Stage(), {"F": cast("Function", function)})
    for body in ("half", "a whole body"):
        with socket.create_connection(("127.0.0.1", api.port), timeout=60) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 12\r\n\r\n{body}".encode())
            connection.shutdown(socket.SHUT_WR)
            response = connection.recv(100)
    api.stop()

    assert response.startswith(b"HTTP/1.1 200")
    assert [base64.b64decode(json.loads(event)["body"]) for event in calls] == [b"a whole body"]


def test_the_error_for_a_port_in_use_names_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalStackError, match=rf"Port {port} is in use.*--port"):
            HttpApi(port, LogFolder(tmp_path))
        with pytest.raises(LocalStackError, match=r"Choose another with --port \(of the first API\); 0 selects"):
            HttpApi(port, LogFolder(tmp_path), option="--port (of the first API)")


@pytest.mark.parametrize("port", [-1, 65536])
def test_the_error_for_a_port_that_does_not_exist_names_the_option(tmp_path: Path, port: int) -> None:
    with pytest.raises(LocalStackError, match=rf"There is no port {port}\. Choose one from 0 to 65535 with --port"):
        HttpApi(port, LogFolder(tmp_path))
