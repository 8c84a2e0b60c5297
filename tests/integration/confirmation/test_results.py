"""A result that came by callback is unconfirmed: with an API key, nothing is archived before its confirmation."""

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
from catchlight.recovery.acceptance import Acceptance, Refusal
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
    NO_ANSWERS,
    PNG,
    ace_has,
    contradictions,
    has,
    report_failure,
    urls,
)
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.providers import (
    ACE_PATH,
    FLUX_PATH,
    Providers,
    failed,
    poll,
    running,
    saying,
    unreachable,
)

QUARANTINED = "quarantine/flux-kontext/task12345/result-0"


# ------------------------------------------------------------------------------------------------ confirmed


def test_what_the_provider_confirms_is_archived(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = archiver.serve("a", PNG)
    archiver.succeed(reported)
    providers.answers[FLUX_PATH] = has(reported)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("ARCHIVED", "callback", [reported])
    assert item["reportedAt"] <= item["confirmedAt"] <= item["archivedAt"]
    assert "conflicts" not in item
    assert list(archiver.objects().values()) == [PNG]
    assert contradictions(capsys) == 0
    (asked,) = providers.requests
    assert (asked.url.params["taskId"], asked.headers["authorization"]) == (
        "task12345",
        f"Bearer {API_KEYS['flux-kontext']}",
    )


@pytest.mark.parametrize(
    ("image_hosts", "status"), [("", "ARCHIVED"), ("Confirmed", "ARCHIVED"), ("Listed", "INCOMPLETE")]
)
@pytest.mark.parametrize("reported_by", Reporter)
def test_the_provider_may_name_hosts_that_are_not_listed(
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
    providers.answers[FLUX_PATH] = has(unlisted)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], archiver.server.requests) == (status, ["/a"] if status == "ARCHIVED" else [])
    if status == "INCOMPLETE":
        assert "delivery.new-host.example is not" in item["images"][0]["reason"]


def test_a_url_that_the_provider_contradicts_is_not_fetched_from_any_host(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.server.serve("forged", FORGED, "forged.example"))
    providers.answers[FLUX_PATH] = has(archiver.server.serve("true", PNG, "delivery.new-host.example"))

    assert archiver.run() == []

    assert (archiver.item()["status"], archiver.server.requests) == ("ARCHIVED", ["/true"])


def test_a_confirmed_image_that_is_not_there_yet_is_tried_again(archiver: Archiver, providers: Providers) -> None:
    reported = archiver.serve("a", status(503))
    archiver.succeed(reported)
    providers.answers[FLUX_PATH] = has(reported)

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
def test_without_an_api_key_the_other_rules_stand_alone(
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


def test_a_result_that_a_poll_reported_is_not_asked_for_again(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("a", PNG), reported_by=Reporter.POLL)

    assert archiver.run() == []

    assert archiver.item()["status"] == "ARCHIVED"
    assert providers.requests == []


def test_images_that_the_callback_left_out_are_archived(archiver: Archiver, providers: Providers) -> None:
    first, second = (archiver.server.serve(name, PNG, "cdn.acedata.cloud") for name in "ab")
    archiver.succeed(second, task=ACE)
    providers.answers[ACE_PATH] = ace_has(first, second)

    assert archiver.run(ACE) == []

    item = archiver.item(ACE)
    assert (item["status"], urls(item), item["reportedBy"]) == ("ARCHIVED", [first, second], "poll")
    assert "conflicts" not in item


def test_an_origin_image_that_the_callback_left_out_is_archived(archiver: Archiver, providers: Providers) -> None:
    origin, result = archiver.serve("o", PNG), archiver.serve("r", PNG)
    archiver.succeed(result)
    providers.answers[FLUX_PATH] = has(result, origin)

    assert archiver.run() == []

    assert [(image["kind"], image["state"]) for image in archiver.item()["images"]] == [
        ("origin", "ARCHIVED"),
        ("result", "ARCHIVED"),
    ]
    assert "conflicts" not in archiver.item()


def test_a_url_with_another_signature_is_the_same_image(archiver: Archiver, providers: Providers) -> None:
    reported, answered = (archiver.server.serve(f"a?signed={n}", PNG, HOST) for n in (1, 2))
    archiver.succeed(reported)
    providers.answers[FLUX_PATH] = has(answered)

    assert archiver.run() == []

    assert (archiver.item()["status"], urls(archiver.item())) == ("ARCHIVED", [answered])
    assert "conflicts" not in archiver.item()
    assert archiver.server.requests == ["/a?signed=2"]


def test_the_providers_order_is_the_order(archiver: Archiver, providers: Providers) -> None:
    first, second = (archiver.server.serve(n, picture(size=(8, 7 + len(n))), "cdn.acedata.cloud") for n in ("a", "bb"))
    archiver.succeed(second, first, task=ACE)
    providers.answers[ACE_PATH] = ace_has(first, second)

    assert archiver.run(ACE) == []

    assert urls(archiver.item(ACE)) == [first, second]
    assert archiver.item(ACE)["images"][1]["height"] == 9


# ------------------------------------------------------------------------------------------------ contradicted


@pytest.mark.parametrize("tries", [1, MAX_ARCHIVE_TRIES])
def test_other_urls_than_the_providers_are_never_fetched(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str], tries: int
) -> None:
    reported, answered = archiver.serve("forged", FORGED), archiver.serve("real", PNG)
    archiver.succeed(reported)
    providers.answers[FLUX_PATH] = has(answered)

    assert archiver.run(tries=tries) == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("ARCHIVED", "poll", [answered])
    (evidence,) = item["conflicts"]
    assert (evidence["status"], evidence["reportedBy"], evidence["urls"]) == ("SUCCEEDED", "callback", [reported])
    assert archiver.server.requests == ["/real"]
    assert list(archiver.objects().values()) == [PNG]
    assert contradictions(capsys) == 1


def test_one_forged_image_among_real_ones_is_enough(archiver: Archiver, providers: Providers) -> None:
    real, forged = (archiver.server.serve(name, PNG, "cdn.acedata.cloud") for name in ("real", "forged"))
    archiver.succeed(real, forged, task=ACE)
    providers.answers[ACE_PATH] = ace_has(real)

    assert archiver.run(ACE) == []

    assert (urls(archiver.item(ACE)), len(archiver.item(ACE)["conflicts"])) == ([real], 1)
    assert archiver.server.requests == ["/real"]


def test_a_result_as_another_kind_of_image_is_another_result(archiver: Archiver, providers: Providers) -> None:
    url = archiver.serve("a", PNG)
    archiver.succeed((ImageKind.ORIGIN, url, 10))
    providers.answers[FLUX_PATH] = has(url)

    assert archiver.run() == []

    assert [image["kind"] for image in archiver.item()["images"]] == ["result"]
    assert len(archiver.item()["conflicts"]) == 1


def test_a_success_that_the_provider_calls_failed_is_failed(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = archiver.serve("forged", FORGED)
    archiver.succeed(reported)
    providers.answers[FLUX_PATH] = failed

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["rank"], item["reportedBy"]) == ("FAILED", 20, "poll")
    assert (item["failure"]["reason"], item["failure"]["message"]) == ("CONTENT_POLICY", "policy")
    assert "images" not in item
    assert [evidence["urls"] for evidence in item["conflicts"]] == [[reported]]
    assert (archiver.server.requests, archiver.objects()) == ([], {})
    assert contradictions(capsys) == 1


@pytest.mark.parametrize(
    "answer",
    [running, saying({"code": 422, "msg": "Record does not exist", "data": None}), saying({"code": 404}, 404)],
    ids=["running", "unknown", "404"],
)
def test_a_success_that_the_provider_does_not_know_of_is_unconfirmed_and_polled_for(
    archiver: Archiver,
    providers: Providers,
    stream: Stream,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    reported = archiver.serve("forged", FORGED)
    archiver.succeed(reported)
    assert stream.follows() == [(TASK, FollowUp.ARCHIVE)]
    before = archiver.item()
    providers.answers[FLUX_PATH] = answer

    # The record may be written some time after the callback. The image is kept in quarantine meanwhile.
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
    assert stream.follows() == [(TASK, FollowUp.POLL_NOW)]
    # A sixth delivery of the message would do nothing.
    assert archiver.run() == []
    # Polling that ends without an answer does not make it TIMED_OUT.
    assert poll(TASK, waited_seconds=21_600)["tasks"] == []
    assert archiver.item() == item

    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)
    assert poll(TASK)["tasks"] == []
    assert stream.follows() == [(TASK, FollowUp.ARCHIVE)]
    assert contradictions(capsys) == 1
    assert archiver.run() == []
    item = archiver.item()
    assert (item["status"], urls(item), "failure" in item) == ("ARCHIVED", [answered], False)
    assert [(evidence["status"], evidence["urls"]) for evidence in item["conflicts"]] == [("SUCCEEDED", [reported])]
    assert archiver.images() == {"images/flux-kontext/task12345/result-0.png": PNG}


def test_a_correction_counts_even_if_there_is_no_room_for_more_evidence(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    for number in range(MAX_CONFLICTS + 2):
        archiver.succeed(f"https://{HOST}/{number}.png")
    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], urls(item), len(item["conflicts"])) == ("ARCHIVED", [answered], MAX_CONFLICTS)


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


# ------------------------------------------------------------------------------------------------ without an answer


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_without_an_answer_the_image_is_kept_until_it_is_confirmed(
    archiver: Archiver,
    providers: Providers,
    stream: Stream,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    reported = archiver.serve("a", PNG)
    archiver.succeed(reported)
    before = archiver.item()
    providers.answers[FLUX_PATH] = answer

    assert archiver.run() == [TASK]

    item = archiver.item()
    quarantine = {"key": QUARANTINED, "bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    (image,) = before["images"]
    kept = {"images": [{**image, "quarantine": quarantine}], "archiveTries": 1}
    assert {**item, "updatedAt": ""} == {**before, **kept, "updatedAt": ""}
    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    item = archiver.item()
    assert (item["status"], item["failure"]["reason"]) == ("UNCONFIRMED", "UNCONFIRMED")
    assert len(providers.requests) == 2
    assert (archiver.server.requests, archiver.objects(), contradictions(capsys)) == (["/a"], {QUARANTINED: PNG}, 0)

    # A poll confirms it, long after the URL has expired.
    archiver.serve("a", status(403))
    providers.answers[FLUX_PATH] = has(reported)
    stream.follows()
    assert poll(TASK)["tasks"] == []
    assert stream.follows() == [(TASK, FollowUp.ARCHIVE)]
    assert archiver.run() == []
    item = archiver.item()
    assert (item["status"], "failure" in item, "confirmedAt" in item) == ("ARCHIVED", False, True)
    assert (archiver.images(), contradictions(capsys)) == ({"images/flux-kontext/task12345/result-0.png": PNG}, 0)


def test_contradicted_images_stay_in_quarantine_as_evidence(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]

    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)
    assert archiver.run(tries=2) == []

    assert archiver.images() == {"images/flux-kontext/task12345/result-0.png": PNG}
    assert archiver.objects()[QUARANTINED] == FORGED
    assert "quarantine" not in archiver.item()["images"][0]


def test_the_bytes_are_used_although_the_confirmed_url_has_another_signature(
    archiver: Archiver, providers: Providers
) -> None:
    reported = archiver.serve("a", PNG)
    archiver.succeed(reported)
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]

    archiver.serve("a", status(403))
    providers.answers[FLUX_PATH] = has(reported.replace("sig=", "sig=another"))
    assert archiver.run(tries=2) == []

    assert archiver.images() == {"images/flux-kontext/task12345/result-0.png": PNG}


def test_bytes_of_another_url_are_not_used(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]

    providers.answers[FLUX_PATH] = has(archiver.serve("real", status(403)))
    assert archiver.run(tries=2) == [TASK]

    assert (archiver.images(), archiver.states()) == ({}, ["PENDING"])


def test_an_unconfirmed_image_is_fetched_from_a_listed_host_only(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.server.serve("a", PNG, "unlisted.example"))
    providers.answers[FLUX_PATH] = unreachable

    assert archiver.run() == [TASK]

    assert (archiver.server.requests, archiver.objects(), archiver.states()) == ([], {}, ["PENDING"])


def test_what_is_no_image_is_kept_and_refused_once_it_is_confirmed(archiver: Archiver, providers: Providers) -> None:
    reported = archiver.serve("a", b"<html>" * 9)
    archiver.succeed(reported)
    providers.answers[FLUX_PATH] = unreachable
    assert archiver.run() == [TASK]
    assert archiver.states() == ["PENDING"]

    providers.answers[FLUX_PATH] = has(reported)
    assert archiver.run(tries=2) == []

    (image,) = archiver.item()["images"]
    assert (image["state"], image["quarantine"]["key"]) == ("REJECTED", QUARANTINED)
    assert archiver.objects() == {QUARANTINED: b"<html>" * 9}


def test_a_provider_that_is_down_holds_up_no_other(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    url = archiver.server.serve("b", PNG, "cdn.acedata.cloud")
    archiver.succeed(url, task=ACE)
    providers.answers = {FLUX_PATH: unreachable, ACE_PATH: ace_has(url)}

    assert archiver.run(TASK, ACE) == [TASK]

    assert (archiver.item()["status"], archiver.item(ACE)["status"]) == ("SUCCEEDED", "ARCHIVED")


def test_a_provider_that_does_not_answer_costs_the_message_little_time(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real connection, at an address that a setting names."""
    clients: list[ProviderClient] = []

    def a_client(base_urls: dict[str, str], **how: float) -> ProviderClient:
        clients.append(ProviderClient(base_urls, **how))  # type: ignore[arg-type] # the time-out alone
        return clients[-1]

    monkeypatch.setattr(archive_images, "ProviderClient", a_client)
    monkeypatch.setattr(archive_images, "CONFIRMATION_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setenv("PROVIDER_BASE_URLS", f"flux-kontext=http://127.0.0.1:{archiver.server.port}")
    reported = archiver.serve("a", PNG)
    said = {"taskId": "task12345", "successFlag": 1, "response": {"resultImageUrl": reported}}
    path = f"{FLUX_PATH.removeprefix('/')}?taskId=task12345"
    archiver.succeed(reported)

    def silent(request: Any) -> None:
        request.close_connection = True
        request.connection.settimeout(120)
        request.connection.recv(1)  # until the client hangs up

    archiver.server.serve(path, silent)
    started_at = datetime.now(UTC)
    assert archiver.run() == [TASK]
    assert datetime.now(UTC) - started_at < timedelta(seconds=60)

    archiver.server.serve(path, content(json.dumps({"code": 200, "data": said}).encode(), "application/json"))
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "ARCHIVED"
    asked = [headers.get("authorization") for headers in archiver.server.headers]
    # The second request goes to the image's host: it has no API key.
    assert asked == [f"Bearer {API_KEYS['flux-kontext']}", None, f"Bearer {API_KEYS['flux-kontext']}"]
    clients[0].close()


def test_a_malformed_secret_archives_nothing(archiver: Archiver, providers: Providers) -> None:
    secret = archive_images.dependencies().settings.provider_keys_secret
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString='{"flux-kontext": "the key"}')
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == [TASK]

    assert (archiver.objects(), providers.requests) == ({QUARANTINED: PNG}, [])


def test_a_key_that_no_header_can_hold_is_logged_and_archives_nothing(
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


def test_what_another_run_has_corrected_meanwhile_is_not_corrected_again(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    answered = archiver.serve("real", PNG)

    def overtaken(request: httpx.Request) -> httpx.Response:
        providers.answers[FLUX_PATH] = has(answered)
        assert archiver.run() == []  # the same message once more
        return failed(request)

    providers.answers[FLUX_PATH] = overtaken

    assert archiver.run() == [TASK]
    assert (archiver.item()["status"], urls(archiver.item())) == ("ARCHIVED", [answered])
    assert archiver.run(tries=2) == []


def test_a_task_that_is_deleted_meanwhile_stays_deleted(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))

    def deleted(request: httpx.Request) -> httpx.Response:
        archiver.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
        return failed(request)

    providers.answers[FLUX_PATH] = deleted

    assert archiver.run() == [TASK]
    assert archiver.run(tries=2) == []
    assert archiver.store.items() == []


def test_a_new_report_after_a_contradicted_one_is_not_taken_for_it(archiver: Archiver, providers: Providers) -> None:
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


def test_the_same_message_many_times_at_once_ends_well(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)

    if archiver.run(*[TASK] * archive_images.MAX_MESSAGES):
        assert archiver.run(tries=2) == []

    item = archiver.item()
    assert (item["status"], urls(item), len(item["conflicts"])) == ("ARCHIVED", [answered], 1)
    assert "/forged" not in archiver.server.requests


def test_a_correction_that_is_not_written_is_made_by_the_next_message(
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


def unconfirmed(archiver: Archiver, providers: Providers, *reported: str) -> None:
    """Makes the task UNCONFIRMED after a callback with these URLs."""
    archiver.succeed(*reported)
    providers.answers[FLUX_PATH] = NO_ANSWERS["401"]
    archiver.run(tries=MAX_ARCHIVE_TRIES)
    assert archiver.item()["status"] == "UNCONFIRMED"


def test_an_accepted_task_is_archived_without_a_question(
    archiver: Archiver, providers: Providers, store: Store, stream: Stream
) -> None:
    unconfirmed(archiver, providers, archiver.serve("a", PNG))
    archiver.serve("a", status(403))
    providers.requests.clear()
    stream.follows()
    acceptance = Acceptance(store.table, now=utc_now)

    assert acceptance.plan(TASK).reason is None
    assert archiver.item()["status"] == "UNCONFIRMED"
    assert acceptance.accept(TASK).images == 1

    assert stream.follows() == [(TASK, FollowUp.ARCHIVE)]
    assert archiver.run() == []
    item = archiver.item()
    assert (item["status"], "acceptedAt" in item, "confirmedAt" in item) == ("ARCHIVED", True, False)
    assert (archiver.images(), providers.requests) == ({"images/flux-kontext/task12345/result-0.png": PNG}, [])
    assert acceptance.accept(TASK).reason == Refusal.ARCHIVED


def test_an_accepted_image_that_was_not_kept_is_expired_in_the_end(
    archiver: Archiver, providers: Providers, store: Store
) -> None:
    unconfirmed(archiver, providers, archiver.serve("gone", status(403)), archiver.serve("a", PNG))

    assert Acceptance(store.table, now=utc_now).accept(TASK).missing_images == 1

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == []
    assert (archiver.item()["status"], archiver.states()) == ("INCOMPLETE", ["EXPIRED", "ARCHIVED"])


def test_a_task_without_a_report_or_without_bytes_is_not_accepted(
    archiver: Archiver, providers: Providers, store: Store
) -> None:
    acceptance = Acceptance(store.table, now=utc_now)
    assert acceptance.accept("flux-kontext#nothing").reason == Refusal.MISSING

    unconfirmed(archiver, providers, archiver.serve("gone", status(403)))
    before = archiver.item()
    assert acceptance.accept(TASK).reason == Refusal.WITHOUT_BYTES
    assert archiver.item() == before

    providers.answers[FLUX_PATH] = failed
    poll(TASK)
    before = archiver.item()
    assert before["status"] == "FAILED"
    assert acceptance.accept(TASK).reason == Refusal.WITHOUT_CLAIM
    assert archiver.item() == before


def test_an_image_that_may_still_be_downloaded_keeps_the_task_from_being_unconfirmed(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.serve("a", status(503)))
    providers.answers[FLUX_PATH] = unreachable

    assert archiver.run(tries=MAX_ARCHIVE_TRIES) == [TASK]
    assert archiver.item()["status"] == "SUCCEEDED"

    archiver.serve("a", PNG)
    archiver.run(tries=MAX_ARCHIVE_TRIES)
    assert (archiver.item()["status"], archiver.objects()) == ("UNCONFIRMED", {QUARANTINED: PNG})
