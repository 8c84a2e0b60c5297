"""The log lines and metrics of PollTasks when a round or a part of it fails."""

import json
from collections.abc import Callable
from dataclasses import replace

import boto3
import httpx
import pytest

from catchlight.errors import StoreUnavailableError
from catchlight.models import FailureReason
from catchlight.recovery.deliveries import DeliveryStore
from catchlight_cli.repair.replaying import replay
from functions.poll_tasks import app
from tests.canary_secrets import API_KEYS
from tests.conftest import FakeLambdaContext
from tests.integration.confirmation.reports import report_failure
from tests.integration.conftest import Store
from tests.integration.fault_injection import counted, every_aws_fault, every_fault, failing, reported, warned
from tests.integration.functions import a_secret
from tests.integration.providers import (
    FLUX,
    FLUX_PATH,
    NANO,
    NANO_PATH,
    Providers,
    failed,
    json_response,
    poll,
    record,
    status_of,
    succeeded,
    timed_out,
    unreachable,
)


@every_fault
@pytest.mark.parametrize("operation", ["BatchGetItem", "GetSecretValue"])
def test_a_failed_round_is_logged_with_its_tasks_and_counted(
    store: Store,
    providers: Providers,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    fault: Exception,
) -> None:
    store.register(FLUX, NANO)
    kind = "KeyError" if isinstance(fault, KeyError) else "StoreUnavailableError"

    with failing(operation, fault), pytest.raises((StoreUnavailableError, KeyError)):
        poll(FLUX, NANO)

    assert reported(caplog.records, FLUX) == reported(caplog.records, NANO) == {kind}
    assert counted(capsys) == [kind]


@every_fault
def test_a_result_that_cannot_be_written_does_not_delay_the_others_and_is_written_later(
    store: Store,
    providers: Providers,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
) -> None:
    store.register(FLUX, NANO)
    providers.answers |= {FLUX_PATH: succeeded, NANO_PATH: succeeded}
    kind = "KeyError" if isinstance(fault, KeyError) else "StoreUnavailableError"

    with failing("UpdateItem", fault, when=lambda parameters: parameters["Key"] == {"task": {"S": FLUX}}):
        next_state = poll(FLUX, NANO)

    assert next_state["tasks"] == [FLUX]
    assert (status_of(store, FLUX), status_of(store, NANO)) == ("PENDING", "SUCCEEDED")
    assert reported(caplog.records, FLUX) == {kind}
    counts = capsys.readouterr().out
    assert counts.count('"ResolvedByPoll":[1.0]') == 1
    assert counts.count('"ProcessingErrors":[1.0]') == 1

    assert poll(*next_state["tasks"])["tasks"] == []
    assert status_of(store, FLUX) == "SUCCEEDED"


@every_fault
def test_an_unconfirmed_failure_whose_confirmation_cannot_be_written_is_polled_again(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    store.register(FLUX)
    report_failure(store, FailureReason.OTHER, FLUX)
    providers.answers[FLUX_PATH] = failed
    kind = "KeyError" if isinstance(fault, KeyError) else "StoreUnavailableError"

    with failing("UpdateItem", fault):
        # Also after GiveUpAfterSeconds: otherwise, the failure would never be confirmed.
        assert poll(FLUX, waited_seconds=21_600)["tasks"] == [FLUX]
    assert reported(caplog.records, FLUX) == {kind}

    assert poll(FLUX)["tasks"] == []


@every_aws_fault
def test_a_replaced_failure_that_could_not_be_kept_is_logged_with_its_task(
    store: Store,
    providers: Providers,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
) -> None:
    store.register(FLUX)

    def record_a_failure_then_succeed(request: httpx.Request) -> httpx.Response:
        report_failure(store, FailureReason.OTHER, FLUX)
        return succeeded(request)

    providers.answers[FLUX_PATH] = record_a_failure_then_succeed

    with failing("UpdateItem", fault, when=lambda parameters: "list_append" in str(parameters)):
        assert poll(FLUX)["tasks"] == []

    assert status_of(store, FLUX) == "SUCCEEDED"
    assert reported(caplog.records, FLUX) == {"StoreUnavailableError"}
    assert counted(capsys) == ["StoreUnavailableError"]


def test_the_end_of_polling_that_cannot_be_written_is_not_retried_every_second(
    store: Store, providers: Providers
) -> None:
    # A poll every second would exceed the limit of the execution's history.
    store.register(FLUX)

    with failing("UpdateItem", KeyError("bug")):
        assert poll(FLUX, wait_seconds=120, waited_seconds=21_480)["waitSeconds"] == 120


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (unreachable, "ProviderUnavailableError"),
        (timed_out, "ProviderUnavailableError"),
        (json_response("no object"), "UnreadableAnswerError"),
        (json_response({}, 429), "ProviderBusyError"),
        (json_response({}, 401), "ProviderRefusedError"),
    ],
    ids=["unreachable", "timed out", "not readable", "busy", "refused"],
)
def test_tasks_without_an_answer_are_logged_and_counted(
    store: Store,
    providers: Providers,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[httpx.Request], httpx.Response],
    error: str,
) -> None:
    store.register(FLUX)
    providers.answers[FLUX_PATH] = answer

    assert poll(FLUX)["tasks"] == [FLUX]

    assert warned(caplog.records, FLUX) == {error}
    written = capsys.readouterr().out
    assert '"PollErrors":[1.0]' in written
    assert '"TasksUnanswered":[1.0]' in written


def test_tasks_that_were_not_polled_for_lack_of_time_are_logged(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register(FLUX)

    poll(FLUX, context=FakeLambdaContext(remaining_seconds=app.RESERVED_SECONDS - 1))

    (line,) = [vars(record) for record in caplog.records if record.levelname == "WARNING"]
    assert line["tasks"] == [FLUX]
    assert counted(capsys, "TasksUnanswered") == ["flux-kontext"]


def test_a_bug_in_one_request_is_reported_and_does_not_affect_the_others(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug(request: httpx.Request) -> httpx.Response:
        raise KeyError("bug")

    store.register(FLUX, NANO)
    providers.answers |= {FLUX_PATH: bug, NANO_PATH: succeeded}

    assert poll(FLUX, NANO)["tasks"] == [FLUX]

    assert status_of(store, NANO) == "SUCCEEDED"
    assert reported(caplog.records, FLUX) == {"KeyError"}
    assert counted(capsys) == ["KeyError"]


def test_a_malformed_key_of_one_provider_does_not_affect_the_others(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"flux-kontext": "no object", "nanobanana": {"apiKey": API_KEYS["nanobanana"]}}
    monkeypatch.setenv("PROVIDER_KEYS_SECRET", a_secret("malformed", json.dumps(keys)))
    store.register(FLUX, NANO)
    providers.answers[NANO_PATH] = succeeded

    assert poll(FLUX, NANO)["tasks"] == [FLUX]

    assert status_of(store, NANO) == "SUCCEEDED"
    assert reported(caplog.records, FLUX) == {"SettingsError"}


def test_an_item_that_cannot_be_read_is_reported(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put(FLUX, status="PENDING", rank="high")

    assert poll(FLUX, "no key")["tasks"] == []

    errors = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert {error["task"]: error["reason"] for error in errors} == {
        "no key": "expected provider#taskId",
        FLUX: "rank",
    }
    assert counted(capsys) == ["UnreadableItem"] * 2


def test_a_success_without_a_readable_url_ends_polling_and_can_be_replayed(
    store: Store, providers: Providers, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = boto3.client("s3")
    store.register(FLUX)
    providers.answers[FLUX_PATH] = lambda request: record(
        request, successFlag=1, response={"resultImageUrl": "https://h.example/".ljust(9000, "x")}
    )

    # While S3 does not store the response, the task is polled again.
    assert poll(FLUX)["tasks"] == [FLUX]
    assert status_of(store, FLUX) == "PENDING"

    s3.create_bucket(Bucket="images-bucket")
    app.dependencies.cache_clear()
    capsys.readouterr()
    assert poll(FLUX)["tasks"] == []

    item = store.item(FLUX)
    assert item is not None
    assert (item["status"], item["failure"]["reason"]) == ("FAILED", "OTHER")
    assert "no image URL in its answer can be read" in item["failure"]["message"]
    assert any("could not be read and was stored" in line.message for line in caplog.records)
    assert '"RejectedDeliveries":[1.0]' in capsys.readouterr().out
    # The replay reads a body with a valid URL, as a later version would.
    deliveries = DeliveryStore(s3, "images-bucket")
    ((key, delivery),) = deliveries
    body = json.loads(delivery.body)
    body["data"]["response"]["resultImageUrl"] = "https://h.example/a.png"
    deliveries.keep(replace(delivery, body=json.dumps(body).encode()))
    deliveries.remove(key)
    assert [replayed.outcome for replayed in replay(deliveries, store.reports)] == ["applied"]
    assert status_of(store, FLUX) == "SUCCEEDED"
