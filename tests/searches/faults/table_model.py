"""A minimal model of the tasks table. `table_machine` compares the real table with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from catchlight.models import ImageState, Reporter, TaskReport, TaskStatus, iso
from catchlight.tasks.reports import MAX_CONFLICTS

_FINAL = (TaskStatus.INCOMPLETE, TaskStatus.ARCHIVED)


@dataclass(frozen=True)
class Conflict:
    """An entry of `conflicts`, without its time."""

    reported_by: str
    status: str
    urls: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class Item:
    """The relevant attributes of a task's item. Functions use None for a missing item."""

    status: TaskStatus
    images: tuple[tuple[str, str], ...] = ()  # URL and state of each
    reason: str | None = None  # of a failure
    reported_by: str | None = None
    reported_at: str | None = None
    confirmed_at: str | None = None
    updated_at: str | None = None
    deliveries: int = 0
    conflicts: tuple[Conflict, ...] = ()

    @property
    def rank(self) -> int:
        return self.status.rank

    @property
    def is_unconfirmed(self) -> bool:
        return self.reported_by == Reporter.CALLBACK and self.confirmed_at is None

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(url for url, _ in self.images)

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(state for _, state in self.images)


def read(attributes: Mapping[str, Any]) -> Item:
    """Returns the relevant attributes of the real item."""
    return Item(
        TaskStatus(attributes["status"]),
        tuple((image["url"], image["state"]) for image in attributes.get("images", [])),
        attributes.get("failure", {}).get("reason"),
        attributes.get("reportedBy"),
        attributes.get("reportedAt"),
        attributes.get("confirmedAt"),
        attributes.get("updatedAt"),
        int(attributes.get("deliveries", 0)),
        tuple(
            Conflict(
                entry["reportedBy"], entry["status"], tuple(entry["urls"]), (entry.get("failure") or {}).get("reason")
            )
            for entry in attributes.get("conflicts", [])
        ),
    )


Write = Callable[[Item | None], Item | None]
"""One conditional write: a function from the item before it to the item after it (the same if the condition is false).
"""


def registration(now: str) -> list[Write]:
    """Returns the writes of a registration."""
    return [lambda item: item or Item(TaskStatus.PENDING, updated_at=now)]


def record_report(report: TaskReport, before: Item | None, *, returns_unchanged: bool) -> list[Write]:
    """Returns the successive writes for a report about a task whose item was `before`.

    `returns_unchanged`: whether UpdateItem also returns the old values of unchanged attributes. DynamoDB does, moto
    does not: if a poll replaces a failure that a poll has reported, the entry in `conflicts` has no reporter.
    """
    if before is None or (before.rank < report.status.rank and not _is_rejected_for_full_conflicts(before, report)):
        writes: list[Write] = [lambda item: _reported(report, item)]
        if before and before.status is TaskStatus.FAILED:
            is_reported = returns_unchanged or before.reported_by != report.reported_by
            writes.append(
                _adding_conflict(_conflict_of_item(before if is_reported else replace(before, reported_by=None)))
            )
        return writes
    # Rejected: the first call changes nothing.
    rejected: list[Write] = [lambda item: item]
    if not _contradicts(before, report):
        return rejected
    conflict = _conflict_of_report(report)
    if conflict in before.conflicts or len(before.conflicts) >= MAX_CONFLICTS:
        return rejected
    return [*rejected, _adding_conflict(conflict, deliveries=int(report.reported_by is Reporter.CALLBACK))]


def correction(unconfirmed: Item, answer: TaskReport) -> list[Write]:
    """Returns the write that replaces an unconfirmed report by the provider's status."""

    def write(item: Item | None) -> Item | None:
        if item is None or not _is_still_unconfirmed(unconfirmed, item):
            return item
        is_running = answer.status is TaskStatus.PENDING
        corrected = replace(
            item,
            status=answer.status,
            images=tuple((image.url, image.state.value) for image in answer.images),
            reason=_reason(answer),
            reported_by=None if is_running else answer.reported_by.value,
            reported_at=None if is_running else iso(answer.reported_at),
            confirmed_at=None,
            updated_at=iso(answer.reported_at),
        )
        if _answer_contradicts(answer, unconfirmed) and len(unconfirmed.conflicts) < MAX_CONFLICTS:
            corrected = replace(corrected, conflicts=(*item.conflicts, _conflict_of_item(unconfirmed)))
        return corrected

    return [write]


def confirmation(unconfirmed: Item, now: str) -> list[Write]:
    """Returns the write that marks a report as confirmed by the provider."""
    return [
        lambda item: (
            replace(item, confirmed_at=now, updated_at=now)
            if item and _is_still_unconfirmed(unconfirmed, item)
            else item
        )
    ]


def archiving(snapshot: Item, states: Mapping[int, ImageState], now: str) -> list[Write]:
    """Returns the write of an archive run that has read `snapshot`, and has confirmed it at `now` if necessary."""

    def write(item: Item | None) -> Item | None:
        after = tuple(states.get(index, ImageState(state)) for index, state in enumerate(snapshot.states))
        status = snapshot.status
        if ImageState.PENDING not in after:
            status = TaskStatus.ARCHIVED if set(after) == {ImageState.ARCHIVED} else TaskStatus.INCOMPLETE
        if item is None or item.rank > status.rank or len(item.images) != len(after):
            return item
        for index, (url, state) in enumerate(snapshot.images):
            is_archived = states.get(index) is ImageState.ARCHIVED
            if index in states and item.urls[index] != url:
                return item
            if not is_archived and (index in states or status in _FINAL) and item.states[index] != state:
                return item
        images = tuple(
            (url, states[index].value if index in states else state) for index, (url, state) in enumerate(item.images)
        )
        confirmed_at = item.confirmed_at or (now if snapshot.is_unconfirmed else snapshot.confirmed_at)
        return replace(item, status=status, images=images, confirmed_at=confirmed_at, updated_at=now)

    return [write]


def renewal(snapshot: Item, urls: Mapping[int, str], now: str) -> list[Write]:
    """Returns the write of fresh URLs, for a task that was read as `snapshot`."""

    def write(item: Item | None) -> Item | None:
        if item is None or not _is_as_read(snapshot, item):
            return item
        images = tuple((urls[i], "PENDING") if i in urls else image for i, image in enumerate(item.images))
        return replace(item, status=TaskStatus.SUCCEEDED, images=images, updated_at=now)

    return [write]


def restart(snapshot: Item, now: str) -> list[Write]:
    """Returns the write of a redrive that restarts polling of a TIMED_OUT task."""

    def write(item: Item | None) -> Item | None:
        if item is None or not _is_as_read(snapshot, item):
            return item
        return replace(item, status=TaskStatus.PENDING, reason=None, reported_by=None, reported_at=None, updated_at=now)

    return [write]


def outcomes(before: Item | None, writes: Sequence[Write], *, is_faulty: bool) -> list[Item | None]:
    """Returns the possible items: after all writes; with a fault after any prefix, whose last write may be repeated."""
    after = [before]
    for write in writes:
        after.append(write(after[-1]))
    if not is_faulty:
        return after[-1:]
    return after + [write(item) for write, item in zip(writes, after[1:], strict=True)]


def _is_rejected_for_full_conflicts(item: Item, report: TaskReport) -> bool:
    """Returns whether a callback is rejected because the provider has reported a failure and `conflicts` is full."""
    is_full = len(item.conflicts) >= MAX_CONFLICTS
    is_settled = item.status is TaskStatus.FAILED and not item.is_unconfirmed
    return is_full and is_settled and report.reported_by is Reporter.CALLBACK


def _reported(report: TaskReport, item: Item | None) -> Item:
    item = item or Item(report.status)
    is_running = report.status is TaskStatus.PENDING
    return replace(
        item,
        status=report.status,
        images=tuple((image.url, image.state.value) for image in report.images) or item.images,
        reason=_reason(report),
        reported_by=item.reported_by if is_running else report.reported_by.value,
        reported_at=item.reported_at if is_running else iso(report.reported_at),
        confirmed_at=None,
        updated_at=iso(report.reported_at),
        deliveries=item.deliveries + (report.reported_by is Reporter.CALLBACK),
    )


def _adding_conflict(conflict: Conflict, deliveries: int = 0) -> Write:
    def write(item: Item | None) -> Item | None:
        if item is None or len(item.conflicts) >= MAX_CONFLICTS:
            return item
        return replace(item, conflicts=(*item.conflicts, conflict), deliveries=item.deliveries + deliveries)

    return write


def _contradicts(item: Item, report: TaskReport) -> bool:
    match report.status:
        case TaskStatus.SUCCEEDED:
            return _paths(item.urls) != _paths(image.url for image in report.images)
        case TaskStatus.FAILED:
            return item.reason != _reason(report)
        case _:
            return False


def _answer_contradicts(answer: TaskReport, unconfirmed: Item) -> bool:
    if answer.status is not unconfirmed.status:
        return True
    return not set(_paths(unconfirmed.urls)) <= set(_paths(image.url for image in answer.images))


def _is_still_unconfirmed(unconfirmed: Item, item: Item) -> bool:
    return item.is_unconfirmed and (item.status, item.reported_at) == (unconfirmed.status, unconfirmed.reported_at)


def _is_as_read(snapshot: Item, item: Item) -> bool:
    return (item.status, item.updated_at) == (snapshot.status, snapshot.updated_at)


def _conflict_of_report(report: TaskReport) -> Conflict:
    urls = tuple(image.url for image in report.images)
    return Conflict(report.reported_by.value, report.status.value, urls, _reason(report))


def _conflict_of_item(item: Item) -> Conflict:
    return Conflict(item.reported_by or Reporter.CALLBACK.value, item.status.value, item.urls, item.reason)


def _reason(report: TaskReport) -> str | None:
    return report.failure.reason.value if report.failure else None


def _paths(urls: Any) -> list[str]:
    return [url.partition("?")[0] for url in urls]
