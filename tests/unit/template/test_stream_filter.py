"""The stream's filters: they drop the records that a function would skip, and pass all that it handles."""

from itertools import product
from typing import Any

import pytest

from catchlight.models import PROBE_STATUS, Reporter, TaskStatus
from functions.dispatch_changes import app as dispatch_changes
from functions.publish_events import app as publish_events
from local.events.filters import EventFilter
from tests.unit.template.expanded import STREAM_SOURCES
from tests.unit.template.expanded import referred as referred_to

MAX_PATTERNS = 5  # Lambda's limit; AWS raises it to ten on request


def _published(records: list[dict[str, Any]]) -> list[object]:
    entries, unusable = publish_events.read_entries(records)
    return [*entries, *([unusable] if unusable else [])]


HANDLED = {
    "DispatchChangesFunction": dispatch_changes.read_changes,
    "PublishEventsFunction": _published,
}
PATTERNS = {
    referred_to(source["FunctionName"]): [found["Pattern"] for found in source["FilterCriteria"]["Filters"]]
    for source in STREAM_SOURCES.values()
}
# No image, an item without a status, and an unknown status.
STATUSES = [None, "", *TaskStatus, PROBE_STATUS, "NEW"]


def a_change(
    old: str | None, new: str | None, reported_by: str | None, hints: tuple[str, str] = ("", "")
) -> dict[str, Any]:
    def image(status: str | None, hinted_at: str) -> dict[str, Any]:
        attributes = {"task": "flux-kontext#1", "status": status, "reportedBy": reported_by, "hintedAt": hinted_at}
        return {name: {"S": value} for name, value in attributes.items() if value}

    ends = (("OldImage", old, hints[0]), ("NewImage", new, hints[1]))
    images = {name: image(status, hint) for name, status, hint in ends if status is not None}
    if hints[1]:
        images["NewImage"]["deliveries"] = {"N": "2"}
    event = "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"
    keys = {"Keys": {"task": {"S": "flux-kontext#1"}}, "SequenceNumber": "1", "ApproximateCreationDateTime": 1767658560}
    change = {**keys, **images}
    return {"eventName": event, "eventSource": "aws:dynamodb", "dynamodb": change}


def test_every_reader_of_the_stream_has_a_filter_within_lambdas_limit() -> None:
    assert PATTERNS.keys() == HANDLED.keys()
    assert all(0 < len(patterns) <= MAX_PATTERNS for patterns in PATTERNS.values())


@pytest.mark.parametrize("function", PATTERNS)
@pytest.mark.parametrize("reported_by", [None, *Reporter])
def test_the_filter_passes_the_records_that_are_handled_and_no_others(function: str, reported_by: str | None) -> None:
    event_filter = EventFilter(PATTERNS[function])
    for old, new in product(STATUSES, STATUSES):
        if old is new is None:
            continue
        record = a_change(old, new, reported_by)
        handled: list[object] = list(HANDLED[function]([record]))

        is_unpolled = old is None and new in (TaskStatus.FAILED, TaskStatus.UNCONFIRMED)
        if is_unpolled and function == "DispatchChangesFunction":
            # One pattern passes these as well, as Lambda allows only five patterns. Polls do not create items.
            assert event_filter.matches(record) or not handled, (old, new)
        else:
            assert event_filter.matches(record) == bool(handled), (old, new)


@pytest.mark.parametrize("status", ["PENDING", "TIMED_OUT", "UNCONFIRMED", "FAILED", "SUCCEEDED", "ARCHIVED"])
@pytest.mark.parametrize("before", ["", "2026-01-31T12:00:00.000Z"])
def test_the_filter_passes_a_hint_while_there_is_no_result(status: str, before: str) -> None:
    record = a_change(status, status, None, (before, "2026-01-31T12:05:00.000Z"))
    changes = list(dispatch_changes.read_changes([record]))

    # The items of this test lack the attributes that a registration writes.
    found = [change.follow_up for change in changes if change.follow_up is not dispatch_changes.FollowUp.COMPLETE]
    assert found == ([dispatch_changes.FollowUp.POLL_NOW] if status in ("PENDING", "TIMED_OUT", "UNCONFIRMED") else [])
    assert EventFilter(PATTERNS["DispatchChangesFunction"]).matches(record) == bool(changes)


@pytest.mark.parametrize(("old", "new"), [(None, PROBE_STATUS), (PROBE_STATUS, "FAILED"), ("FAILED", None)])
def test_the_filter_drops_records_of_a_probe(old: str | None, new: str | None) -> None:
    record = a_change(old, new, "callback")

    assert [function for function in PATTERNS if EventFilter(PATTERNS[function]).matches(record)] == []
