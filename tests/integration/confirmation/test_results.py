"""With an API key, a result that a callback reported is archived only after the provider has confirmed it."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from catchlight.models import FailureReason, ImageKind, Reporter, utc_now
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from catchlight.polling.provider_client import ProviderClient
from catchlight.recovery.acceptance import Acceptance
from catchlight.tasks.reports import MAX_CONFLICTS
from functions.archive_images import app as archive_images
from functions.dispatch_changes.app import FollowUp
from tests.canary_secrets import API_KEYS
from tests.image_server import content, picture, status
from tests.integration.archiver import HOST, TASK, Archiver
from tests.integration.confirmation.conftest import Stream
from tests.integration.confirmation.reports import (
    ACE,
    FORGED,
    INCONCLUSIVE,
    PNG,
    acedata_record,
    contradictions,
    flux_record,
    report_failure,
    urls,
)
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.providers import (
    ACE_PATH,
    FLUX_PATH,
    Providers,
    failed,
    json_response,
    poll,
    running,
    unreachable,
)

QUARANTINED = "quarantine/flux-kontext/task12345/result-0"


# ------------------------------------------------------------------------------------------------ confirmed


def test_a_confirmed_result_is_archived(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    callback_url = archiver.serve("a", PNG)
    archiver.succeed(callback_url)
    providers.answers[FLUX_PATH] = flux_record(callback_url)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("ARCHIVED", "callback", [callback_url])
    assert item["reportedAt"] <= item["confirmedAt"] <= item["archivedAt"]
    assert "conflicts" not in item
    assert list(archiver.objects().values()) == [PNG]
    assert contradictions(capsys) == 0
    (request,) = providers.requests
    assert (request.url.params["taskId"], request.headers["authorization"]) == (
        "task12345",
        f"Bearer {API_KEYS['flux-kontext']}",
    )


@pytest.mark.parametrize(
    ("image_hosts", "status"), [("", "ARCHIVED"), ("Confirmed", "ARCHIVED"), ("Listed", "INCOMPLETE")]
)
@pytest.mark.parametrize("reported_by", Reporter)
def test_confirmed_urls_may_have_unlisted_hosts(
    archiver: Archiver,
    providers: Providers,
    monkeypatch: pytest.MonkeyPatch,
    image_hosts: str,
    status: str,
    reported_by: Reporter,
) -> None:
    if image_hosts:
        monkeypatch.setenv("IMAGE_HOSTS", image_hosts)
    unlisted = archiver.server.serve("a", PNG, "delivery.new-host.example")
    archiver.succeed(unlisted, reported_by=reported_by)
    providers.answers[FLUX_PATH] = flux_record(unlisted)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], archiver.server.requests) == (status, ["/a"] if status == "ARCHIVED" else [])
    if status == "INCOMPLETE":
        assert "delivery.new-host.example is not" in item["images"][0]["reason"]


def test_a_contradicted_url_is_not_requested(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.server.serve("forged", FORGED, "forged.example"))
    providers.answers[FLUX_PATH] = flux_record(archiver.server.serve("true", PNG, "delivery.new-host.example"))

    assert archiver.run() == []

    assert (archiver.item()["status"], archiver.server.requests) == ("ARCHIVED", ["/true"])


def test_a_confirmed_image_that_is_unavailable_is_retried(archiver: Archiver, providers: Providers) -> None:
    callback_url = archiver.serve("a", status(503))
    archiver.succeed(callback_url)
    providers.answers[FLUX_PATH] = flux_record(callback_url)

    assert archiver.run() == [TASK]
    archiver.serve("a", PNG)
    assert archiver.run(tries=2) == []

    assert archiver.item()["status"] == "ARCHIVED"


@pytest.mark.parametrize(
    "keys",
    [
        *({}, {"flux-kontext": {}}, {"flux-kontext": {"apiKey": ""}}, {"flux-kontext": {"apiKey": "..."}}),
        {"acedata": {"apiKey": "x"}},
    ],
)
def test_without_an_api_key_results_are_archived_unconfirmed(
    archiver: Archiver, providers: Providers, keys: dict[str, Any]
) -> None:
    secret = archive_images.dependencies().settings.provider_keys_secret
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=json.dumps(keys))
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run() == []

    item = archiver.item()
    assert item["status"] == "ARCHIVED"
    assert "confirmedAt" not in item
    assert providers.requests == []


def test_a_polled_result_is_not_confirmed_again(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("a", PNG), reported_by=Reporter.POLL)

    assert archiver.run() == []

    assert archiver.item()["status"] == "ARCHIVED"
    assert providers.requests == []


def test_images_missing_from_the_callback_are_archived(archiver: Archiver, providers: Providers) -> None:
    first, second = (archiver.server.serve(name, PNG, "cdn.acedata.cloud") for name in "ab")
    archiver.succeed(second, task=ACE)
    providers.answers[ACE_PATH] = acedata_record(first, second)

    assert archiver.run(ACE) == []

    item = archiver.item(ACE)
    assert (item["status"], urls(item), item["reportedBy"]) == ("ARCHIVED", [first, second], "poll")
    assert "conflicts" not in item


def test_an_original_missing_from_the_callback_is_archived(archiver: Archiver, providers: Providers) -> None:
    origin, result = archiver.serve("o", PNG), archiver.serve("r", PNG)
    archiver.succeed(result)
    providers.answers[FLUX_PATH] = flux_record(result, origin)

    assert archiver.run() == []

    assert [(image["kind"], image["state"]) for image in archiver.item()["images"]] == [
        ("origin", "ARCHIVED"),
        ("result", "ARCHIVED"),
    ]
    assert "conflicts" not in archiver.item()


def test_a_url_with_a_different_signature_is_the_same_image(archiver: Archiver, providers: Providers) -> None:
    callback_url, provider_url = (archiver.server.serve(f"a?signed={n}", PNG, HOST) for n in (1, 2))
    archiver.succeed(callback_url)
    providers.answers[FLUX_PATH] = flux_record(provider_url)

    assert archiver.run() == []

    assert (archiver.item()["status"], urls(archiver.item())) == ("ARCHIVED", [provider_url])
    assert "conflicts" not in archiver.item()
    assert archiver.server.requests == ["/a?signed=2"]


def test_images_have_the_order_of_the_providers_record(archiver: Archiver, providers: Providers) -> None:
    first, second = (archiver.server.serve(n, picture(size=(8, 7 + len(n))), "cdn.acedata.cloud") for n in ("a", "bb"))
    archiver.succeed(second, first, task=ACE)
    providers.answers[ACE_PATH] = acedata_record(first, second)

    assert archiver.run(ACE) == []

    assert urls(archiver.item(ACE)) == [first, second]
    assert archiver.item(ACE)["images"][1]["height"] == 9


# ------------------------------------------------------------------------------------------------ contradicted


@pytest.mark.parametrize("tries", [1, MAX_ARCHIVE_TRIES])
def test_urls_that_differ_from_the_providers_record_are_not_requested(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str], tries: int
) -> None:
    callback_url, provider_url = archiver.serve("forged", FORGED), archiver.serve("real", PNG)
    archiver.succeed(callback_url)
    providers.answers[FLUX_PATH] = flux_record(provider_url)

    assert archiver.run(tries=tries) == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("ARCHIVED", "poll", [provider_url])
    (conflict,) = item["conflicts"]
    assert (conflict["status"], conflict["reportedBy"], conflict["urls"]) == ("SUCCEEDED", "callback", [callback_url])
    assert archiver.server.requests == ["/real"]
    assert list(archiver.objects().values()) == [PNG]
    assert contradictions(capsys) == 1


def test_one_forged_image_among_real_ones_is_a_contradiction(archiver: Archiver, providers: Providers) -> None:
    real, forged = (archiver.server.serve(name, PNG, "cdn.acedata.cloud") for name in ("real", "forged"))
    archiver.succeed(real, forged, task=ACE)
    providers.answers[ACE_PATH] = acedata_record(real)

    assert archiver.run(ACE) == []

    assert (urls(archiver.item(ACE)), len(archiver.item(ACE)["conflicts"])) == ([real], 1)
    assert archiver.server.requests == ["/real"]


def test_the_same_url_with_another_image_kind_is_a_contradiction(archiver: Archiver, providers: Providers) -> None:
    url = archiver.serve("a", PNG)
    archiver.succeed((ImageKind.ORIGIN, url, 10))
    providers.answers[FLUX_PATH] = flux_record(url)

    assert archiver.run() == []

    assert [image["kind"] for image in archiver.item()["images"]] == ["result"]
    assert len(archiver.item()["conflicts"]) == 1


def test_a_success_that_the_provider_reports_as_failed_becomes_failed(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    callback_url = archiver.serve("forged", FORGED)
    archiver.succeed(callback_url)
    providers.answers[FLUX_PATH] = failed

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["rank"], item["reportedBy"]) == ("FAILED", 20, "poll")
    assert (item["failure"]["reason"], item["failure"]["message"]) == ("CONTENT_POLICY", "policy")
    assert "images" not in item
    assert [conflict["urls"] for conflict in item["conflicts"]] == [[callback_url]]
    assert (archiver.server.requests, archiver.objects()) == ([], {})
    assert contradictions(capsys) == 1


@pytest.mark.parametrize(
    "respond",
    [
        running,
        json_response({"code": 422, "msg": "Record does not exist", "data": None}),
        json_response({"code": 404}, 404),
    ],
    ids=["running", "unknown", "404"],
)
def test_a_success_without_a_result_at_the_provider_becomes_unconfirmed_and_is_polled(
    archiver: Archiver,
    providers: Providers,
    stream: Stream,
    capsys: pytest.CaptureFixture[str],
    respond: Callable[[httpx.Request], httpx.Response],
) -> None:
    callback_url = archiver.serve("forged", FORGED)
    archiver.succeed(callback_url)
    assert stream.new_follow_ups() == [(TASK, FollowUp.ARCHIVE)]
    before = archiver.item()
    providers.answers[FLUX_PATH] = respond

    # The provider may write the record some time after the callback. The image is in quarantine until then.
    for tries in range(1, MAX_ARCHIVE_TRIES):
        assert archiver.run(tries=tries) == [TASK]
        assert archiver.item()["status"] == before["status"]
    assert contradictions(capsys) == 0
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []

    item = archiver.item()
    assert (item["status"], item["rank"]) == ("UNCONFIRMED", 35)
    assert (item["failure"]["reason"], item["failure"]["lastAnswer"]) == ("UNCONFIRMED", "UNCONFIRMED")
    assert archiver.objects() == {QUARANTINED: FORGED}
    assert contradictions(capsys) == 0
    assert stream.new_follow_ups() == [(TASK, FollowUp.POLL_NOW)]
    # A sixth delivery of the message changes nothing.
    assert archiver.run() == []
    # If polling ends without a result, the task does not become TIMED_OUT.
    assert poll(TASK, waited_seconds=21_600)["tasks"] == []
    assert archiver.item() == item

    provider_url = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = flux_record(provider_url)
    assert poll(TASK)["tasks"] == []
    assert stream.new_follow_ups() == [(TASK, FollowUp.ARCHIVE)]
    assert contradictions(capsys) == 1
    assert archiver.run() == []
    item = archiver.item()
    assert (item["status"], urls(item), "failure" in item) == ("ARCHIVED", [provider_url], False)
    assert [(conflict["status"], conflict["urls"]) for conflict in item["conflicts"]] == [("SUCCEEDED", [callback_url])]
    assert archiver.images() == {"images/flux-kontext/task12345/result-0.png": PNG}


def test_a_task_with_the_maximum_of_conflicts_is_still_corrected(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    for number in range(MAX_CONFLICTS + 2):
        archiver.succeed(f"https://{HOST}/{number}.png")
    provider_url = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = flux_record(provider_url)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], urls(item), len(item["conflicts"])) == ("ARCHIVED", [provider_url], MAX_CONFLICTS)


def test_a_success_after_a_confirmed_failure_is_unconfirmed(archiver: Archiver, providers: Providers) -> None:
    report_failure(archiver.store, FailureReason.CONTENT_POLICY)
    providers.answers[FLUX_PATH] = failed
    poll(TASK)
    assert "confirmedAt" in archiver.item()
    archiver.succeed(archiver.serve("forged", FORGED))
    assert "confirmedAt" not in archiver.item()

    assert archiver.run() == []

    assert archiver.item()["status"] == "FAILED"
    assert archiver.server.requests == []


# ------------------------------------------------------------------------------------------------ provider unavailable


@pytest.mark.parametrize("respond", INCONCLUSIVE.values(), ids=INCONCLUSIVE)
def test_while_the_provider_is_unavailable_images_are_quarantined_until_confirmed(
    archiver: Archiver,
    providers: Providers,
    stream: Stream,
    capsys: pytest.CaptureFixture[str],
    respond: Callable[[httpx.Request], httpx.Response],
) -> None:
    callback_url = archiver.serve("a", PNG)
    archiver.succeed(callback_url)
    before = archiver.item()
    providers.answers[FLUX_PATH] = respond

    assert archiver.run() == [TASK]

    item = archiver.item()
    quarantine = {"key": QUARANTINED, "bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    (image,) = before["images"]
    expected_changes = {"images": [{**image, "quarantine": quarantine}], "archiveTries": 1}
    assert {**item, "updatedAt": ""} == {**before, **expected_changes, "updatedAt": ""}
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    item = archiver.item()
    assert (item["status"], item["failure"]["reason"]) == ("UNCONFIRMED", "UNCONFIRMED")
    assert len(providers.requests) == 2
    assert (archiver.server.requests, archiver.objects(), contradictions(capsys)) == (["/a"], {QUARANTINED: PNG}, 0)

    # A poll confirms it, long after the URL has expired.
    archiver.serve("a", status(403))
    providers.answers[FLUX_PATH] = flux_record(callback_url)
    stream.new_follow_ups()
    assert poll(TASK)["tasks"] == []
    assert stream.new_follow_ups() == [(TASK, FollowUp.ARCHIVE)]
    assert archiver.run() == []
    item = archiver.item()
    assert (item["status"], "failure" in item, "confirmedAt" in item) == ("ARCHIVED", False, True)
    assert (archiver.images(), contradictions(capsys)) == ({"images/flux-kontext/task12345/result-0.png": PNG}, 0)


def test_contradicted_images_stay_in_quarantine(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]

    provider_url = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = flux_record(provider_url)
    assert archiver.run(tries=2) == []

    assert archiver.images() == {"images/flux-kontext/task12345/result-0.png": PNG}
    assert archiver.objects()[QUARANTINED] == FORGED
    assert "quarantine" not in archiver.item()["images"][0]


def test_quarantined_bytes_are_used_if_only_the_urls_signature_differs(
    archiver: Archiver, providers: Providers
) -> None:
    callback_url = archiver.serve("a", PNG)
    archiver.succeed(callback_url)
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]

    archiver.serve("a", status(403))
    providers.answers[FLUX_PATH] = flux_record(callback_url.replace("sig=", "sig=another"))
    assert archiver.run(tries=2) == []

    assert archiver.images() == {"images/flux-kontext/task12345/result-0.png": PNG}


def test_quarantined_bytes_of_a_different_url_are_not_used(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]

    providers.answers[FLUX_PATH] = flux_record(archiver.serve("real", status(403)))
    assert archiver.run(tries=2) == [TASK]

    assert (archiver.images(), archiver.states()) == ({}, ["PENDING"])


def test_unconfirmed_images_are_downloaded_from_listed_hosts_only(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.server.serve("a", PNG, "unlisted.example"))
    providers.answers[FLUX_PATH] = unreachable

    assert archiver.run() == [TASK]

    assert (archiver.server.requests, archiver.objects(), archiver.states()) == ([], {}, ["PENDING"])


def test_a_body_that_is_not_an_image_is_quarantined_and_rejected_after_confirmation(
    archiver: Archiver, providers: Providers
) -> None:
    callback_url = archiver.serve("a", b"<html>" * 9)
    archiver.succeed(callback_url)
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]
    assert archiver.states() == ["PENDING"]

    providers.answers[FLUX_PATH] = flux_record(callback_url)
    assert archiver.run(tries=2) == []

    (image,) = archiver.item()["images"]
    assert (image["state"], image["quarantine"]["key"]) == ("REJECTED", QUARANTINED)
    assert archiver.objects() == {QUARANTINED: b"<html>" * 9}


def test_an_unavailable_provider_does_not_delay_the_others(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    url = archiver.server.serve("b", PNG, "cdn.acedata.cloud")
    archiver.succeed(url, task=ACE)
    providers.answers = {FLUX_PATH: unreachable, ACE_PATH: acedata_record(url)}

    assert archiver.run(TASK, ACE) == [TASK]

    assert (archiver.item()["status"], archiver.item(ACE)["status"]) == ("SUCCEEDED", "ARCHIVED")


def test_a_request_to_a_provider_that_hangs_times_out(archiver: Archiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request goes over a real connection, to the address in PROVIDER_BASE_URLS."""
    clients: list[ProviderClient] = []

    def a_client(base_urls: dict[str, str], **options: float) -> ProviderClient:
        clients.append(ProviderClient(base_urls, **options))  # type: ignore[arg-type] # the only option is the time-out
        return clients[-1]

    monkeypatch.setattr(archive_images, "ProviderClient", a_client)
    monkeypatch.setattr(archive_images, "CONFIRMATION_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setenv("PROVIDER_BASE_URLS", f"flux-kontext=http://127.0.0.1:{archiver.server.port}")
    callback_url = archiver.serve("a", PNG)
    record = {"taskId": "task12345", "successFlag": 1, "response": {"resultImageUrl": callback_url}}
    path = f"{FLUX_PATH.removeprefix('/')}?taskId=task12345"
    archiver.succeed(callback_url)

    def hang(request: Any) -> None:
        request.close_connection = True
        request.connection.settimeout(120)
        request.connection.recv(1)  # until the client closes the connection

    archiver.server.serve(path, hang)
    started_at = datetime.now(UTC)
    assert archiver.run() == [TASK]
    assert datetime.now(UTC) - started_at < timedelta(seconds=60)

    archiver.server.serve(path, content(json.dumps({"code": 200, "data": record}).encode(), "application/json"))
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "ARCHIVED"
    authorizations = [headers.get("authorization") for headers in archiver.server.headers]
    # The second request goes to the image's host: it has no API key.
    assert authorizations == [f"Bearer {API_KEYS['flux-kontext']}", None, f"Bearer {API_KEYS['flux-kontext']}"]
    clients[0].close()


def test_with_a_malformed_provider_keys_secret_nothing_is_archived(archiver: Archiver, providers: Providers) -> None:
    secret = archive_images.dependencies().settings.provider_keys_secret
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString='{"flux-kontext": "the key"}')
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == [TASK]

    assert (archiver.objects(), providers.requests) == ({QUARANTINED: PNG}, [])


def test_with_an_api_key_that_no_header_can_hold_nothing_is_archived(
    archiver: Archiver, providers: Providers, caplog: pytest.LogCaptureFixture
) -> None:
    secret = archive_images.dependencies().settings.provider_keys_secret
    keys = json.dumps({"flux-kontext": {"apiKey": "s3\u200bcret"}})
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=keys)
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run() == [TASK]

    assert (archiver.objects(), providers.requests) == ({QUARANTINED: PNG}, [])
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.message, record.__dict__["task"]) == ("not archived yet", TASK)
    assert "has U+200B (ZERO WIDTH SPACE) at position 3, which no HTTP header can hold" in caplog.text


# ------------------------------------------------------------------------------------------------ races


def test_a_correction_by_a_concurrent_run_is_not_overwritten(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    provider_url = archiver.serve("real", PNG)

    def run_concurrently(request: httpx.Request) -> httpx.Response:
        providers.answers[FLUX_PATH] = flux_record(provider_url)
        assert archiver.run() == []  # a duplicate of the message
        return failed(request)

    providers.answers[FLUX_PATH] = run_concurrently

    assert archiver.run() == [TASK]
    assert (archiver.item()["status"], urls(archiver.item())) == ("ARCHIVED", [provider_url])
    assert archiver.run(tries=2) == []


def test_a_task_that_is_deleted_during_confirmation_is_not_created_again(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))

    def delete_then_fail(request: httpx.Request) -> httpx.Response:
        archiver.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
        return failed(request)

    providers.answers[FLUX_PATH] = delete_then_fail

    assert archiver.run() == [TASK]
    assert archiver.run(tries=2) == []
    assert archiver.store.items() == []


def test_a_new_report_during_confirmation_is_confirmed_separately(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))

    def report_again(request: httpx.Request) -> httpx.Response:
        archiver.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
        archiver.succeed(archiver.serve("again", FORGED))
        providers.answers[FLUX_PATH] = failed
        return failed(request)

    providers.answers[FLUX_PATH] = report_again

    assert archiver.run() == [TASK]
    assert archiver.item()["status"] == "SUCCEEDED"
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "FAILED"
    assert archiver.server.requests == []


def test_concurrent_duplicates_of_a_message_archive_the_task_once(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    provider_url = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = flux_record(provider_url)

    if archiver.run(*[TASK] * archive_images.MAX_MESSAGES):
        assert archiver.run(tries=2) == []

    item = archiver.item()
    assert (item["status"], urls(item), len(item["conflicts"])) == ("ARCHIVED", [provider_url], 1)
    assert "/forged" not in archiver.server.requests


def test_a_correction_that_could_not_be_written_is_retried(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    providers.answers[FLUX_PATH] = failed
    events = archive_images.dependencies().archive._table._client.meta.events

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem")

    events.register("before-call.dynamodb.UpdateItem", fail)
    assert archiver.run() == [TASK]
    assert (archiver.item()["status"], archiver.server.requests, contradictions(capsys)) == ("SUCCEEDED", [], 0)

    events.unregister("before-call.dynamodb.UpdateItem", fail)
    assert archiver.run(tries=2) == []
    assert (archiver.item()["status"], contradictions(capsys)) == ("FAILED", 1)


def unconfirmed(archiver: Archiver, providers: Providers, *callback_urls: str) -> None:
    """Makes the task UNCONFIRMED after a callback with these URLs."""
    archiver.succeed(*callback_urls)
    providers.answers[FLUX_PATH] = INCONCLUSIVE["401"]
    archiver.run(tries=MAX_ARCHIVE_TRIES)
    assert archiver.item()["status"] == "UNCONFIRMED"


def test_an_accepted_task_is_archived_without_a_request_to_the_provider(
    archiver: Archiver, providers: Providers, store: Store, stream: Stream
) -> None:
    unconfirmed(archiver, providers, archiver.serve("a", PNG))
    archiver.serve("a", status(403))
    providers.requests.clear()
    stream.new_follow_ups()
    acceptance = Acceptance(store.table, now=utc_now)

    assert acceptance.plan(TASK).reason is None
    assert archiver.item()["status"] == "UNCONFIRMED"
    assert acceptance.accept(TASK).images == 1

    assert stream.new_follow_ups() == [(TASK, FollowUp.ARCHIVE)]
    assert archiver.run() == []
    item = archiver.item()
    assert (item["status"], "acceptedAt" in item, "confirmedAt" in item) == ("ARCHIVED", True, False)
    assert (archiver.images(), providers.requests) == ({"images/flux-kontext/task12345/result-0.png": PNG}, [])
    assert acceptance.accept(TASK).reason == "its images are archived already"


def test_an_accepted_image_without_quarantined_bytes_becomes_expired(
    archiver: Archiver, providers: Providers, store: Store
) -> None:
    unconfirmed(archiver, providers, archiver.serve("gone", status(403)), archiver.serve("a", PNG))

    assert Acceptance(store.table, now=utc_now).accept(TASK).missing_images == 1

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    assert (archiver.item()["status"], archiver.states()) == ("INCOMPLETE", ["EXPIRED", "ARCHIVED"])


def test_tasks_without_a_result_or_without_quarantined_bytes_are_not_accepted(
    archiver: Archiver, providers: Providers, store: Store
) -> None:
    acceptance = Acceptance(store.table, now=utc_now)
    assert acceptance.accept("flux-kontext#nothing").reason == "there is no such task"

    unconfirmed(archiver, providers, archiver.serve("gone", status(403)))
    before = archiver.item()
    assert acceptance.accept(TASK).reason == "none of its images is in quarantine"
    assert archiver.item() == before

    providers.answers[FLUX_PATH] = failed
    poll(TASK)
    before = archiver.item()
    assert before["status"] == "FAILED"
    assert acceptance.accept(TASK).reason == "it has no unconfirmed result of a callback"
    assert archiver.item() == before


def test_a_task_does_not_become_unconfirmed_while_an_image_may_still_be_downloaded(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.serve("a", status(503)))
    providers.answers[FLUX_PATH] = unreachable

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == [TASK]
    assert archiver.item()["status"] == "SUCCEEDED"

    archiver.serve("a", PNG)
    archiver.run(tries=MAX_ARCHIVE_TRIES)
    assert (archiver.item()["status"], archiver.objects()) == ("UNCONFIRMED", {QUARANTINED: PNG})
