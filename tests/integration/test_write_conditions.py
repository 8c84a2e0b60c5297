"""Tests each clause of every conditional write alone.

Each case begins with an item that meets the condition. Then one attribute is changed so that exactly one clause fails,
and the write must not change the item. A missing clause, or OR in place of AND, makes at least one case fail.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchlight.api.idempotency import IdempotencyRecord, IdempotencyState, IdempotencyStore
from catchlight.errors import StoreUnavailableError
from catchlight.models import Image, ImageKind, ImageState, Reporter, TaskReport, TaskStatus
from catchlight.tasks.registration import new_task
from catchlight.tasks.task import Task
from tests.integration.conftest import TABLE_NAME, Store

TASK = "flux-kontext#task12345"
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
THEN, LATER = "2026-01-31T11:00:00.000Z", "2026-01-31T11:30:00.000Z"
ABSENT = object()


def image(name: str, state: ImageState = ImageState.PENDING) -> Image:
    return Image(
        kind=ImageKind.RESULT, url=f"https://h.example/{name}", expires_at=NOW + timedelta(days=1), state=state
    )


def stored_image(name: str, state: str = "PENDING") -> dict[str, str]:
    return {
        "kind": "result",
        "url": f"https://h.example/{name}",
        "expiresAt": "2026-02-01T12:00:00.000Z",
        "state": state,
    }


def report(*images: Image, reporter: Reporter = Reporter.POLL) -> TaskReport:
    return TaskReport(
        provider="flux-kontext",
        task_id="task12345",
        status=TaskStatus.SUCCEEDED,
        reported_by=reporter,
        reported_at=NOW,
        images=images or (image("a"), image("b")),
    )


def task(store: Store) -> Task:
    """Returns the task as the writer reads it, before the item is changed."""
    found = store.table.get(TASK)
    assert found is not None
    return found


SUCCEEDED = {
    "status": "SUCCEEDED",
    "rank": 30,
    "reportedBy": "callback",
    "reportedAt": THEN,
    "updatedAt": THEN,
    "images": [stored_image("a"), stored_image("b")],
}
ONE_OTHER_IMAGE = {"images": [stored_image("a"), stored_image("c")]}
NOT_AS_READ: dict[str, Mapping[str, Any]] = {
    "another status": {"status": "FAILED"},
    "changed since": {"updatedAt": LATER},
    "no time of change": {"updatedAt": ABSENT},
    "no item": {"task": ABSENT},
}
NOT_UNCONFIRMED_AS_READ: dict[str, Mapping[str, Any]] = {
    "another status": {"status": "FAILED"},
    "reported by a poll": {"reportedBy": "poll"},
    "another report": {"reportedAt": LATER},
    "confirmed": {"confirmedAt": LATER},
    "no item": {"task": ABSENT},
}


@dataclass(frozen=True)
class Write:
    """A conditional write, an item that meets its condition, and differences with which the item does not."""

    call: Callable[[Store, Task], object]
    item: Mapping[str, Any]
    refusals: Mapping[str, Mapping[str, Any]]
    accepts: Mapping[str, Mapping[str, Any]]  # differences with which the item still meets the condition


def _settle(state: ImageState, *indices: int) -> Callable[[Store, Task], object]:
    settled = {index: image("ab"[index], state) for index in indices}
    return lambda store, read: store.images.save(read, settled, now=NOW)


WRITES = {
    "a report": Write(
        lambda store, _: store.reports.record(report()),
        {"status": "FAILED", "rank": 29, "updatedAt": THEN},
        {"the same rank": {"rank": 30}, "a higher rank": {"rank": 31}},
        {"no rank": {"rank": ABSENT}, "no item": {"task": ABSENT}, "the lowest rank": {"rank": 0}},
    ),
    "a correction": Write(
        lambda store, read: store.confirmations.correct(read, report(image("c"))),
        SUCCEEDED,
        NOT_UNCONFIRMED_AS_READ,
        {"changed otherwise": {"updatedAt": LATER}},
    ),
    "a confirmation": Write(
        lambda store, read: store.confirmations.confirm(read, report()),
        SUCCEEDED,
        NOT_UNCONFIRMED_AS_READ,
        {"changed otherwise": {"updatedAt": LATER}},
    ),
    "a renewal": Write(
        lambda store, read: store.images.replace(read, {0: image("c")}, now=NOW),
        SUCCEEDED,
        NOT_AS_READ,
        {"confirmed": {"confirmedAt": LATER}},
    ),
    "a restart": Write(
        lambda store, read: store.restarts.reopen(read, now=NOW),
        {"status": "TIMED_OUT", "rank": 10, "updatedAt": THEN},
        NOT_AS_READ,
        {"with another attribute": {"note": "by hand"}},
    ),
    "both images archived": Write(
        _settle(ImageState.ARCHIVED, 0, 1),
        SUCCEEDED,
        {
            "a higher rank": {"rank": 51},
            "more images": {"images": [*SUCCEEDED["images"], stored_image("c")]},  # type: ignore[misc]
            "another URL": ONE_OTHER_IMAGE,
            "no item": {"task": ABSENT},
        },
        {
            "archived by another run": {"images": [stored_image("a", "ARCHIVED"), stored_image("b")]},
            "the same rank": {"rank": 50},
        },
    ),
    "the first image archived": Write(
        _settle(ImageState.ARCHIVED, 0),
        SUCCEEDED,
        {
            "a higher rank": {"rank": 31},
            "more images": {"images": [*SUCCEEDED["images"], stored_image("c")]},  # type: ignore[misc]
            "another URL": {"images": [stored_image("c"), stored_image("b")]},
        },
        {
            "the other one renewed": ONE_OTHER_IMAGE,
            "the other one archived": {"images": [stored_image("a"), stored_image("b", "ARCHIVED")]},
            "the same rank": {"rank": 30},
        },
    ),
    "both images refused": Write(
        _settle(ImageState.REJECTED, 0, 1),
        SUCCEEDED,
        {
            "a higher rank": {"rank": 41},
            "another URL": ONE_OTHER_IMAGE,
            "the first one archived": {"images": [stored_image("a", "ARCHIVED"), stored_image("b")]},
            "the second one archived": {"images": [stored_image("a"), stored_image("b", "ARCHIVED")]},
        },
        {"the same rank": {"rank": 40}},
    ),
    "the first image refused": Write(
        _settle(ImageState.EXPIRED, 0),
        SUCCEEDED,
        {"that one archived": {"images": [stored_image("a", "ARCHIVED"), stored_image("b")]}},
        {"the other one archived": {"images": [stored_image("a"), stored_image("b", "ARCHIVED")]}},
    ),
    "the last image archived": Write(
        _settle(ImageState.ARCHIVED, 1),
        SUCCEEDED | {"images": [stored_image("a", "ARCHIVED"), stored_image("b")]},
        {"the other one renewed": {"images": [stored_image("c"), stored_image("b")]}},
        {"the other one from another URL": {"images": [stored_image("c", "ARCHIVED"), stored_image("b")]}},
    ),
    "polling noted": Write(
        lambda store, read: store.restarts.note_polling(read, now=NOW),
        {"status": "PENDING", "rank": 0, "updatedAt": THEN},
        NOT_AS_READ,
        {"noted before": {"reconciledAt": THEN}},
    ),
    "archiving noted": Write(
        lambda store, read: store.restarts.note_restart(read, now=NOW),
        SUCCEEDED,
        NOT_AS_READ,
        {"noted before": {"reconciledAt": THEN}},
    ),
}


def _differing(item: Mapping[str, Any], difference: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**item, **difference}.items() if value is not ABSENT}


def _change(store: Store, item: Mapping[str, Any], difference: Mapping[str, Any]) -> dict[str, Any] | None:
    """Writes the item with this difference, and returns the stored item."""
    if difference.get("task") is ABSENT:
        store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
    else:
        store.put(TASK, **_differing(item, difference))
    return store.item(TASK)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, write in WRITES.items() for case in write.refusals])
def test_each_clause_alone_prevents_the_write(store: Store, name: str, case: str) -> None:
    write = WRITES[name]
    store.put(TASK, **write.item)
    read = task(store)
    before = _change(store, write.item, write.refusals[case])

    write.call(store, read)

    after = store.item(TASK)
    # A contradicting report is kept as evidence.
    if after and name == "a report":
        after.pop("conflicts", None)
    assert after == before


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, write in WRITES.items() for case in ("as read", *write.accepts)]
)
def test_other_differences_do_not_prevent_the_write(store: Store, name: str, case: str) -> None:
    write = WRITES[name]
    store.put(TASK, **write.item)
    read = task(store)
    before = _change(store, write.item, write.accepts.get(case, {}))

    write.call(store, read)

    assert store.item(TASK) != before


# ------------------------------------------------------------------------------------------------ idempotency keys

KEY = "order-1"
RECORD = IdempotencyRecord(key=KEY, provider="flux-kontext", fingerprint="f", attempt="mine", asked_at=THEN)


def _records(store: Store) -> IdempotencyStore:
    return IdempotencyStore(TABLE_NAME, store.client)


def _reserved(store: Store, **differing: Any) -> dict[str, Any] | None:
    _records(store).reserve(RECORD)
    for name, value in differing.items():
        store.client.update_item(
            TableName=TABLE_NAME,
            Key={"task": {"S": f"#submission#{KEY}"}},
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": {"S": value}},
        )
    return store.item(f"#submission#{KEY}")


NOT_HELD = {
    "another attempt in progress": {"attempt": "another"},
    "mine, outcome unknown": {"state": "UNKNOWN_OUTCOME"},
    "mine, completed": {"state": "COMPLETED"},
    "mine, released": {"state": "RELEASED"},
}


@pytest.mark.parametrize("case", NOT_HELD)
def test_a_late_attempt_neither_releases_nor_changes_a_key_that_it_does_not_hold(store: Store, case: str) -> None:
    before = _reserved(store, **NOT_HELD[case])

    assert _records(store).release(RECORD) is False
    _records(store).record_unknown_outcome(RECORD, "no answer came")

    assert store.item(f"#submission#{KEY}") == before


@pytest.mark.parametrize(
    ("state", "is_reserved"),
    [("IN_PROGRESS", False), ("UNKNOWN_OUTCOME", False), ("COMPLETED", False), ("RELEASED", True)],
)
def test_a_key_with_a_record_is_reserved_only_if_it_was_released(store: Store, state: str, is_reserved: bool) -> None:
    _reserved(store, state=state)
    second = RECORD.model_copy(update={"attempt": "second"})

    holder = _records(store).reserve(second)

    assert holder.attempt == ("second" if is_reserved else "mine")
    assert holder.state == (IdempotencyState.IN_PROGRESS if is_reserved else state)
    item = store.item(f"#submission#{KEY}")
    assert item is not None
    assert (item["attempt"], item["state"]) == (holder.attempt, holder.state.value)


def test_a_late_attempt_does_not_complete_a_key_that_it_does_not_hold(store: Store) -> None:
    before = _reserved(store, attempt="another")

    with pytest.raises(StoreUnavailableError):
        _records(store).complete(RECORD, "task12345", new_task("flux-kontext", "task12345", now=NOW))

    assert store.items() == [before]


@pytest.mark.parametrize("state", list(IdempotencyState))
def test_an_attempt_with_a_task_id_completes_its_key_in_every_state(store: Store, state: IdempotencyState) -> None:
    _reserved(store, state=state.value, reason="no answer came")

    _records(store).complete(RECORD, "task12345", new_task("flux-kontext", "task12345", now=NOW))

    item = store.item(f"#submission#{KEY}")
    assert item is not None
    assert (item["state"], item["taskId"]) == ("COMPLETED", "task12345")
    assert "reason" not in item
