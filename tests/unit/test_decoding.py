"""Events of API Gateway: what is absent, null or empty in them, and what is in them."""

import base64
from typing import Any

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.api.problems import INVALID_REQUEST, APIError
from catchlight.errors import MalformedBodyError, PayloadTooLargeError
from functions.receive_callback import app as receive_callback
from functions.serve_tasks_api import app as serve_tasks_api
from tests.conftest import FakeLambdaContext

NOTHING: list[dict[str, Any]] = [
    {},
    {"body": None, "headers": None, "pathParameters": None, "queryStringParameters": None, "isBase64Encoded": None},
    {"body": "", "headers": {}, "pathParameters": {}, "queryStringParameters": {}, "isBase64Encoded": False},
]


@pytest.mark.parametrize("event", NOTHING)
def test_a_request_of_which_nothing_is_told_is_empty(event: dict[str, Any]) -> None:
    request = serve_tasks_api.decode({"routeKey": "GET /tasks"} | event, FakeLambdaContext(29))

    assert (request.route, request.path, request.query, request.headers) == ("GET /tasks", {}, {}, {})
    assert (request.body, request.is_base64_encoded, request.content()) == ("", False, b"")
    assert request.remaining_seconds == 26


@pytest.mark.parametrize(("encoded", "content"), [(False, b"YQ=="), (True, b"a")])
def test_a_request_is_read_as_it_is_told(encoded: bool, content: bytes, context: LambdaContext) -> None:
    event = {
        "routeKey": "GET /tasks/{provider}/{taskId}",
        "pathParameters": {"provider": "acedata", "taskId": "t1"},
        "queryStringParameters": {"wait": "3"},
        "headers": {"Idempotency-Key": "k", "x": "y"},
        "body": "YQ==",
        "isBase64Encoded": encoded,
    }

    request = serve_tasks_api.decode(event, context)

    assert (request.path, request.query) == (event["pathParameters"], event["queryStringParameters"])
    assert request.headers == {"idempotency-key": "k", "x": "y"}
    assert request.content() == content


def test_a_body_that_is_not_the_base64_that_it_claims_to_be_is_refused(context: LambdaContext) -> None:
    event: dict[str, Any] = {"routeKey": "POST /tasks", "body": "?", "isBase64Encoded": True}

    with pytest.raises(APIError, match="the body is not base64"):
        serve_tasks_api.decode(event, context).content()
    with pytest.raises(MalformedBodyError):
        receive_callback.decode(callback(**event))


def test_a_problem_is_told_in_the_log_as_to_the_caller() -> None:
    problem = APIError(INVALID_REQUEST, "limit: too large", advice="Make it smaller.")

    assert str(problem) == problem.body.detail == "limit: too large"


# ------------------------------------------------------------------------------------------------ callbacks


def callback(**event: Any) -> dict[str, Any]:
    return {"pathParameters": {"provider": "acedata", "token": "t0k"}, **event}


@pytest.mark.parametrize(
    "event", [{key: value for key, value in each.items() if "Param" not in key} for each in NOTHING]
)
def test_a_callback_of_which_nothing_is_told_is_empty(event: dict[str, Any]) -> None:
    request = receive_callback.decode(callback(**event))

    assert (request.provider_id, request.token, request.headers, request.body) == ("acedata", "t0k", {}, b"")


@pytest.mark.parametrize(("token", "read"), [("t0k/", "t0k"), ("t0k//", "t0k/"), ("t0k", "t0k")])
def test_a_slash_behind_the_token_is_no_part_of_it(token: str, read: str) -> None:
    event = callback(pathParameters={"provider": "acedata", "token": token}, headers={"X-A": "b"})
    request = receive_callback.decode(event)

    assert (request.token, request.headers) == (read, {"x-a": "b"})


@pytest.mark.parametrize("is_encoded", [False, True])
def test_a_callback_is_as_long_as_its_limit(is_encoded: bool) -> None:
    def sent(length: int) -> dict[str, Any]:
        body = b"x" * length
        text = (base64.b64encode(body) if is_encoded else body).decode()
        return callback(body=text, isBase64Encoded=is_encoded)

    assert len(receive_callback.decode(sent(64 * 1024)).body) == 64 * 1024
    with pytest.raises(PayloadTooLargeError, match="longer than 65536 bytes"):
        receive_callback.decode(sent(64 * 1024 + 1))
