"""No copy of the callback token or of an API key is stored, logged or published, wherever a body repeats it.

Bodies of kie.ai's Market and of Replicate contain the callback URL. In these tests, those of the other providers
contain it, too.
"""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.api.presigned_urls import PresignedLinks
from catchlight.api.routes import StoredTask, task_answer
from catchlight.aws.secrets import MASK
from catchlight.models import utc_now
from catchlight.recovery.deliveries import DeliveryStore, StoredDelivery
from catchlight.tasks.task import Task
from catchlight_cli.health.explanation import explain
from catchlight_cli.repair.replaying import replay
from functions.receive_callback import app
from tests.canary_secrets import API_KEYS, OTHER_TOKEN, WEBHOOK_KEY, find_leaks, find_stored_leaks, stored
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import TOKEN, StandardOutput, a_callback, a_secret
from tests.integration.providers import ACE_PATH, FLUX_PATH, json_response, poll, polling, record

BUCKET = "images-bucket"
URL = f"https://api.example/prod/callbacks/flux-kontext/{TOKEN}"
KEY = API_KEYS["flux-kontext"]
RESULT = "https://x.aiquickdraw.com/r/1.png"

# Delivered to another provider's URL, with a code that no provider uses.
MARKET = {
    "code": "ok",
    "msg": "Playground task completed successfully.",
    "data": {
        "taskId": "task12345",
        "model": "google/nano-banana-edit",
        "state": "success",
        "param": json.dumps({"callBackUrl": URL, "model": "google/nano-banana-edit", "input": {"prompt": "a tree"}}),
        "resultJson": json.dumps({"resultUrls": [RESULT]}),
        "costTime": 8,
    },
}
REPLICATE = {
    "id": "task12345",
    "status": "succeeded",
    "input": {"prompt": "a tree"},
    "output": [RESULT],
    "webhook": URL,
    "webhook_events_filter": ["completed"],
}
# Callbacks that can be read, and become items.
SUCCESS = {
    "code": 200,
    "callBackUrl": URL,
    "data": {"taskId": "task12345", "info": {"resultImageUrl": f"{RESULT}?for={URL}&token={TOKEN}"}},
}
FAILURE = {"code": 501, "msg": f"not delivered to {URL} with {KEY}", "data": {"taskId": "task12345"}}
RECORD = {
    "code": 200,
    "data": {
        "taskId": "task12345",
        "successFlag": 1,
        "paramJson": json.dumps({"prompt": f"see {URL}", "model": KEY, "callBackUrl": URL}),
        "response": {"resultImageUrl": RESULT},
    },
}
ACE = {
    "success": True,
    "task_id": "task12345",
    "data": [{"image_url": "https://x.acedata.cloud/1.png", "prompt": f"post it to {URL}"}],
}
ACE_FAILURE = {
    "success": False,
    "task_id": "task12345",
    "error": {"code": TOKEN, "message": f"{WEBHOOK_KEY} {API_KEYS['acedata']}"},
}


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


# Ways in which a program may write a secret in a JSON string.
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "escaped": escaped,
    "escaped in a JSON string": lambda text: json.dumps(escaped(text))[1:-1],
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent twice": lambda text: quote("".join(f"%{byte:02X}" for byte in text.encode())),
    "base64": lambda text: base64.b64encode(b"x" + text.encode() + b"y").decode(),
}


@pytest.fixture(autouse=True)
def secrets(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sets the environment of ReceiveCallback. Returns the id of the provider keys secret."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    # A webhook key of another provider only: the callbacks of these tests are not signed.
    every = {provider: {"apiKey": key} for provider, key in API_KEYS.items()} | {"later": {"webhookKey": WEBHOOK_KEY}}
    keys = a_secret("every key", json.dumps(every))
    # Powertools' log handler writes to the standard output of its creation, which may be that of another test.
    monkeypatch.setattr(app.logger.registered_handler, "stream", StandardOutput())
    monkeypatch.setenv("IMAGES_BUCKET", BUCKET)
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("CALLBACK_TOKEN_SECRET", a_secret("token", TOKEN))
    monkeypatch.setenv("PROVIDER_KEYS_SECRET", keys)
    app.dependencies.cache_clear()
    yield keys
    app.dependencies.cache_clear()


def with_encoded_secrets(body: Any, encode: Callable[[str], str]) -> str:
    text = json.dumps(body)
    for secret in (TOKEN, WEBHOOK_KEY, *API_KEYS.values()):
        text = text.replace(secret, encode(secret))
    return text


def call(event: dict[str, Any], context: LambdaContext) -> int:
    return int(app.handler(event, context)["statusCode"])


def kept() -> list[dict[str, Any]]:
    s3 = boto3.client("s3")
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    return [json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys]


def assert_no_copy(capsys: pytest.CaptureFixture[str], *, logged: str = "") -> None:
    log = "".join(capsys.readouterr())
    assert logged in log
    assert list(find_stored_leaks(stored())) == []
    assert list(find_leaks(log, "the log", levels=2)) == []


def test_the_search_finds_every_encoding(store: Store) -> None:
    """Otherwise the tests below could not fail."""
    for name, encode in ENCODINGS.items():
        for secret in (TOKEN, KEY):
            body = base64.b64encode(with_encoded_secrets({"msg": f"see {secret}."}, encode).encode()).decode()
            assert list(find_stored_leaks([("an object", json.dumps({"body": body}))])), name


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("body", [MARKET, REPLICATE], ids=["kie.ai's Market", "Replicate"])
def test_a_delivery_that_cannot_be_read_is_kept_without_secrets(
    store: Store, context: LambdaContext, capsys: pytest.CaptureFixture[str], body: Any, encode: Callable[[str], str]
) -> None:
    assert call(a_callback(with_encoded_secrets(body, encode)), context) == 422

    (document,) = kept()
    read = json.loads(base64.b64decode(document["body"]))
    # The URL of the result, which a later version needs, is kept.
    assert RESULT in json.dumps(read)
    assert MASK in json.dumps(read)
    assert_no_copy(capsys, logged="could not be parsed and was stored")


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize(
    ("provider", "body", "status"),
    [
        ("flux-kontext", SUCCESS, "SUCCEEDED"),
        ("flux-kontext", FAILURE, "FAILED"),
        ("nanobanana", RECORD, "SUCCEEDED"),
        ("acedata", ACE, "SUCCEEDED"),
        ("acedata", ACE_FAILURE, "FAILED"),
    ],
)
def test_an_item_holds_no_secret(
    store: Store,
    context: LambdaContext,
    capsys: pytest.CaptureFixture[str],
    provider: str,
    body: Any,
    status: str,
    encode: Callable[[str], str],
) -> None:
    assert call(a_callback(with_encoded_secrets(body, encode), provider=provider), context) == 200

    (item,) = store.items()
    assert item["status"] == status
    assert_no_copy(capsys, logged="callback received")


@pytest.mark.parametrize(
    ("provider", "body", "status"),
    [
        ("flux-kontext", "{" + json.dumps(MARKET), 400),
        ("flux-kontext", f"callBackUrl={quote(URL, safe='')}", 400),
        ("flux-kontext", "\ud800" + URL, 400),
        ("flux-kontext", f"\0{TOKEN}\0", 400),
        ("flux-kontex", json.dumps(SUCCESS), 404),
        (TOKEN, json.dumps(SUCCESS), 404),
        ("flux-kontext", json.dumps({"code": 501, "data": {"taskId": TOKEN}}), 422),
    ],
    ids=["cut off", "a form", "not UTF-8", "nulls", "a typing error", "token as provider", "token as task id"],
)
def test_a_delivery_that_is_not_a_callback_is_kept_without_secrets(
    store: Store, context: LambdaContext, capsys: pytest.CaptureFixture[str], provider: str, body: str, status: int
) -> None:
    headers = {"User-Agent": f"kie ({URL})", "Content-Type": f"text/plain; key={KEY}", "Referer": URL}

    assert call(a_callback(body, provider=provider, headers=headers), context) == status

    (document,) = kept()
    assert document["headers"]["user-agent"].startswith("kie (https://api.example/prod/callbacks/flux-kontext/[")
    assert store.items() == []
    assert_no_copy(capsys)


def test_a_body_in_utf_16_is_kept_without_secrets(context: LambdaContext, capsys: pytest.CaptureFixture[str]) -> None:
    body = base64.b64encode(json.dumps(MARKET).encode("utf-16")).decode()

    assert call(a_callback(body, isBase64Encoded=True), context) == 400

    assert len(kept()) == 1
    assert_no_copy(capsys)


def test_a_callback_url_with_another_token_is_kept_without_it(
    context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example a token from before a rotation, or that of another stack."""
    assert call(a_callback(json.dumps(MARKET).replace(TOKEN, OTHER_TOKEN)), context) == 422

    assert len(kept()) == 1
    assert_no_copy(capsys)


@pytest.mark.parametrize("value", ["no JSON", '{"flux-kontext": "a key"}', "[]"])
def test_deliveries_are_kept_although_the_provider_keys_secret_is_malformed(
    context: LambdaContext, capsys: pytest.CaptureFixture[str], secrets: str, value: str
) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=secrets, SecretString=value)

    assert call(a_callback(MARKET), context) == 422

    assert len(kept()) == 1
    assert_no_copy(capsys)


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_no_view_of_a_task_has_a_secret(store: Store, context: LambdaContext, encode: Callable[[str], str]) -> None:
    """Views are responses of the tasks API, which the gallery, `list` and `get` use, and the output of `describe`."""
    for provider, body in (("nanobanana", RECORD), ("acedata", ACE_FAILURE)):
        assert call(a_callback(with_encoded_secrets(body, encode), provider=provider), context) == 200

    links = PresignedLinks(lambda: boto3.client("s3"), BUCKET, seconds=60, now=utc_now())
    for item in store.items():
        explanation = explain(
            Task.model_validate(item),
            polling=None,
            dead_letters=(),
            failed_attempts=(),
            longest_polling=timedelta(hours=7),
            now=utc_now(),
        )
        answer = task_answer(StoredTask.model_validate(item), links)
        for shown in (explanation.model_dump_json(), answer.model_dump_json()):
            assert MASK in shown
            assert list(find_leaks(shown, "a view", levels=3)) == []


# ------------------------------------------------------------------------------------------------ replayed


def test_kept_deliveries_can_be_replayed(
    store: Store, context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(a_callback(json.dumps(RECORD), provider="nanobanan"), context) == 404

    (replayed,) = replay(DeliveryStore(boto3.client("s3"), BUCKET), store.reports, provider_id="nanobanana")

    assert (replayed.outcome, replayed.is_processed) == ("applied", True)
    (item,) = store.items()
    assert item["request"]["prompt"] == "see https://api.example/prod/callbacks/flux-kontext/[redacted]"
    assert item["images"][0]["url"] == RESULT
    assert_no_copy(capsys)


def test_deliveries_of_earlier_versions_leave_no_copy_in_items(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    deliveries = DeliveryStore(boto3.client("s3"), BUCKET)
    body = json.dumps(RECORD).replace(KEY, "a model").encode()
    deliveries.keep(StoredDelivery("nanobanana", utc_now(), "unknown format", {}, body))

    (replayed,) = replay(deliveries, store.reports)

    assert replayed.is_processed
    assert len(store.items()) == 1
    assert_no_copy(capsys)


# ------------------------------------------------------------------------------------------------ polls


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_a_polled_result_is_stored_without_secrets(
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    encode: Callable[[str], str],
) -> None:
    # The poller does not read the callback token. It masks the part of a callback URL that holds the token, which
    # works only if the URL is not encoded as base64.
    url = URL if encode(URL) == base64.b64encode(b"x" + URL.encode() + b"y").decode() else encode(URL)
    store.register("flux-kontext#f1", "acedata#a1")
    with polling(monkeypatch) as providers:
        providers.answers[FLUX_PATH] = lambda request: record(
            request,
            successFlag=3,
            errorCode=501,
            errorMessage=f"not delivered to {url} with {encode(KEY)}",
            paramJson=json.dumps({"prompt": f"see {url}", "callBackUrl": URL}),
        )
        providers.answers[ACE_PATH] = json_response({"items": [ACE | {"id": "a1", "response": ACE}], "count": 1})

        assert poll("flux-kontext#f1", "acedata#a1")["tasks"] == []

    assert {item["status"] for item in store.items()} == {"FAILED", "SUCCEEDED"}
    assert_no_copy(capsys)
