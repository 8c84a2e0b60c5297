"""A failure that only a callback has reported is unconfirmed: the next poll confirms or corrects it."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import httpx
import pytest

from catchlight.models import FailureReason, TaskStatus
from functions.dispatch_changes.app import FollowUp
from tests.integration.archiver import TASK, Archiver
from tests.integration.confirmation.conftest import Stream
from tests.integration.confirmation.reports import INCONCLUSIVE, PNG, contradictions, flux_record, report_failure, urls
from tests.integration.conftest import Store
from tests.integration.providers import (
    FLUX_PATH,
    Providers,
    failed,
    poll,
    running,
)

# ------------------------------------------------------------------------------------------------ failures


def test_a_failure_is_confirmed_by_the_next_poll(
    store: Store, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register(TASK)
    report_failure(store, FailureReason.CONTENT_POLICY)
    providers.answers[FLUX_PATH] = failed

    assert poll(TASK)["tasks"] == []

    (item,) = store.items()
    assert (item["status"], item["reportedBy"]) == ("FAILED", "callback")
    assert item["confirmedAt"] == item["updatedAt"] >= item["reportedAt"]
    assert "conflicts" not in item
    assert contradictions(capsys) == 0
    assert poll(TASK)["tasks"] == []
    assert len(providers.requests) == 1  # one request to the provider


def test_a_false_failure_is_corrected_to_the_success(
    archiver: Archiver, providers: Providers, stream: Stream, capsys: pytest.CaptureFixture[str]
) -> None:
    archiver.store.register(TASK)
    report_failure(archiver.store)
    assert stream.new_follow_ups() == [(TASK, FollowUp.POLL_LATER), (TASK, FollowUp.COMPLETE)]
    real_url = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = flux_record(real_url)

    assert poll(TASK)["tasks"] == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("SUCCEEDED", "poll", [real_url])
    assert "failure" not in item
    (conflict,) = item["conflicts"]
    assert (conflict["status"], conflict["reportedBy"], conflict["failure"]["reason"]) == (
        "FAILED",
        "callback",
        "INTERNAL",
    )
    assert contradictions(capsys) == 1
    assert stream.new_follow_ups() == [(TASK, FollowUp.ARCHIVE)]
    assert archiver.run() == []
    assert archiver.item()["status"] == "ARCHIVED"


def test_a_failure_for_another_reason_is_corrected(
    store: Store, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    report_failure(store, FailureReason.INTERNAL)
    providers.answers[FLUX_PATH] = failed

    assert poll(TASK)["tasks"] == []

    (item,) = store.items()
    assert (item["status"], item["failure"]["reason"], item["reportedBy"]) == ("FAILED", "CONTENT_POLICY", "poll")
    # Callback and record may give different reasons for the same failure: this is not a contradiction.
    assert "conflicts" not in item
    assert contradictions(capsys) == 0


@pytest.mark.parametrize("respond", [running, *INCONCLUSIVE.values()], ids=["running", *INCONCLUSIVE])
def test_an_unconfirmed_failure_is_polled_until_polling_gives_up(
    store: Store, providers: Providers, respond: Callable[[httpx.Request], httpx.Response]
) -> None:
    report_failure(store)
    before = store.items()
    providers.answers[FLUX_PATH] = respond

    assert poll(TASK)["tasks"] == [TASK]
    assert poll(TASK, wait_seconds=120, waited_seconds=21_400)["tasks"] == [TASK]
    # Polling has ended: the failure stays unconfirmed.
    assert poll(TASK, wait_seconds=120, waited_seconds=21_480)["tasks"] == []

    assert store.items() == before


def test_the_last_poll_can_contradict_a_failure(archiver: Archiver, providers: Providers) -> None:
    report_failure(archiver.store)
    providers.answers[FLUX_PATH] = flux_record(archiver.serve("real", PNG))

    assert poll(TASK, wait_seconds=120, waited_seconds=21_480)["tasks"] == []

    assert archiver.item()["status"] == "SUCCEEDED"


@pytest.mark.parametrize("keys", [{}, {"flux-kontext": {"apiKey": ""}}])
def test_without_an_api_key_a_failure_stays_unconfirmed(
    store: Store, providers: Providers, keys: dict[str, Any]
) -> None:
    (secret,) = boto3.client("secretsmanager").list_secrets()["SecretList"]
    boto3.client("secretsmanager").put_secret_value(SecretId=secret["ARN"], SecretString=json.dumps(keys))
    report_failure(store)

    assert poll(TASK)["tasks"] == []

    assert [item["status"] for item in store.items()] == ["FAILED"]
    assert providers.requests == []


def test_a_success_that_arrives_during_the_poll_is_not_overwritten(archiver: Archiver, providers: Providers) -> None:
    report_failure(archiver.store, FailureReason.CONTENT_POLICY)
    real_url = archiver.serve("real", PNG)

    def succeed_then_fail(request: httpx.Request) -> httpx.Response:
        archiver.succeed(real_url)
        return failed(request)

    providers.answers[FLUX_PATH] = succeed_then_fail

    assert poll(TASK)["tasks"] == []

    assert archiver.item()["status"] == "SUCCEEDED"
    assert "confirmedAt" not in archiver.item()


@pytest.mark.parametrize("before", [None, "TIMED_OUT", "PENDING"])
def test_polling_starts_for_an_unconfirmed_failure_without_an_execution(
    store: Store, stream: Stream, before: str | None
) -> None:
    if before:
        store.put(TASK, status=before, rank=TaskStatus(before).rank)
        stream.new_follow_ups()

    report_failure(store)

    # If the task was pending, the message of its first poll, or its running execution, confirms the failure.
    assert stream.new_follow_ups() == ([] if before == "PENDING" else [(TASK, FollowUp.POLL_NOW)])


def test_a_success_after_a_polled_failure_keeps_the_failure_as_a_conflict(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.store.register(TASK)
    providers.answers[FLUX_PATH] = failed
    poll(TASK)

    archiver.succeed(archiver.serve("a", PNG))

    assert [conflict["reportedBy"] for conflict in archiver.item()["conflicts"]] == ["poll"]
