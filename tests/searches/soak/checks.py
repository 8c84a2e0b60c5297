"""Checks a recorded history against the guarantees of the pipeline. Each check yields its violations.

acknowledged callbacks are stored    a callback answered with 200 is in the task's item, as its result or in `conflicts`
the status rank never decreases      unless the provider's status corrects or confirms a callback's report
ARCHIVED images are in the bucket    they were in it before the item was ARCHIVED, with the provider's bytes
all data has a source                an item contains only reports of its provider or of senders with a valid token
conflicts are never removed          entries are only added to `conflicts`
results are written once             an object is put once; a task succeeds again only after a correction
every final status is published      an event with one `eventId` reports each change to a final status
an event is published once           again only by a run after one that failed, or by the SDK without a response in time
one run per message at a time        SQS does not deliver a message that another run still handles
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.searches.soak.callers import Delivery
from tests.searches.soak.history import Change, Event, Handling, History, Put, Run, TaskRecord
from tests.searches.soak.reported_state import RUNNING, ReportedState

MAX_CONFLICTS = 10
MAX_URLS_PER_CONFLICT = 4
# These functions query the provider, and may replace a callback's report with the provider's status.
_CORRECTORS = frozenset({"PollTasksFunction", "ArchiveImagesFunction"})
_RESULTS = frozenset({"SUCCEEDED", "INCOMPLETE", "ARCHIVED"})
_FINAL = frozenset({"TIMED_OUT", "FAILED", "UNCONFIRMED", "INCOMPLETE", "ARCHIVED"})


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated guarantee, with the task (or queue, or metric) and a description."""

    guarantee: str
    task: str
    what: str

    def __str__(self) -> str:
        return f"{self.guarantee}: {self.task}: {self.what}"


def check_history(history: History, images: Mapping[str, str]) -> list[Violation]:
    """Returns all violations. `images`: the expected SHA-256 of all images in hex, by the paths of their URLs."""
    by_task = history.changes_by_task()
    deliveries: dict[str, list[Delivery]] = {}
    for delivery in history.deliveries:
        deliveries.setdefault(delivery.task, []).append(delivery)
    provider_reports: dict[str, dict[ReportedState, float]] = {}
    for (task, reported), at in history.provider_reports.items():
        provider_reports.setdefault(task, {})[reported] = at
    puts: dict[str, list[Put]] = {}
    for put in history.puts:
        puts.setdefault(put.key, []).append(put)
    events: dict[str, list[Event]] = {}
    for event in history.events:
        events.setdefault(event.task, []).append(event)
    runs: dict[str, list[Run]] = {}
    for run in history.runs:
        runs.setdefault(run.sandbox, []).append(run)
    violations = [*_puts_once(puts), *_one_run_at_a_time(history.handlings)]
    for task in sorted(by_task.keys() | deliveries.keys()):
        changes, sent, reports = by_task.get(task, []), deliveries.get(task, []), provider_reports.get(task, {})
        violations += _acknowledged_is_stored(task, changes, sent)
        violations += _rank_never_decreases(task, changes, reports)
        violations += _archived_is_in_bucket(task, changes, puts, images)
        violations += _data_has_source(task, changes, sent, reports)
        violations += _conflicts_stay(task, changes)
        violations += _succeeds_once(task, changes)
        violations += _published(task, changes, events.get(task, []))
        violations += _published_once(task, events.get(task, []), runs)
    return violations


def _acknowledged_is_stored(task: str, changes: Sequence[Change], sent: Sequence[Delivery]) -> Iterator[Violation]:
    for delivery in sent:
        if delivery.status != 200:
            continue
        records = [change.after for change in changes if change.at <= delivery.answered_at and change.after]
        if not any(_contains(record, delivery.reported) for record in records):
            yield Violation("acknowledged callbacks are stored", task, f"the item does not have {delivery.reported}")


def _contains(record: TaskRecord, reported: ReportedState) -> bool:
    if record.reported == reported:
        return True
    conflict = ReportedState(reported.status, reported.paths[:MAX_URLS_PER_CONFLICT], reported.reason)
    return conflict in record.conflicts or len(record.conflicts) >= MAX_CONFLICTS


def _rank_never_decreases(
    task: str, changes: Sequence[Change], provider_reports: Mapping[ReportedState, float]
) -> Iterator[Violation]:
    for change in changes:
        before, after = change.before, change.after
        if after is None:
            yield Violation("the status rank never decreases", task, f"{change.writer or 'a client'} removed the item")
        elif (
            before is not None
            and after.rank < before.rank
            and not _is_correction(change, before, after, provider_reports)
        ):
            yield Violation(
                "the status rank never decreases",
                task,
                f"{change.writer} moved it from {before.status} to {after.status}",
            )


def _is_correction(
    change: Change, before: TaskRecord, after: TaskRecord, provider_reports: Mapping[ReportedState, float]
) -> bool:
    if change.writer == "":
        # An operator may restart archiving of an INCOMPLETE task, and polling of a TIMED_OUT task.
        is_reopened = (before.status, after.status) == ("INCOMPLETE", "SUCCEEDED") and before.reported == after.reported
        return is_reopened or (before.status, after.status) == ("TIMED_OUT", "PENDING")
    if change.writer not in _CORRECTORS:
        return False
    if (before.status, after.status) == ("UNCONFIRMED", "SUCCEEDED") and before.reported == after.reported:
        # The provider confirms the callback's report, or a poll reports the same result, which needs no confirmation.
        is_of_provider = after.is_confirmed or after.reported_by == "poll"
        return is_of_provider and _has_provider_reported(after.reported, provider_reports, change.at)
    is_unconfirmed = before.reported_by == "callback" and not before.is_confirmed
    conflict = ReportedState(
        before.reported.status, before.reported.paths[:MAX_URLS_PER_CONFLICT], before.reported.reason
    )
    is_kept = conflict in after.conflicts or len(before.conflicts) >= MAX_CONFLICTS
    return is_unconfirmed and is_kept and _has_provider_reported(after.reported, provider_reports, change.at)


def _has_provider_reported(reported: ReportedState, provider_reports: Mapping[ReportedState, float], by: float) -> bool:
    return provider_reports.get(reported, float("inf")) <= by


def _archived_is_in_bucket(
    task: str, changes: Sequence[Change], puts: Mapping[str, Sequence[Put]], images: Mapping[str, str]
) -> Iterator[Violation]:
    for change in changes:
        if change.after is None:
            continue
        states = {image.state for image in change.after.images if image.kind != "origin"}
        if change.after.status == "ARCHIVED" and states != {"ARCHIVED"}:
            yield Violation(
                "ARCHIVED images are in the bucket",
                task,
                f"its result images are {', '.join(sorted(states)) or 'missing'}",
            )
        for image in change.after.images:
            if image.state != "ARCHIVED":
                continue
            stored = [_hex(put.sha256) for put in puts.get(image.key or "", ()) if put.at <= change.at]
            if image.sha256 is None or image.sha256 not in stored:
                yield Violation(
                    "ARCHIVED images are in the bucket",
                    task,
                    f"{image.key} was not in the bucket when the item was written",
                )
            elif image.sha256 != images.get(image.path):
                yield Violation(
                    "ARCHIVED images are in the bucket",
                    task,
                    f"{image.key} has other bytes than the image at {image.path}",
                )


def _hex(checksum: str | None) -> str | None:
    return base64.b64decode(checksum).hex() if checksum else None


def _data_has_source(
    task: str, changes: Sequence[Change], sent: Sequence[Delivery], provider_reports: Mapping[ReportedState, float]
) -> Iterator[Violation]:
    for change in changes:
        if change.after is None:
            continue
        result = [] if change.before and change.before.reported == change.after.reported else [change.after.reported]
        earlier = change.before.conflicts if change.before else ()
        for reported in [*result, *(conflict for conflict in change.after.conflicts if conflict not in earlier)]:
            if not _has_a_source(reported, change, sent, provider_reports):
                yield Violation("all data has a source", task, f"{change.writer or 'a client'} wrote {reported}")


def _has_a_source(
    reported: ReportedState, change: Change, sent: Sequence[Delivery], provider_reports: Mapping[ReportedState, float]
) -> bool:
    if change.writer == "" and reported == RUNNING:
        return True  # the write of a registration
    if change.writer == "PollTasksFunction" and reported.status == "TIMED_OUT":
        return True
    return any(_matches_report(reported, report) for report, at in provider_reports.items() if at <= change.at) or any(
        _matches_report(reported, delivery.reported)
        for delivery in sent
        if delivery.is_authorized and delivery.sent_at <= change.at
    )


def _matches_report(reported: ReportedState, report: ReportedState) -> bool:
    """Returns whether both reports are equal. Entries of `conflicts` have only the first images of a report."""
    return reported in (report, ReportedState(report.status, report.paths[:MAX_URLS_PER_CONFLICT], report.reason))


def _conflicts_stay(task: str, changes: Sequence[Change]) -> Iterator[Violation]:
    for change in changes:
        if change.before and change.after:
            lost = [conflict for conflict in change.before.conflicts if conflict not in change.after.conflicts]
            if lost:
                yield Violation("conflicts are never removed", task, f"{change.writer} dropped {lost}")


def _puts_once(puts: Mapping[str, Sequence[Put]]) -> Iterator[Violation]:
    for key, written in puts.items():
        if key.startswith("images/") and len(written) > 1:
            yield Violation("results are written once", task_of(key), f"{key} was put {len(written)} times")


def _succeeds_once(task: str, changes: Sequence[Change]) -> Iterator[Violation]:
    has_succeeded = False
    for change in changes:
        was = change.before is not None and change.before.status in _RESULTS
        now = change.after is not None and change.after.status in _RESULTS
        if now and not was:
            if has_succeeded:
                yield Violation(
                    "results are written once", task, f"{change.writer} reported success again without a correction"
                )
            has_succeeded = True
        elif was and not now:
            has_succeeded = False


def _published(task: str, changes: Sequence[Change], events: Sequence[Event]) -> Iterator[Violation]:
    ids: dict[tuple[str, str], set[str]] = {}
    for event in events:
        ids.setdefault((event.status, event.changed_at), set()).add(event.event_id)
    reached = {
        (change.after.status, change.after.updated_at or "")
        for change in changes
        if change.after and _reaches_final_status(change)
    }
    for status, changed_at in sorted(reached - ids.keys()):
        yield Violation("every final status is published", task, f"its {status} at {changed_at} was not published")
    for status, changed_at in sorted(ids.keys() - reached):
        yield Violation(
            "all data has a source", task, f"an event has {status} at {changed_at}, which the item never had"
        )
    for (status, _), found in ids.items():
        if len(found) > 1:
            yield Violation("an event is published once", task, f"its {status} has {len(found)} ids")


def _reaches_final_status(change: Change) -> bool:
    before = change.before.status if change.before else None
    assert change.after
    return change.after.status in _FINAL and before != change.after.status


def _published_once(task: str, events: Sequence[Event], runs: Mapping[str, Sequence[Run]]) -> Iterator[Violation]:
    last: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: event.at):
        first = last.get(event.event_id)
        last[event.event_id] = event
        if first and not _is_retry(first, event, runs):
            yield Violation(
                "an event is published once", task, f"its {event.status} was published again without a failed run"
            )


def _is_retry(first: Event, second: Event, runs: Mapping[str, Sequence[Run]]) -> bool:
    """Returns whether an event was published again after a failed run, or by the SDK without a response in time.

    A request of a killed run may arrive late, even after the request of the next run.
    """
    if first.call and first.call == second.call:
        return True
    senders = [run for event in (first, second) if (run := _sender(event, runs))]
    if len(senders) < 2:
        return False
    earlier, later = sorted(senders, key=lambda run: run.started)
    return earlier.has_failed and earlier.ended <= later.started


def _sender(event: Event, runs: Mapping[str, Sequence[Run]]) -> Run | None:
    """Returns the run that sent an event: the last run that the event's process had started by then."""
    started = [run for run in runs.get(event.sandbox, ()) if run.started <= event.at]
    return max(started, key=lambda run: run.started, default=None)


def _one_run_at_a_time(handlings: Sequence[Handling]) -> Iterator[Violation]:
    last: dict[str, Handling] = {}
    for handling in sorted(handlings, key=lambda handling: handling.begun):
        first = last.get(handling.message_id)
        last[handling.message_id] = handling
        if first and handling.begun < first.ended:
            yield Violation(
                "one run per message at a time", handling.task, "two runs handled its message at the same time"
            )


def task_of(key: str) -> str:
    """Returns the task, as `provider#taskId`, that an object key belongs to."""
    return "#".join(key.split("/")[1:3])
