"""Events of API Gateway with absent, null, empty and present fields."""

import base64
import json
from typing import Any

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.api.problems import INVALID_REQUEST, MALFORMED_BODY, APIError
from catchlight.errors import MalformedBodyError, PayloadTooLargeError
from functions.receive_callback import app as receive_callback
from functions.serve_tasks_api import app as serve_tasks_api

EVENTS_WITHOUT_FIELDS: list[dict[str, Any]] = [
    {},
    {"body": None, "headers": None, "pathParameters": None, "queryStringParameters": None, "isBase64Encoded": None},
    {"body": "", "headers": {}, "pathParameters": {}, "queryStringParameters": {}, "isBase64Encoded": False},
]


def test_a_body_with_malformed_base64_is_refused(context: LambdaContext) -> None:
    event: dict[str, Any] = {"body": "YQ=", "isBase64Encoded": True}

    answer = serve_tasks_api.handler(post_tasks(**event), context)
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["type"] == MALFORMED_BODY.type
    with pytest.raises(MalformedBodyError):
        receive_callback.decode(callback(**event))


@pytest.mark.parametrize("body", [None, "", "{", "gICA"])
def test_a_body_that_is_not_json_is_refused(body: str | None, context: LambdaContext) -> None:
    answer = serve_tasks_api.handler(post_tasks(body=body, isBase64Encoded=body == "gICA"), context)

    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["type"] == MALFORMED_BODY.type


def test_a_body_is_json_also_if_it_is_declared_as_a_form(context: LambdaContext) -> None:
    declared = {"content-type": "application/x-www-form-urlencoded"}
    answer = serve_tasks_api.handler(post_tasks(body='{"provider": "acedata"}', headers=declared), context)

    assert json.loads(answer["body"])["type"] == INVALID_REQUEST.type


@pytest.mark.parametrize("path", ['/tasks/acedata/a"b', "/tasks/acedata/t1/images/#", '/submissions/a"b'])
def test_a_path_that_no_route_matches_is_not_found(path: str, context: LambdaContext) -> None:
    method = "DELETE" if path.startswith("/submissions") else "GET"
    event = post_tasks(
        method, path, pathParameters={"key": "?"} if method == "DELETE" else {"taskId": "?", "provider": "?"}
    )

    answer = serve_tasks_api.handler(event, context)

    assert answer["statusCode"] == 404
    assert answer["headers"]["Content-Type"] == "application/problem+json"


def test_the_text_of_an_error_is_the_detail_of_its_response() -> None:
    problem = APIError(INVALID_REQUEST, "limit: too large", advice="Make it smaller.")

    assert str(problem) == problem.body.detail == "limit: too large"


# ------------------------------------------------------------------------------------------------ callbacks


def post_tasks(method: str = "POST", path: str = "/tasks", **event: Any) -> dict[str, Any]:
    http = {"method": method, "path": path}
    context = {"requestId": "r", "stage": "$default", "http": http}
    return {"routeKey": f"{method} {path}", "rawPath": path, "rawQueryString": "", "requestContext": context, **event}


def callback(**event: Any) -> dict[str, Any]:
    return {"pathParameters": {"provider": "acedata", "token": "t0k"}, **event}


@pytest.mark.parametrize(
    "event", [{key: value for key, value in each.items() if "Param" not in key} for each in EVENTS_WITHOUT_FIELDS]
)
def test_a_callback_without_any_field_is_empty(event: dict[str, Any]) -> None:
    request = receive_callback.decode(callback(**event))

    assert (request.provider_id, request.token, request.headers, request.body) == ("acedata", "t0k", {}, b"")


@pytest.mark.parametrize(("token", "decoded"), [("t0k/", "t0k"), ("t0k//", "t0k/"), ("t0k", "t0k")])
def test_a_slash_after_the_token_is_removed(token: str, decoded: str) -> None:
    event = callback(pathParameters={"provider": "acedata", "token": token}, headers={"X-A": "b"})
    request = receive_callback.decode(event)

    assert (request.token, request.headers) == (decoded, {"x-a": "b"})


@pytest.mark.parametrize("is_encoded", [False, True])
def test_the_length_of_a_callback_is_limited(is_encoded: bool) -> None:
    def sent(length: int) -> dict[str, Any]:
        body = b"x" * length
        text = (base64.b64encode(body) if is_encoded else body).decode()
        return callback(body=text, isBase64Encoded=is_encoded)

    assert len(receive_callback.decode(sent(64 * 1024)).body) == 64 * 1024
    with pytest.raises(PayloadTooLargeError, match="longer than 65536 bytes"):
        receive_callback.decode(sent(64 * 1024 + 1))
