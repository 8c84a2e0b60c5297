"""StackReader reads counts of tasks by status, and stored deliveries, for the gallery."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from catchlight.client.stack import StackChoice
from catchlight.models import TaskStatus, utc_now
from catchlight.recovery.deliveries import ACCEPTED_PREFIX, PREFIX, DeliveryStore, StoredDelivery
from catchlight_cli.gallery.stack_reader import StackReader
from tests.canary_secrets import CALLBACK_TOKEN
from tests.integration.cli.conftest import STACK_NAME, Deployed
from tests.tasks_api_in_memory import a_task

HOUR = timedelta(hours=1)


@pytest.fixture
def reader(deployed: Deployed) -> Iterator[StackReader]:
    with closing(StackReader(lambda: StackChoice(stack_name=STACK_NAME).find())) as reader:
        yield reader


def keep(deployed: Deployed, prefix: str, body: str, at: datetime) -> None:
    store = DeliveryStore(boto3.client("s3"), deployed.resources["ImagesBucket"], prefix)
    store.keep(StoredDelivery("flux-kontext", at, "applied", {"user-agent": "kie"}, body.encode()))


def test_tasks_are_counted_by_status_and_time(
    deployed: Deployed, reader: StackReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.put("flux-kontext#1", "FAILED")
    deployed.put("flux-kontext#2", "FAILED", 2 * HOUR)
    deployed.put("flux-kontext#3", "ARCHIVED", 2 * HOUR)
    expected = {TaskStatus.FAILED: 2, TaskStatus.ARCHIVED: 1}

    counts = reader.count(None).counts
    assert counts == {status: expected.get(status, 0) for status in TaskStatus}
    assert reader.count(utc_now() - HOUR).counts == {status: int(status is TaskStatus.FAILED) for status in TaskStatus}

    deployed.put("flux-kontext#4", "FAILED")
    assert reader.count(None).counts == counts  # cached for some minutes
    monkeypatch.setattr("catchlight_cli.gallery.stack_reader._COUNT_MAX_AGE_SECONDS", -1)
    monkeypatch.setattr("catchlight_cli.gallery.stack_reader.cost_of_counting", lambda _: "five cents")
    assert reader.count(None).counts is None
    assert reader.count(utc_now() - HOUR).counts is not None


def test_stored_deliveries_of_a_task_are_found(deployed: Deployed, reader: StackReader) -> None:
    now = utc_now()
    keep(deployed, ACCEPTED_PREFIX, '{"taskId": "task1"}', now)
    keep(deployed, ACCEPTED_PREFIX, '{"taskId": "task2"}', now)
    keep(deployed, PREFIX, "task1, not in JSON", now)

    found = reader.deliveries(a_task("task1", arrived_at=now - timedelta(seconds=8.4))).deliveries

    assert sorted((each.key.partition("/")[0], each.outcome, each.headers["user-agent"]) for each in found) == [
        ("deliveries", "applied", "kie"),
        ("rejected", "applied", "kie"),
    ]
    bodies = "".join(each.body for each in found)
    assert '"taskId": "task1"' in bodies
    assert "task1, not in JSON" in bodies


def test_callback_urls_in_deliveries_of_earlier_versions_are_redacted(
    deployed: Deployed, reader: StackReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = utc_now()
    keep(deployed, ACCEPTED_PREFIX, '{"taskId": "task1"}', now)
    body = f'{{"taskId": "task1", "url": "https://api.example/callbacks/flux-kontext/{CALLBACK_TOKEN}"}}'.encode()
    # The delivery is not stored in the bucket: the search for canary secrets would find its token.
    stored = StoredDelivery("flux-kontext", now, "applied", {}, body)
    monkeypatch.setattr(DeliveryStore, "_read", lambda *_: stored)

    (found,) = reader.deliveries(a_task("task1", arrived_at=now - timedelta(seconds=8.4))).deliveries

    assert "/callbacks/flux-kontext/" in found.body
    assert CALLBACK_TOKEN not in found.body


@pytest.mark.parametrize(
    "more",
    [
        {"reported_at": None},
        {"reported_at": "2026-01-06T00:17:05.000Z"},
        {"reported_at": "yesterday"},  # edited by hand
        {"reported_at": "2026-01-06T00:17:05", "hinted_at": "2026-01-06T00:17:05.000Z"},  # one without a time zone
    ],
)
def test_deliveries_that_arrived_at_other_times_are_not_read(
    deployed: Deployed, reader: StackReader, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    keep(deployed, ACCEPTED_PREFIX, '{"taskId": "task1"}', datetime(2026, 1, 6, tzinfo=UTC))  # stored today
    monkeypatch.setattr(DeliveryStore, "_read", lambda *_: pytest.fail("read"))

    assert reader.deliveries(a_task("task1", **more)).deliveries == ()
