"""The stream's filter: what the dispatcher would skip is not paid for, and nothing that it handles is held back."""

from itertools import product
from typing import Any

import pytest

from functions.dispatch_changes import app as dispatch_changes
from image_tasks.models import Reporter, TaskStatus
from local.event_filters import EventFilter
from tests.unit.template.expanded import STREAM_SOURCES

(STREAM_SOURCE,) = STREAM_SOURCES.values()
STATUSES = [None, "", *TaskStatus, "NEW"]  # no image; an item without status; one that is none of ours


def a_change(old: str | None, new: str | None, reported_by: str | None) -> dict[str, Any]:
    def image(status: str | None) -> dict[str, Any]:
        attributes = {"task": "flux-kontext#1", "status": status, "reportedBy": reported_by}
        return {name: {"S": value} for name, value in attributes.items() if value}

    images = {name: image(status) for name, status in (("OldImage", old), ("NewImage", new)) if status is not None}
    event = "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"
    change = {"Keys": {"task": {"S": "flux-kontext#1"}}, "SequenceNumber": "1", **images}
    return {"eventName": event, "eventSource": "aws:dynamodb", "dynamodb": change}


@pytest.mark.parametrize("reported_by", [None, *Reporter])
@pytest.mark.parametrize(
    ("old", "new"),
    [(old, new) for old, new in product(STATUSES, STATUSES) if (old, new) != (None, None)],
)
def test_the_filter_lets_through_what_is_handled_and_nothing_else(
    old: str | None, new: str | None, reported_by: str | None
) -> None:
    record = a_change(old, new, reported_by)
    patterns = [found["Pattern"] for found in STREAM_SOURCE["FilterCriteria"]["Filters"]]

    assert EventFilter(patterns).matches(record) == bool(list(dispatch_changes.read_changes([record])))
