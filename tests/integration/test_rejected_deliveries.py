"""Deliveries that cannot be read are stored without secrets, and a later version can replay them."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError, EndpointConnectionError

from catchlight.client.stack import StackChoice
from catchlight.errors import StoreUnavailableError
from catchlight.recovery.deliveries import ACCEPTED_PREFIX, PREFIX, DeliveryStore, StoredDelivery
from catchlight.tasks.reports import Reports
from catchlight.tasks.table import TasksTable
from catchlight_cli.command_line import run as run_command_line
from catchlight_cli.repair.replaying import Replayed, replay
from functions.receive_callback import app
from tests.canary_secrets import OTHER_TOKEN, SIGNATURE, URL_QUERY, WEBHOOK_KEY, canary
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import PROVIDER_KEYS, TOKEN, a_callback, a_secret, metric_lines
from tests.stacks import a_stack

BUCKET = "images-bucket"
NOW = datetime(2026, 1, 6, 0, 17, 5, tzinfo=UTC)
SUCCESS = {
    "code": 200,
    "data": {"taskId": "task12345", "info": {"resultImageUrl": f"https://x.aiquickdraw.com/1?{URL_QUERY}"}},
}
# A format that this version cannot read: a list in place of the URL.
UNREADABLE = {"code": 200, "msg": "done", "data": {"taskId": "task12345", "info": {"resultImageUrl": ["https://x"]}}}
HINT = {"code": 200, "msg": "done", "data": {"taskId": "task12345"}}
SESSION = canary("cookie", "canarySessionCookie")


@pytest.fixture
def s3(aws: None) -> Any:
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture(autouse=True)
def keys_secret(store: Store, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sets the environment of ReceiveCallback. Returns the id of the provider keys secret."""
    keys = a_secret("keys", "{}")
    monkeypatch.setenv("IMAGES_BUCKET", BUCKET)
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("CALLBACK_TOKEN_SECRET", a_secret("token", TOKEN))
    monkeypatch.setenv("PROVIDER_KEYS_SECRET", keys)
    app.dependencies.cache_clear()
    yield keys
    app.dependencies.cache_clear()


@pytest.fixture
def deliveries(s3: Any) -> DeliveryStore:
    return DeliveryStore(s3, BUCKET)


def call(event: dict[str, Any], context: LambdaContext) -> int:
    return int(app.handler(event, context)["statusCode"])


def kept(s3: Any) -> dict[str, dict[str, Any]]:
    """Returns the documents in the bucket, by key."""
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    return {key: json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys}


def a_delivery(body: Any = SUCCESS, provider_id: str = "flux-kontext") -> StoredDelivery:
    return StoredDelivery(provider_id, NOW, "unknown format", {}, json.dumps(body).encode())


# ------------------------------------------------------------------------------------------------ kept


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [
        (a_callback(UNREADABLE), 422, "without a usable image URL"),
        (a_callback({"code": 501, "msg": "no id"}), 422, "task id is missing"),
        (a_callback([SUCCESS]), 422, "should be an object"),
        (a_callback("{"), 400, "not JSON"),
        (a_callback('{"code": NaN}'), 400, "NaN"),
        (a_callback("\ud800"), 400, "UTF-8"),
        (a_callback(base64.b64encode(b"\xff\x00").decode(), isBase64Encoded=True), 400, "UTF-8"),
        (a_callback(""), 400, "not JSON"),
        (a_callback(SUCCESS, provider="flux-kontex"), 404, "no such provider"),
        (a_callback(SUCCESS, provider="é/\ud800"), 404, "no such provider"),
    ],
    ids=["no URL", "no id", "list", "cut off", "NaN", "surrogate", "bytes", "empty", "typing error", "odd provider"],
)
def test_an_unreadable_delivery_is_kept_unchanged(
    store: Store, s3: Any, context: LambdaContext, event: dict[str, Any], status: int, reason: str
) -> None:
    assert call(event, context) == status

    ((key, document),) = kept(s3).items()
    body = event["body"].encode(errors="surrogatepass")
    assert base64.b64decode(document["body"]) == (base64.b64decode(body) if event["isBase64Encoded"] else body)
    assert document["provider"] == event["pathParameters"]["provider"]
    assert reason in document["reason"]
    assert key.startswith(f"{PREFIX}{document['receivedAt'][:10]}/")
    assert s3.head_object(Bucket=BUCKET, Key=key)["ContentType"] == "application/json"
    assert store.items() == []


def test_a_delivery_that_is_repeated_is_one_version_of_one_object(s3: Any, context: LambdaContext) -> None:
    """Each version would be stored, and paid for, until the bucket's lifecycle rules delete it."""
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})

    assert {call(a_callback(UNREADABLE), context) for _ in range(10)} == {422}

    assert len(s3.list_object_versions(Bucket=BUCKET)["Versions"]) == 1


def test_a_delivery_that_was_processed_is_stored_when_it_is_sent_again(
    s3: Any, deliveries: DeliveryStore, context: LambdaContext
) -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    call(a_callback(UNREADABLE), context)
    ((key, _),) = deliveries
    deliveries.remove(key)

    call(a_callback(UNREADABLE), context)

    assert [key for key, _ in deliveries] == [key]


def test_a_success_without_a_url_is_kept_if_its_provider_cannot_be_polled(
    store: Store, s3: Any, deliveries: DeliveryStore, context: LambdaContext
) -> None:
    assert call(a_callback(HINT), context) == 200

    ((_, document),) = kept(s3).items()
    assert json.loads(base64.b64decode(document["body"])) == HINT
    assert document["reason"] == "success without an image URL"
    # The table has only the hint: a replay does not delete the delivery.
    (outcome,) = replay(deliveries, Reports(TasksTable(TABLE_NAME, store.client)))
    assert not outcome.is_processed
    assert len(kept(s3)) == 1


def test_a_success_without_a_url_is_not_kept_if_its_provider_can_be_polled(
    s3: Any, context: LambdaContext, keys_secret: str
) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=keys_secret, SecretString=json.dumps(PROVIDER_KEYS))

    assert call(a_callback(HINT), context) == 200
    assert kept(s3) == {}


def test_a_delivery_that_is_sent_four_times_is_kept_once(s3: Any, context: LambdaContext) -> None:
    for _ in range(4):
        assert call(a_callback(UNREADABLE), context) == 422
    assert len(kept(s3)) == 1

    call(a_callback(UNREADABLE, provider="nanobanana"), context)
    call(a_callback(UNREADABLE | {"msg": "another"}), context)
    assert len(kept(s3)) == 3


def test_headers_are_kept_without_secrets(s3: Any, context: LambdaContext) -> None:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "kie/1",
        "X-Webhook-Timestamp": "1700000000",
        "X-Webhook-Signature": SIGNATURE,
        "Authorization": f"Bearer {WEBHOOK_KEY}",
        "Cookie": f"session={SESSION}",
        "Referer": f"https://x.example/callbacks/flux-kontext/{TOKEN}",
        "X-Forwarded-For": "203.0.113.9",
    }

    call(a_callback(UNREADABLE, headers=headers), context)

    ((_, document),) = kept(s3).items()
    assert document["headers"] == {
        "content-type": "application/json",
        "user-agent": "kie/1",
        "x-webhook-timestamp": "1700000000",
    }
    assert document.keys() == {"provider", "receivedAt", "reason", "headers", "body"}
    assert not [secret for secret in (SIGNATURE, TOKEN, SESSION, WEBHOOK_KEY) if secret in json.dumps(document)]


@pytest.mark.parametrize(
    "event",
    [
        a_callback(UNREADABLE, token=OTHER_TOKEN),
        a_callback("{", token=""),
        a_callback(SUCCESS, provider="flux-kontex", token=OTHER_TOKEN),
        a_callback("$", isBase64Encoded=True),
        a_callback(" " * (app.MAX_BODY_BYTES + 1)),
        a_callback(SUCCESS),
    ],
    ids=["wrong token", "no token", "typing error by a stranger", "no base64", "too long", "readable"],
)
def test_refused_and_readable_deliveries_are_not_kept(s3: Any, context: LambdaContext, event: dict[str, Any]) -> None:
    assert call(event, context) in (200, 400, 401, 413)

    assert kept(s3) == {}


def test_a_delivery_without_a_valid_signature_is_not_kept(s3: Any, context: LambdaContext, keys_secret: str) -> None:
    webhook_keys = json.dumps({"flux-kontext": {"webhookKey": WEBHOOK_KEY}})
    boto3.client("secretsmanager").put_secret_value(SecretId=keys_secret, SecretString=webhook_keys)

    assert call(a_callback(SUCCESS), context) == 401

    assert kept(s3) == {}


@pytest.mark.parametrize(
    "fault",
    [
        ClientError({"Error": {"Code": "SlowDown"}}, "PutObject"),
        EndpointConnectionError(endpoint_url="https://s3.example"),
    ],
    ids=["refused", "unreachable"],
)
def test_a_delivery_is_answered_with_503_if_s3_fails(s3: Any, context: LambdaContext, fault: Exception) -> None:
    events = app.dependencies().rejected_deliveries()._s3.meta.events

    def fail(**_: Any) -> None:
        raise fault

    events.register("before-call.s3.PutObject", fail)
    assert call(a_callback(UNREADABLE), context) == 503
    assert kept(s3) == {}

    events.unregister("before-call.s3.PutObject", fail)
    assert call(a_callback(UNREADABLE), context) == 422
    assert len(kept(s3)) == 1


def test_kept_deliveries_are_counted_with_the_dimensions_of_their_alarm(
    context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    call(a_callback(UNREADABLE), context)
    call(a_callback(UNREADABLE, token=OTHER_TOKEN), context)

    lines = metric_lines(capsys)
    (kept,) = [line for line in lines if "RejectedDeliveries" in line]
    assert kept["RejectedDeliveries"] == [1.0]
    assert kept["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]
    assert [line["reason"] for line in lines if "CallbacksRefused" in line] == ["invalid_callback", "unauthorized"]


def test_a_stored_delivery_is_read_unchanged(deliveries: DeliveryStore) -> None:
    delivery = replace(a_delivery(), headers={"content-type": "text/plain"}, body=b"\x00\xff")

    key = deliveries.keep(delivery)

    assert list(deliveries) == [(key, delivery)]
    deliveries.remove(key)
    assert list(deliveries) == []


# ------------------------------------------------------------------------------------------------ replayed


def test_a_delivery_that_can_be_read_now_is_applied_and_deleted(
    store: Store, s3: Any, deliveries: DeliveryStore
) -> None:
    key = deliveries.keep(a_delivery())

    assert list(replay(deliveries, store.reports)) == [
        Replayed(key=key, provider="flux-kontext", task="flux-kontext#task12345", outcome="applied", is_processed=True)
    ]

    (item,) = store.items()
    # URLs expire relative to the delivery's arrival, not to the replay. The report counts as a callback: unconfirmed.
    assert (item["status"], item["reportedBy"], item["reportedAt"]) == (
        "SUCCEEDED",
        "callback",
        "2026-01-06T00:17:05.000Z",
    )
    assert item["images"][0]["expiresAt"] == "2026-01-20T00:17:05.000Z"
    assert kept(s3) == {}
    assert list(replay(deliveries, store.reports)) == []


def test_a_dry_run_writes_nothing(store: Store, s3: Any, deliveries: DeliveryStore) -> None:
    deliveries.keep(a_delivery())
    deliveries.keep(a_delivery(UNREADABLE))

    replayed = list(replay(deliveries, store.reports, dry_run=True))

    assert {(each.task, each.is_processed) for each in replayed} == {(None, False), ("flux-kontext#task12345", False)}
    assert "would report SUCCEEDED" in {each.outcome for each in replayed}
    assert len(kept(s3)) == 2
    assert store.items() == []


@pytest.mark.parametrize("delivery", [a_delivery(UNREADABLE), a_delivery(provider_id="flux-kontex")])
def test_a_delivery_that_still_cannot_be_read_is_not_deleted(
    store: Store, s3: Any, deliveries: DeliveryStore, delivery: StoredDelivery
) -> None:
    key = deliveries.keep(delivery)

    (replayed,) = replay(deliveries, store.reports)

    assert (replayed.key, replayed.task, replayed.is_processed) == (key, None, False)
    assert list(kept(s3)) == [key]
    assert store.items() == []


def test_a_typing_error_in_a_callback_url_can_be_corrected(store: Store, s3: Any, deliveries: DeliveryStore) -> None:
    deliveries.keep(a_delivery(provider_id="flux-kontex"))

    (replayed,) = replay(deliveries, store.reports, provider_id="flux-kontext")

    assert (replayed.provider, replayed.outcome, replayed.is_processed) == ("flux-kontext", "applied", True)
    assert [item["task"] for item in store.items()] == ["flux-kontext#task12345"]
    assert kept(s3) == {}


def test_replayed_reports_that_are_outdated_do_not_change_the_result(store: Store, deliveries: DeliveryStore) -> None:
    deliveries.keep(a_delivery(SUCCESS))
    assert [each.outcome for each in replay(deliveries, store.reports)] == ["applied"]
    for body in (SUCCESS | {"msg": "again"}, {"code": 501, "data": {"taskId": "task12345"}}):
        deliveries.keep(a_delivery(body))

    outcomes = sorted(each.outcome for each in replay(deliveries, store.reports))

    assert outcomes == ["conflict", "duplicate"]
    assert [item["status"] for item in store.items()] == ["SUCCEEDED"]


def test_a_delivery_that_is_not_applied_is_not_deleted(store: Store, s3: Any, deliveries: DeliveryStore) -> None:
    deliveries.keep(a_delivery())

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem")

    store.client.meta.events.register("before-call.dynamodb.UpdateItem", fail)

    with pytest.raises(StoreUnavailableError):
        list(replay(deliveries, store.reports))
    assert len(kept(s3)) == 1


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def stack_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the command use the stack in memory."""
    stack = a_stack(TasksTable=TABLE_NAME, ImagesBucket=BUCKET)
    monkeypatch.setattr(StackChoice, "find", lambda _: stack)


def run(*arguments: str) -> int:
    return run_command_line(["replay", *arguments])


def test_the_command_prints_the_outcome_of_each_delivery(
    store: Store, deliveries: DeliveryStore, stack_in_memory: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert "There are no kept deliveries to process." in capsys.readouterr().out

    deliveries.keep(a_delivery(provider_id="flux-kontex"))
    assert run("--provider", "flux-kontext", "--dry-run") == 0
    assert "would report SUCCEEDED" in capsys.readouterr().out
    assert store.items() == []

    assert run() == 1
    assert "no such provider" in " ".join(capsys.readouterr().out.split())

    assert run("--provider", "flux-kontext") == 0
    assert "applied" in capsys.readouterr().out
    assert [item["status"] for item in store.items()] == ["SUCCEEDED"]


def test_json_output_is_one_document(
    store: Store, deliveries: DeliveryStore, stack_in_memory: None, capsys: pytest.CaptureFixture[str]
) -> None:
    key = deliveries.keep(a_delivery())

    assert run("--json") == 0

    assert json.loads(capsys.readouterr().out) == {
        "dryRun": False,
        "deliveries": [
            {
                "key": key,
                "provider": "flux-kontext",
                "task": "flux-kontext#task12345",
                "outcome": "applied",
                "isProcessed": True,
            }
        ],
    }


@pytest.mark.parametrize("operation", ["before-call.s3.ListObjectsV2", "before-call.dynamodb.UpdateItem"])
def test_a_missing_permission_is_reported_by_the_command(
    deliveries: DeliveryStore,
    stack_in_memory: None,
    capsys: pytest.CaptureFixture[str],
    operation: str,
) -> None:
    deliveries.keep(a_delivery())

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, operation)

    _, service, _ = operation.split(".")
    StackChoice().find().client(service).meta.events.register(operation, fail)

    assert run() == 1
    assert "Your AWS credentials do not allow" in capsys.readouterr().err


def test_deliveries_are_read_by_day_oldest_first(deliveries: DeliveryStore) -> None:
    for days in (3, 1, 2):
        deliveries.keep(replace(a_delivery(), received_at=NOW + timedelta(days=days)))

    assert [delivery.received_at.day for _, delivery in deliveries] == [7, 8, 9]


# ------------------------------------------------------------------------------------------------ accepted deliveries


@pytest.fixture
def accepted(s3: Any, monkeypatch: pytest.MonkeyPatch) -> DeliveryStore:
    """Enables the storing of accepted deliveries, and returns their store."""
    monkeypatch.setenv("KEEP_DELIVERIES", "30")
    app.dependencies.cache_clear()
    return DeliveryStore(s3, BUCKET, ACCEPTED_PREFIX)


def test_accepted_deliveries_are_not_kept_by_default(s3: Any, context: LambdaContext) -> None:
    assert call(a_callback(SUCCESS), context) == 200
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_accepted_deliveries_are_kept_without_secrets_and_unreadable_ones_apart(
    accepted: DeliveryStore, deliveries: DeliveryStore, context: LambdaContext
) -> None:
    body = SUCCESS | {"callBackUrl": f"https://api.example/callbacks/flux-kontext/{TOKEN}"}
    assert call(a_callback(body), context) == 200
    assert call(a_callback(UNREADABLE), context) == 422
    assert call(a_callback(SUCCESS, token="wrong"), context) == 401

    ((_, delivery),) = accepted
    assert (delivery.provider_id, delivery.reason) == ("flux-kontext", "applied")
    assert json.loads(delivery.body)["data"] == SUCCESS["data"]
    assert TOKEN.encode() not in delivery.body
    assert len(list(deliveries)) == 1


def test_a_callback_whose_accepted_delivery_cannot_be_stored_is_answered_and_logged(
    accepted: DeliveryStore,
    store: Store,
    context: LambdaContext,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> str:
        raise StoreUnavailableError("S3 did not store a delivery")

    monkeypatch.setattr(DeliveryStore, "keep", fail)
    assert call(a_callback(SUCCESS), context) == 200

    assert store.item("flux-kontext#task12345") is not None
    assert "an accepted delivery was not kept" in caplog.text


def test_a_replay_of_accepted_deliveries_restores_a_deleted_item_and_keeps_them(
    accepted: DeliveryStore, store: Store, context: LambdaContext
) -> None:
    assert call(a_callback(SUCCESS), context) == 200
    store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": "flux-kontext#task12345"}})

    for outcome in ("applied", "duplicate"):
        (replayed,) = replay(accepted, store.reports, removes=False)
        assert (replayed.outcome, replayed.is_processed) == (outcome, True)
    item = store.item("flux-kontext#task12345")
    assert item is not None
    assert item["status"] == "SUCCEEDED"
    assert len(list(accepted)) == 1
