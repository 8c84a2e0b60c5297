"""ReceiveCallback with DynamoDB, S3 and Secrets Manager in memory."""

import base64
import gc
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from inspect import CO_NEWLOCALS, CO_OPTIMIZED
from types import FrameType
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError, ReadTimeoutError

from catchlight.models import Reporter
from catchlight.providers import PROVIDERS
from functions.receive_callback import app
from tests.canary_secrets import API_KEYS, URL_QUERY, WEBHOOK_KEY, canary
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.fault_injection import every_aws_fault, every_fault, failing, write_to_captured_output, written
from tests.integration.functions import (
    PROVIDER_KEYS,
    TOKEN,
    a_callback,
    a_secret,
    an_event,
    metric_lines,
)

BUCKET = "images-bucket"
SUCCESS = {
    "code": 200,
    "msg": "BFL image generated successfully.",
    "data": {
        "taskId": "task12345",
        "info": {"resultImageUrl": f"https://tempfile.aiquickdraw.com/r/1.jpg?{URL_QUERY}"},
    },
}


@pytest.fixture(autouse=True)
def secrets(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Sets the function's environment. Returns the ids of its secrets."""
    token, keys = a_secret("token", TOKEN), a_secret("keys", json.dumps(PROVIDER_KEYS))
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    monkeypatch.setenv("IMAGES_BUCKET", BUCKET)
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("CALLBACK_TOKEN_SECRET", token)
    monkeypatch.setenv("PROVIDER_KEYS_SECRET", keys)
    app.dependencies.cache_clear()
    yield {"token": token, "keys": keys}
    app.dependencies.cache_clear()


@pytest.fixture(autouse=True)
def log_to_captured_output(monkeypatch: pytest.MonkeyPatch) -> None:
    write_to_captured_output(app.logger, monkeypatch)


def call(event: dict[str, Any], context: LambdaContext) -> tuple[int, dict[str, str]]:
    """Returns the status and body of the response, after checking that API Gateway accepts its format."""
    answer = app.handler(event, context)
    assert answer.keys() == {"statusCode", "headers", "body"}
    assert answer["headers"] == {"content-type": "application/json"}
    return answer["statusCode"], json.loads(answer["body"])


# ------------------------------------------------------------------------------------------------ modules

# The modules of Catchlight that process a callback, from its event to the write and the response.
MODULES = {
    "functions.receive_callback.app",
    "catchlight.aws.clients",
    "catchlight.aws.dynamodb",
    "catchlight.aws.secrets",
    "catchlight.models",
    "catchlight.observability.metrics",
    "catchlight.providers",
    "catchlight.providers.kie",
    "catchlight.providers.payloads",
    "catchlight.settings",
    "catchlight.tasks.reports",
    "catchlight.tasks.table",
}


def modules_called(event: dict[str, Any], context: LambdaContext) -> set[str]:
    """Returns the modules of Catchlight whose functions are called while the handler runs."""
    called = set()

    def note(frame: FrameType, kind: str, _: Any) -> None:
        # Module bodies and class bodies run at import; only functions count.
        if kind == "call" and frame.f_code.co_flags & CO_NEWLOCALS and frame.f_code.co_flags & CO_OPTIMIZED:
            name = frame.f_globals.get("__name__", "")
            if name.partition(".")[0] in ("catchlight", "functions"):
                called.add(name)

    # Garbage collection may finalize objects of earlier tests, and so call functions of other modules.
    gc.collect()
    gc.disable()
    sys.setprofile(note)
    try:
        assert call(event, context)[0] == 200
    finally:
        sys.setprofile(None)
        gc.enable()
    return called


def test_a_callback_calls_functions_of_these_modules_only(context: LambdaContext) -> None:
    # The first callback of a process: it also reads the settings and creates the clients.
    assert modules_called(a_callback(SUCCESS), context) == MODULES
    assert len(MODULES) <= 12


# ------------------------------------------------------------------------------------------------ accepted


@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_a_success_is_written_and_answered(store: Store, context: LambdaContext, provider_id: str) -> None:
    assert call(an_event(f"callbacks/{provider_id}/success.json"), context) == (200, {"status": "received"})

    (item,) = store.items()
    assert (item["provider"], item["status"], item["reportedBy"]) == (provider_id, "SUCCEEDED", "callback")
    assert item["images"]


def test_a_failure_is_written_and_answered(store: Store, context: LambdaContext) -> None:
    assert call(an_event("callbacks/flux-kontext/content_policy.json"), context) == (200, {"status": "received"})

    (item,) = store.items()
    assert (item["status"], item["failure"]["reason"]) == ("FAILED", "CONTENT_POLICY")


@pytest.mark.parametrize("path", ["base64", "trailing_slash"])
def test_base64_bodies_and_trailing_slashes_are_accepted(store: Store, context: LambdaContext, path: str) -> None:
    assert call(an_event(f"callbacks/flux-kontext/{path}.json"), context) == (200, {"status": "received"})

    assert [item["status"] for item in store.items()] == ["SUCCEEDED"]


def test_duplicate_late_and_conflicting_callbacks_are_answered_alike(store: Store, context: LambdaContext) -> None:
    failure = {"code": 501, "msg": "failed", "data": {"taskId": "task12345"}}
    other = {"code": 200, "data": {"taskId": "task12345", "info": {"resultImageUrl": "https://x.kie.ai/other.jpg"}}}

    for body in (SUCCESS, SUCCESS, failure, other):
        assert call(a_callback(body), context) == (200, {"status": "received"})

    (item,) = store.items()
    assert (item["status"], item["deliveries"], len(item["conflicts"])) == ("SUCCEEDED", 3, 2)
    assert item["images"][0]["url"] == SUCCESS["data"]["info"]["resultImageUrl"]  # type: ignore[index]


def test_64_deliveries_at_once_are_one_item(store: Store, context: LambdaContext) -> None:
    event = a_callback(SUCCESS)
    assert app.dependencies()  # not part of the race: a sandbox handles one request at a time

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: call(event, context), range(64)))

    assert answers == [(200, {"status": "received"})] * 64
    (item,) = store.items()
    assert (item["status"], item["deliveries"]) == ("SUCCEEDED", 1)
    assert "conflicts" not in item


@pytest.mark.parametrize("headers", [None, {}])
def test_headers_are_not_needed(store: Store, context: LambdaContext, headers: dict[str, str] | None) -> None:
    assert call(a_callback(SUCCESS, headers=headers), context)[0] == 200
    assert call(a_callback(SUCCESS) | {"headers": {"Content-Type": "text/plain"}}, context)[0] == 200


@pytest.mark.parametrize("text", ["\ud800", "\udfff\ud800", "😀", "\x00", "\u202e"])
def test_messages_with_unusual_characters_are_stored(store: Store, context: LambdaContext, text: str) -> None:
    body = {"code": 501, "msg": f"failed {text}", "data": {"taskId": "task12345"}}

    assert call(a_callback(body), context) == (200, {"status": "received"})

    (item,) = store.items()
    assert item["failure"]["message"].startswith("failed ")


def test_a_body_of_the_maximum_length_is_accepted(store: Store, context: LambdaContext) -> None:
    body = json.dumps(SUCCESS)
    padded = body + " " * (app.MAX_BODY_BYTES - len(body))

    assert call(a_callback(padded), context)[0] == 200
    assert call(a_callback(padded + " "), context)[0] == 413


# ------------------------------------------------------------------------------------------------ refused

REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no body": (a_callback(""), 400, "malformed_body"),
    "null body": (a_callback("") | {"body": None}, 400, "malformed_body"),
    "text": (a_callback("done"), 400, "malformed_body"),
    "cut off": (a_callback(json.dumps(SUCCESS)[:-1]), 400, "malformed_body"),
    "null": (a_callback(None), 422, "invalid_callback"),
    "a list": (a_callback([SUCCESS]), 422, "invalid_callback"),
    "a number": (a_callback(200), 422, "invalid_callback"),
    "a string": (a_callback('"success"'), 422, "invalid_callback"),
    "an empty object": (a_callback({}), 422, "invalid_callback"),
    "NaN": (a_callback('{"code": NaN, "data": {"taskId": "task12345"}}'), 400, "malformed_body"),
    "a key twice": (a_callback('{"code": 501, "code": 200, "taskId": "task12345"}'), 400, "malformed_body"),
    "a long number": (a_callback('{"code": %s, "taskId": "task12345"}' % ("9" * 5000)), 400, "malformed_body"),
    "60,000 brackets": (a_callback("[" * 30_000 + "]" * 30_000), 400, "malformed_body"),
    "a lone surrogate in the body itself": (a_callback('{"code": 501, "msg": "\ud800"}'), 400, "malformed_body"),
    "no base64": (a_callback("$$$", isBase64Encoded=True), 400, "malformed_body"),
    "base64 that is not ASCII": (a_callback("é" * 8, isBase64Encoded=True), 400, "malformed_body"),
    "base64 of a lone surrogate": (a_callback("\ud800", isBase64Encoded=True), 400, "malformed_body"),
    "base64 of no UTF-8": (
        a_callback(base64.b64encode(b'{"msg": "\xff"}').decode(), isBase64Encoded=True),
        400,
        "malformed_body",
    ),
    "no task id": (a_callback({"code": 200, "data": {"info": {}}}), 422, "invalid_callback"),
    "task id is a number": (a_callback({"code": 501, "data": {"taskId": 12345}}), 422, "invalid_callback"),
    "task id is a path": (a_callback({"code": 501, "data": {"taskId": "../../x"}}), 422, "invalid_callback"),
    "task id is a key": (a_callback({"code": 501, "data": {"taskId": "a#b"}}), 422, "invalid_callback"),
    "task id ends in a line break": (a_callback({"code": 501, "data": {"taskId": "a\n"}}), 422, "invalid_callback"),
    "task id is too long": (a_callback({"code": 501, "data": {"taskId": "x" * 129}}), 422, "invalid_callback"),
    "two task ids": (a_callback({"code": 501, "taskId": "a", "data": {"taskId": "b"}}), 422, "invalid_callback"),
    "no code": (a_callback({"data": {"taskId": "task12345"}}), 422, "invalid_callback"),
    "code is a list": (a_callback({"code": [200], "data": {"taskId": "task12345"}}), 422, "invalid_callback"),
    "a URL in a list": (
        a_callback({"code": 200, "data": {"taskId": "a", "info": {"resultImageUrl": []}}}),
        422,
        "invalid_callback",
    ),
    "URL of a file": (
        a_callback({"code": 200, "data": {"taskId": "a", "info": {"resultImageUrl": "file:///etc/passwd"}}}),
        422,
        "invalid_callback",
    ),
    "URL with a lone surrogate": (
        a_callback({"code": 200, "data": {"taskId": "a", "info": {"resultImageUrl": "https://h.example/\ud800"}}}),
        422,
        "invalid_callback",
    ),
    "too many images": (
        a_callback(
            {"task_id": "a", "success": True, "data": [{"image_url": "https://h.example/a"}] * 33}, provider="acedata"
        ),
        422,
        "invalid_callback",
    ),
    "unknown provider": (a_callback(SUCCESS, provider="midjourney"), 404, "unknown_provider"),
    "provider in other letters": (a_callback(SUCCESS, provider="Flux-Kontext"), 404, "unknown_provider"),
    "wrong token": (a_callback(SUCCESS, token=TOKEN[::-1]), 401, "unauthorized"),
    "empty token": (a_callback(SUCCESS, token=""), 401, "unauthorized"),
    "token with a path": (a_callback(SUCCESS, token=f"{TOKEN}/x"), 401, "unauthorized"),
    "token with two slashes": (a_callback(SUCCESS, token=f"{TOKEN}//"), 401, "unauthorized"),
    "token with a line break": (a_callback(SUCCESS, token=f"{TOKEN}\n"), 401, "unauthorized"),
    "token that is not ASCII": (a_callback(SUCCESS, token="é" * 48), 401, "unauthorized"),
    "unknown provider and wrong token": (a_callback(SUCCESS, provider="x", token="y"), 401, "unauthorized"),
    "long body": (a_callback(" " * (app.MAX_BODY_BYTES + 1)), 413, "payload_too_large"),
    "long body, decoded": (
        a_callback(base64.b64encode(b" " * (app.MAX_BODY_BYTES + 1)).decode(), isBase64Encoded=True),
        413,
        "payload_too_large",
    ),
    "long body of wide characters": (a_callback('"%s"' % ("é" * (app.MAX_BODY_BYTES // 2))), 413, "payload_too_large"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_request_is_answered_with_its_error_and_nothing_is_written(
    store: Store, context: LambdaContext, name: str
) -> None:
    event, status, error = REFUSED[name]

    answered, body = call(event, context)

    assert (answered, body["error"]) == (status, error)
    assert body.keys() == {"error", "message"}
    assert len(body["message"]) > 10
    assert TOKEN not in body["message"]
    assert store.items() == []


def test_every_wrong_token_has_the_same_response(context: LambdaContext) -> None:
    answers = {
        json.dumps(call(a_callback(SUCCESS, token=token), context))
        for token in ("", "x", TOKEN[:-1], TOKEN[:-1] + "x", TOKEN + "x")
    }

    assert len(answers) == 1


# ------------------------------------------------------------------------------------------------ calls


@contextmanager
def aws_calls() -> Iterator[list[str]]:
    """Yields the list of AWS operations that the function calls in the block."""
    calls: list[str] = []

    def count(model: Any, **_: Any) -> None:
        calls.append(model.name)

    clients = (app.dependencies().reports._table._client, app.dependencies().callback_token._client)
    for client in clients:
        client.meta.events.register("before-call", count)
    yield calls
    for client in clients:
        client.meta.events.unregister("before-call", count)


FAILURE = {"code": 501, "msg": "failed", "data": {"taskId": "task12345"}}


def test_a_callback_costs_one_call_once_the_secrets_are_cached(context: LambdaContext) -> None:
    with aws_calls() as calls:
        call(a_callback(SUCCESS), context)
    assert calls == ["GetSecretValue", "GetSecretValue", "UpdateItem"]

    # A repeated callback; a contradicting one, which is new evidence; the same one again.
    for body, expected in ((SUCCESS, 1), (FAILURE, 2), (FAILURE, 1)):
        with aws_calls() as calls:
            call(a_callback(body), context)
        assert calls == ["UpdateItem"] * expected


def test_wrong_tokens_cause_no_call_of_dynamodb(context: LambdaContext) -> None:
    with aws_calls() as calls:
        for _ in range(10):
            call(a_callback(SUCCESS, token=TOKEN[::-1]), context)
            call(a_callback(SUCCESS, token="x"), context)

    # The current and the previous version of the token are read.
    assert calls == ["GetSecretValue"] * 2


# ------------------------------------------------------------------------------------------------ signatures


def signed(key: str, task_id: str = "task12345", age: int = 0) -> dict[str, Any]:
    timestamp = str(int(time.time()) - age)
    digest = hmac.new(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    signature = canary("webhook signature", base64.b64encode(digest).decode())
    headers = {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": signature}
    return a_callback(SUCCESS) | {"headers": headers}


def put_webhook_key(secrets: dict[str, str], key: str) -> None:
    client = boto3.client("secretsmanager")
    client.put_secret_value(SecretId=secrets["keys"], SecretString=json.dumps({"flux-kontext": {"webhookKey": key}}))


def test_a_signed_callback_is_accepted(store: Store, context: LambdaContext, secrets: dict[str, str]) -> None:
    put_webhook_key(secrets, WEBHOOK_KEY)

    assert call(signed(WEBHOOK_KEY), context) == (200, {"status": "received"})
    assert len(store.items()) == 1


@pytest.mark.parametrize(
    "event",
    [
        a_callback(SUCCESS),
        signed("other"),
        signed(WEBHOOK_KEY, task_id="task12346"),
        signed(WEBHOOK_KEY, age=4000),
        # The margin is large because the signature is computed at collection, minutes before the test may run.
        signed(WEBHOOK_KEY, age=-4000),
        signed(""),
    ],
    ids=["unsigned", "another key", "another task", "too old", "too new", "empty key"],
)
def test_a_callback_without_a_valid_signature_is_refused(
    store: Store, context: LambdaContext, secrets: dict[str, str], event: dict[str, Any]
) -> None:
    put_webhook_key(secrets, WEBHOOK_KEY)

    status, body = call(event, context)

    assert (status, body["error"]) == (401, "unauthorized")
    assert store.items() == []


@pytest.mark.parametrize("key", ["", "...", "\u2026", "<webhook key>", " ...\n"])
def test_with_an_empty_key_or_a_placeholder_all_callbacks_are_refused(
    store: Store, context: LambdaContext, secrets: dict[str, str], key: str
) -> None:
    put_webhook_key(secrets, key)

    # Anyone could sign with such a key.
    assert call(signed(key.strip()), context)[0] == 401
    assert call(a_callback(SUCCESS), context)[0] == 401
    assert store.items() == []


def test_the_previous_webhook_key_is_valid_while_it_is_rotated(
    store: Store, context: LambdaContext, secrets: dict[str, str]
) -> None:
    put_webhook_key(secrets, "old")
    put_webhook_key(secrets, "new")

    assert call(signed("new"), context)[0] == 200
    assert call(signed("old"), context)[0] == 200


@pytest.mark.parametrize("around", ["\n", "\u200b", "\ufeff"], ids=ascii)
def test_blank_characters_around_secrets_are_ignored(
    store: Store, context: LambdaContext, secrets: dict[str, str], around: str
) -> None:
    token = f"{around}{TOKEN}{around}"
    boto3.client("secretsmanager").put_secret_value(SecretId=secrets["token"], SecretString=token)
    put_webhook_key(secrets, f"{around}{WEBHOOK_KEY}{around}")

    assert call(signed(WEBHOOK_KEY), context) == (200, {"status": "received"})


def test_secrets_may_be_stored_as_bytes(store: Store, context: LambdaContext, secrets: dict[str, str]) -> None:
    client = boto3.client("secretsmanager")
    client.put_secret_value(SecretId=secrets["token"], SecretBinary=TOKEN.encode())
    client.put_secret_value(SecretId=secrets["keys"], SecretBinary=b"{}")

    assert call(a_callback(SUCCESS), context) == (200, {"status": "received"})


@pytest.mark.parametrize("api_key", [7, None, "k\u200bey", ["key"]], ids=str)
def test_an_unusable_api_key_does_not_affect_callbacks(
    store: Store, context: LambdaContext, secrets: dict[str, str], api_key: object
) -> None:
    keys = {"flux-kontext": {"apiKey": api_key, "webhookKey": WEBHOOK_KEY}}
    boto3.client("secretsmanager").put_secret_value(SecretId=secrets["keys"], SecretString=json.dumps(keys))

    assert call(signed(WEBHOOK_KEY), context) == (200, {"status": "received"})


def test_a_placeholder_for_an_api_key_is_logged(
    store: Store, context: LambdaContext, secrets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"flux-kontext": {"apiKey": "..."}}
    boto3.client("secretsmanager").put_secret_value(SecretId=secrets["keys"], SecretString=json.dumps(keys))

    assert call(a_callback(SUCCESS), context)[0] == 200

    (line,) = (line for line in capsys.readouterr().out.splitlines() if "a key in the secret is a placeholder" in line)
    assert (json.loads(line)["provider"], json.loads(line)["key"]) == ("flux-kontext", "apiKey")


def test_callbacks_of_a_provider_without_a_webhook_key_need_no_signature(
    store: Store, context: LambdaContext, secrets: dict[str, str]
) -> None:
    put_webhook_key(secrets, WEBHOOK_KEY)

    assert call(an_event("callbacks/nanobanana/success.json"), context)[0] == 200


# ------------------------------------------------------------------------------------------------ faults of AWS


@pytest.mark.parametrize(
    "fault",
    [
        ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem"),
        ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "UpdateItem"),
        ReadTimeoutError(endpoint_url="https://dynamodb.example"),
    ],
    ids=["500", "throttled", "timeout"],
)
def test_a_callback_is_answered_with_503_if_dynamodb_fails(
    store: Store, context: LambdaContext, fault: Exception
) -> None:
    def fail(**_: Any) -> None:
        raise fault

    events = app.dependencies().reports._table._client.meta.events
    events.register("before-call.dynamodb", fail)
    status, body = call(a_callback(SUCCESS), context)
    assert (status, body["error"]) == (503, "unavailable")
    assert store.items() == []

    events.unregister("before-call.dynamodb", fail)
    assert call(a_callback(SUCCESS), context) == (200, {"status": "received"})
    assert len(store.items()) == 1


def test_a_callback_is_answered_with_503_if_secrets_manager_fails(store: Store, context: LambdaContext) -> None:
    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServiceError"}}, "GetSecretValue")

    app.dependencies().callback_token._client.meta.events.register("before-call.secrets-manager", fail)

    assert call(a_callback(SUCCESS), context)[0] == 503
    assert store.items() == []


# ------------------------------------------------------------------------------------------------ logs and metrics


def test_no_log_line_holds_the_token_or_a_url(context: LambdaContext, capsys: pytest.CaptureFixture[str]) -> None:
    call(a_callback(SUCCESS), context)
    call(a_callback(SUCCESS, token=TOKEN[::-1]), context)
    call(a_callback("{", token=TOKEN), context)

    written = capsys.readouterr().out
    lines = [json.loads(line) for line in written.splitlines() if '"_aws"' not in line]
    assert [line["message"] for line in lines] == [
        "callback received",
        "callback refused",
        "a delivery could not be parsed and was stored",
        "callback refused",
    ]
    assert lines[0]["task"] == "flux-kontext#task12345"
    assert TOKEN not in written
    assert TOKEN[::-1] not in written
    assert "aiquickdraw" not in written


def test_each_callback_is_counted_by_its_outcome(context: LambdaContext, capsys: pytest.CaptureFixture[str]) -> None:
    for body in (SUCCESS, SUCCESS, {"code": 501, "data": {"taskId": "task12345"}}):
        call(a_callback(body), context)
    call(a_callback("{"), context)

    lines = [line["_aws"]["CloudWatchMetrics"][0] for line in metric_lines(capsys)]
    assert [[metric["Name"] for metric in line["Metrics"]] for line in lines] == [
        ["CallbacksReceived", "CallbacksApplied", "ResolvedByCallback"],
        ["CallbacksReceived", "CallbacksDuplicate"],
        ["CallbacksReceived", "CallbacksConflict"],
        ["RejectedDeliveries"],
        ["CallbacksRefused"],
    ]
    service = ["service"]
    assert [line["Dimensions"] for line in lines] == [
        *([service, ["service", "provider"]] for _ in range(3)),
        [service],
        [service, ["service", "reason"]],
    ]


def test_a_late_success_after_a_failure_is_not_counted_as_resolved_again(
    context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    call(a_callback({"code": 501, "data": {"taskId": "task12345"}}), context)
    call(a_callback(SUCCESS), context)

    first, second = metric_lines(capsys)
    assert "ResolvedByCallback" in first
    assert "CallbacksApplied" in second
    assert "ResolvedByCallback" not in second


def test_the_task_is_logged_with_the_request_id_of_the_access_log(
    context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    event = a_callback(SUCCESS)

    call(event, context)

    line, _metrics = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["task"], line["request_id"]) == ("flux-kontext#task12345", event["requestContext"]["requestId"])


# ------------------------------------------------------------------------------------------------ failures are reported


@every_fault
@pytest.mark.parametrize("operation", ["GetSecretValue", "UpdateItem", "PutObject"])
def test_a_failed_callback_is_logged_with_its_request_and_counted(
    context: LambdaContext, capsys: pytest.CaptureFixture[str], operation: str, fault: Exception
) -> None:
    event = a_callback("{}" if operation == "PutObject" else SUCCESS)

    with failing(operation, fault):
        if isinstance(fault, KeyError):
            with pytest.raises(KeyError):
                app.handler(event, context)
        else:
            assert call(event, context)[0] == 503

    kind = "KeyError" if isinstance(fault, KeyError) else "StoreUnavailableError"
    (error,), reasons = written(capsys)
    assert (error["exception_name"], error["request_id"]) == (kind, event["requestContext"]["requestId"])
    assert "Traceback" in error["exception"]
    assert reasons == [kind]
    if operation == "UpdateItem" and kind == "StoreUnavailableError":
        assert error["task"] == "flux-kontext#task12345"


@every_aws_fault
def test_evidence_that_cannot_be_written_is_logged_and_the_report_is_recorded(
    store: Store, context: LambdaContext, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    call(a_callback({"code": 501, "data": {"taskId": "task12345"}}), context)

    with failing("UpdateItem", fault, when=lambda parameters: "list_append" in str(parameters)):
        assert call(a_callback(SUCCESS), context)[0] == 200

    assert [item["status"] for item in store.items()] == ["SUCCEEDED"]
    (error,), reasons = written(capsys)
    assert (error["task"], error["exception_name"]) == ("flux-kontext#task12345", "StoreUnavailableError")
    assert reasons == ["StoreUnavailableError"]


@pytest.mark.parametrize("event", [{}, {"pathParameters": None}, {"pathParameters": {}, "body": 7}], ids=str)
def test_a_malformed_event_is_reported(
    event: dict[str, Any], context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((KeyError, TypeError, AttributeError)) as caught:
        app.handler(event, context)

    errors, reasons = written(capsys)
    assert [error["exception_name"] for error in errors] == reasons == [caught.type.__name__]


@pytest.mark.parametrize("event", [a_callback(SUCCESS, token="x" * 48), a_callback("{"), a_callback("x" * 70_000)])
def test_a_refused_callback_is_logged_with_its_request(
    event: dict[str, Any], context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    call(event, context)

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    refusals = [line for line in lines if line.get("level") in ("WARNING", "ERROR")]
    assert {line["request_id"] for line in refusals} == {event["requestContext"]["requestId"]}


# ------------------------------------------------------------------------------------------------ GET and HEAD


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("provider", "token"), [("flux-kontext", TOKEN), ("flux-kontext", "x"), ("unknown", "y/z/")])
def test_get_and_head_have_the_same_response_for_every_token(
    store: Store,
    context: LambdaContext,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
    provider: str,
    token: str,
) -> None:
    route = f"{method} /callbacks/{{provider}}/{{token+}}"
    event = a_callback("", provider=provider, token=token, routeKey=route)
    monkeypatch.delenv("TASKS_TABLE")  # without this setting, every access to a secret or to the table fails

    answer = app.handler(event, context)

    assert answer == {
        "statusCode": 200,
        "headers": {"content-type": "text/plain"},
        "body": "Catchlight receives the callbacks of image generation services here, by POST.\n",
    }
    assert store.items() == []
    assert metric_lines(capsys) == []


# ------------------------------------------------------------------------------------------------ the user's reference


@pytest.mark.parametrize(
    ("query", "ref"),
    [
        ({"ref": "order-17:a.b~c_d"}, "order-17:a.b~c_d"),
        ({"ref": "x" * 128}, "x" * 128),
        ({"ref": "x" * 129}, None),
        ({"ref": ""}, None),
        ({"ref": "a b"}, None),
        ({"ref": "a,b"}, None),
        ({"ref": f"a.{API_KEYS['flux-kontext']}"}, None),
        ({"other": "x"}, None),
        (None, None),
    ],
)
def test_a_valid_reference_in_the_url_is_stored(
    store: Store, context: LambdaContext, query: dict[str, str] | None, ref: str | None
) -> None:
    event = a_callback(SUCCESS, queryStringParameters=query)

    assert app.handler(event, context)["statusCode"] == 200

    (item,) = store.items()
    assert item.get("ref") == ref


@pytest.mark.parametrize("reporter", Reporter)
def test_a_reference_is_added_to_a_task_that_already_has_a_result(
    store: Store, context: LambdaContext, reporter: Reporter
) -> None:
    report = PROVIDERS["flux-kontext"].parse_callback(SUCCESS, received_at=datetime.now(UTC))
    store.reports.record(report.model_copy(update={"reported_by": reporter}))
    for ref in ("first", "second"):
        app.handler(a_callback(SUCCESS, queryStringParameters={"ref": ref}), context)

    (item,) = store.items()
    assert (item["ref"], item.get("deliveries")) == ("first", 1 if reporter is Reporter.CALLBACK else None)


def test_the_reference_of_a_hint_is_stored(store: Store, context: LambdaContext) -> None:
    hint = {"code": 200, "data": {"taskId": "task12345"}}

    assert app.handler(a_callback(hint, queryStringParameters={"ref": "order-17"}), context)["statusCode"] == 200

    (item,) = store.items()
    assert (item["status"], item["ref"]) == ("PENDING", "order-17")
