"""Checks a history against the guarantees of the pipeline. Every check yields its violations.

what is acknowledged is known       a callback answered with 200 is in the task's item, as its result or in `conflicts`
statuses only move up               except when the provider's status corrects or confirms a callback's report
ARCHIVED means bytes                results were in the bucket before the item was ARCHIVED; each image is the true one
nothing is made up                  an item contains only reports of its provider or of senders with a valid token
evidence stays                      entries of `conflicts` are added, never removed
once                                an object is put once; a task succeeds again only after a correction
every final status is an event      an arrival at a final status is published, with one `eventId`
an event is published once          a second time only by a run after one that failed
one run at a time                   no run receives a message that another run still handles
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.searches.soak.callers import Delivery
from tests.searches.soak.history import Change, Event, Handling, History, Put, Run, TaskRecord
from tests.searches.soak.reported_state import RUNNING, ReportedState

MAX_CONFLICTS = 10
MAX_URLS_PER_CONFLICT = 4
# These functions poll the provider, and may correct a task by its answer.
_CORRECTORS = frozenset({"PollTasksFunction", "ArchiveImagesFunction"})
_RESULTS = frozenset({"SUCCEEDED", "INCOMPLETE", "ARCHIVED"})
_FINAL = frozenset({"TIMED_OUT", "FAILED", "UNCONFIRMED", "INCOMPLETE", "ARCHIVED"})
PUBLISHER = "PublishEventsFunction"
# The request of a run that is killed may still be on its way to the service.
ARRIVES_WITHIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A guarantee that was violated."""

    promise: str
    task: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.task}: {self.what}"


def check_history(history: History, images: Mapping[str, str]) -> list[Violation]:
    """Returns all violations; `images` are the true images' SHA-256 in hex, by the paths of their URLs."""
    by_task = history.changes_by_task()
    deliveries: dict[str, list[Delivery]] = {}
    for delivery in history.deliveries:
        deliveries.setdefault(delivery.task, []).append(delivery)
    said: dict[str, dict[ReportedState, float]] = {}
    for (task, reported), at in history.said.items():
        said.setdefault(task, {})[reported] = at
    puts: dict[str, list[Put]] = {}
    for put in history.puts:
        puts.setdefault(put.key, []).append(put)
    events: dict[str, list[Event]] = {}
    for event in history.events:
        events.setdefault(event.task, []).append(event)
    failed = [run for run in history.runs if run.function == PUBLISHER and run.has_failed]
    violations = [*_puts_once(puts), *_one_run_at_a_time(history.handlings)]
    for task in sorted(by_task.keys() | deliveries.keys()):
        changes, sent, answers = by_task.get(task, []), deliveries.get(task, []), said.get(task, {})
        violations += _acknowledged_is_known(task, changes, sent)
        violations += _only_up(task, changes, answers)
        violations += _archived_means_bytes(task, changes, puts, images)
        violations += _nothing_made_up(task, changes, sent, answers)
        violations += _evidence_stays(task, changes)
        violations += _succeeds_once(task, changes)
        violations += _published(task, changes, events.get(task, []))
        violations += _published_once(task, events.get(task, []), failed)
    return violations


def _acknowledged_is_known(task: str, changes: Sequence[Change], sent: Sequence[Delivery]) -> Iterator[Violation]:
    for delivery in sent:
        if delivery.status != 200:
            continue
        known = [change.after for change in changes if change.at <= delivery.answered_at and change.after]
        if not any(_knows(record, delivery.says) for record in known):
            yield Violation("what is acknowledged is known", task, f"nobody knows of {delivery.says}")


def _knows(record: TaskRecord, says: ReportedState) -> bool:
    if record.reported == says:
        return True
    evidence = ReportedState(says.status, says.paths[:MAX_URLS_PER_CONFLICT], says.reason)
    return evidence in record.conflicts or len(record.conflicts) >= MAX_CONFLICTS


def _only_up(task: str, changes: Sequence[Change], said: Mapping[ReportedState, float]) -> Iterator[Violation]:
    for change in changes:
        before, after = change.before, change.after
        if after is None:
            yield Violation("statuses only move up", task, f"{change.writer or 'somebody'} removed the item")
        elif before is not None and after.rank < before.rank and not _is_correction(change, before, after, said):
            yield Violation(
                "statuses only move up",
                task,
                f"{change.writer} moved it from {before.status} to {after.status}",
            )


def _is_correction(change: Change, before: TaskRecord, after: TaskRecord, said: Mapping[ReportedState, float]) -> bool:
    if change.writer == "":
        # An operator may reopen a task that was given up: archiving of the same images, or polling from the start.
        is_reopened = (before.status, after.status) == ("INCOMPLETE", "SUCCEEDED") and before.reported == after.reported
        return is_reopened or (before.status, after.status) == ("TIMED_OUT", "PENDING")
    if change.writer not in _CORRECTORS:
        return False
    if (before.status, after.status) == ("UNCONFIRMED", "SUCCEEDED") and before.reported == after.reported:
        # Its service confirms the callback's report, or reports the same result itself, which needs no confirmation.
        is_of_service = after.is_confirmed or after.reported_by == "poll"
        return is_of_service and _was_said(after.reported, said, change.at)
    is_unconfirmed = before.reported_by == "callback" and not before.is_confirmed
    evidence = ReportedState(
        before.reported.status, before.reported.paths[:MAX_URLS_PER_CONFLICT], before.reported.reason
    )
    is_kept = evidence in after.conflicts or len(before.conflicts) >= MAX_CONFLICTS
    return is_unconfirmed and is_kept and _was_said(after.reported, said, change.at)


def _was_said(reported: ReportedState, said: Mapping[ReportedState, float], by: float) -> bool:
    return said.get(reported, float("inf")) <= by


def _archived_means_bytes(
    task: str, changes: Sequence[Change], puts: Mapping[str, Sequence[Put]], images: Mapping[str, str]
) -> Iterator[Violation]:
    for change in changes:
        if change.after is None:
            continue
        states = {image.state for image in change.after.images if image.kind != "origin"}
        if change.after.status == "ARCHIVED" and states != {"ARCHIVED"}:
            yield Violation("ARCHIVED means bytes", task, f"its images are {', '.join(sorted(states)) or 'none'}")
        for image in change.after.images:
            if image.state != "ARCHIVED":
                continue
            stored = [_hex(put.sha256) for put in puts.get(image.key or "", ()) if put.at <= change.at]
            if image.sha256 is None or image.sha256 not in stored:
                yield Violation("ARCHIVED means bytes", task, f"{image.key} was not in the bucket by then")
            elif image.sha256 != images.get(image.path):
                yield Violation("ARCHIVED means bytes", task, f"{image.key} is not the image at {image.path}")


def _hex(checksum: str | None) -> str | None:
    return base64.b64decode(checksum).hex() if checksum else None


def _nothing_made_up(
    task: str, changes: Sequence[Change], sent: Sequence[Delivery], said: Mapping[ReportedState, float]
) -> Iterator[Violation]:
    for change in changes:
        if change.after is None:
            continue
        news = [] if change.before and change.before.reported == change.after.reported else [change.after.reported]
        known = change.before.conflicts if change.before else ()
        for reported in [*news, *(conflict for conflict in change.after.conflicts if conflict not in known)]:
            if not _has_a_source(reported, change, sent, said):
                yield Violation("nothing is made up", task, f"{change.writer or 'somebody'} wrote {reported}")


def _has_a_source(
    reported: ReportedState, change: Change, sent: Sequence[Delivery], said: Mapping[ReportedState, float]
) -> bool:
    if change.writer == "" and reported == RUNNING:
        return True  # registered
    if change.writer == "PollTasksFunction" and reported.status == "TIMED_OUT":
        return True
    return any(_is_beginning(reported, says) for says, at in said.items() if at <= change.at) or any(
        _is_beginning(reported, delivery.says)
        for delivery in sent
        if delivery.is_authorized and delivery.sent_at <= change.at
    )


def _is_beginning(reported: ReportedState, said: ReportedState) -> bool:
    """Returns whether both reports are equal; of a conflict's images only the first are stored."""
    return reported in (said, ReportedState(said.status, said.paths[:MAX_URLS_PER_CONFLICT], said.reason))


def _evidence_stays(task: str, changes: Sequence[Change]) -> Iterator[Violation]:
    for change in changes:
        if change.before and change.after:
            lost = [conflict for conflict in change.before.conflicts if conflict not in change.after.conflicts]
            if lost:
                yield Violation("evidence stays", task, f"{change.writer} dropped {lost}")


def _puts_once(puts: Mapping[str, Sequence[Put]]) -> Iterator[Violation]:
    for key, written in puts.items():
        if key.startswith("images/") and len(written) > 1:
            yield Violation("once", task_of(key), f"{key} was put {len(written)} times")


def _succeeds_once(task: str, changes: Sequence[Change]) -> Iterator[Violation]:
    has_succeeded = False
    for change in changes:
        was = change.before is not None and change.before.status in _RESULTS
        now = change.after is not None and change.after.status in _RESULTS
        if now and not was:
            if has_succeeded:
                yield Violation("once", task, f"{change.writer} let it succeed again without a correction")
            has_succeeded = True
        elif was and not now:
            has_succeeded = False


def _published(task: str, changes: Sequence[Change], events: Sequence[Event]) -> Iterator[Violation]:
    ids: dict[tuple[str, str], set[str]] = {}
    for event in events:
        ids.setdefault((event.status, event.changed_at), set()).add(event.event_id)
    arrivals = {
        (change.after.status, change.after.updated_at or "") for change in changes if change.after and _arrives(change)
    }
    for status, changed_at in sorted(arrivals - ids.keys()):
        yield Violation("every final status is an event", task, f"its {status} at {changed_at} was not published")
    for status, changed_at in sorted(ids.keys() - arrivals):
        yield Violation("nothing is made up", task, f"an event says {status} at {changed_at}")
    for (status, _), found in ids.items():
        if len(found) > 1:
            yield Violation("an event is published once", task, f"its {status} has {len(found)} ids")


def _arrives(change: Change) -> bool:
    before = change.before.status if change.before else None
    assert change.after
    return change.after.status in _FINAL and before != change.after.status


def _published_once(task: str, events: Sequence[Event], failed: Sequence[Run]) -> Iterator[Violation]:
    last: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: event.at):
        first = last.get(event.event_id)
        last[event.event_id] = event
        if first and not any(
            run.begun <= first.at <= run.ended + ARRIVES_WITHIN_SECONDS and run.ended <= event.at for run in failed
        ):
            yield Violation(
                "an event is published once", task, f"its {event.status} was published again without a fault"
            )


def _one_run_at_a_time(handlings: Sequence[Handling]) -> Iterator[Violation]:
    last: dict[str, Handling] = {}
    for handling in sorted(handlings, key=lambda handling: handling.begun):
        first = last.get(handling.message_id)
        last[handling.message_id] = handling
        if first and handling.begun < first.ended:
            yield Violation("one run at a time", handling.task, "two runs had its message at the same time")


def task_of(key: str) -> str:
    """Returns the key of the task whose object has this key."""
    return "#".join(key.split("/")[1:3])
