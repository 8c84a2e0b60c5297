"""Defines faults of a stack that the checker of the soak test must report.

Each function plants one fault into the evidence of a run without violations, and returns the task (or queue, or metric)
that the checker must name.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.searches.soak.before_repair import (
    FAILURES_COUNTED,
    MAX_SHARED_RUNS,
    OTHERS_ARCHIVED,
    OVERSIZED_REPORTED,
    UNCONFIRMED_FAILURES,
)
from tests.searches.soak.callers import Delivery
from tests.searches.soak.evidence import Evidence
from tests.searches.soak.final_state import Snapshot, StoredObject
from tests.searches.soak.history import Change, Handling, TaskRecord
from tests.searches.soak.plans import ACEDATA, FLUX_KONTEXT, ImageFault, Registration, TaskPlan
from tests.searches.soak.reported_state import RUNNING, ReportedState

Plant = Callable[[Evidence], str]
OTHER_SHA256 = "f" * 64


@dataclass(frozen=True, slots=True)
class PlantedFault:
    """A fault, the guarantee that it violates, and the function that plants it."""

    name: str
    guarantee: str
    plant: Plant


FAULTS: list[PlantedFault] = []


def _violates(guarantee: str) -> Callable[[Plant], Plant]:
    """Adds a fault to FAULTS. The docstring of the decorated function is its name."""

    def add(plant: Plant) -> Plant:
        assert plant.__doc__
        FAULTS.append(PlantedFault(plant.__doc__.rstrip("."), guarantee, plant))
        return plant

    return add


# ------------------------------------------------------------------------------------------------ events


@_violates("every final status is published")
def no_events(evidence: Evidence) -> str:
    """No event is published."""
    evidence.history.events.clear()
    return evidence.plans[0].task


@_violates("every final status is published")
def one_event_missing(evidence: Evidence) -> str:
    """The event of one task is not published."""
    task = _archived(evidence).task
    evidence.history.events = [event for event in evidence.history.events if event.task != task]
    return task


@_violates("every final status is published")
def event_of_another_status(evidence: Evidence) -> str:
    """An event has another status than the item."""
    task = _archived(evidence).task
    evidence.history.events = [
        replace(event, status="FAILED") if event.task == task else event for event in evidence.history.events
    ]
    return task


@_violates("an event is published once")
def double_events(evidence: Evidence) -> str:
    """Each event is published twice, by a run that did not fail."""
    evidence.history.events += [
        replace(event, at=event.at + 0.1, call=f"another {event.call}") for event in evidence.history.events
    ]
    return evidence.plans[0].task


@_violates("an event is published once")
def event_with_another_id(evidence: Evidence) -> str:
    """A repeated event has another `eventId`."""
    first = next(event for event in evidence.history.events if event.task == _archived(evidence).task)
    evidence.history.events.append(replace(first, event_id="another id", at=first.at + 0.1))
    return first.task


# ------------------------------------------------------------------------------------------------ status


@_violates("every task reaches its final status")
def reconciliation_idle(evidence: Evidence) -> str:
    """ReconcileTasks does nothing: a task whose change was not dispatched stays PENDING."""
    plan = next(plan for plan in evidence.plans if plan.registration is Registration.NOT_STREAMED)
    _remove_changes(evidence, plan, since=1)
    return plan.task


@_violates("every task reaches its final status")
def polling_idle(evidence: Evidence) -> str:
    """Polling does nothing: a task whose callback was dropped stays PENDING."""
    plan = next(plan for plan in evidence.plans if plan.callbacks and not plan.callbacks[0].at)
    _remove_changes(evidence, plan, since=1)
    return plan.task


@_violates("every task reaches its final status")
def archiving_idle(evidence: Evidence) -> str:
    """Archiving does nothing: a task stays SUCCEEDED."""
    plan = _archived(evidence)
    _remove_changes(evidence, plan, since=2)
    return plan.task


@_violates("every task reaches its final status")
def redrive_idle(evidence: Evidence) -> str:
    """A task is still in the dead-letter queue after a redrive."""
    plan = _archived(evidence)
    _remove_changes(evidence, plan, since=2)
    evidence.before_redrive = replace(evidence.before_redrive, dead_letters={plan.task: "ArchiveDeadLetters"})
    evidence.after_redrive = replace(evidence.after_redrive, dead_letters={plan.task: "ArchiveDeadLetters"})
    return plan.task


@_violates("every task reaches its final status")
def item_missing(evidence: Evidence) -> str:
    """A registered task has no item."""
    task = _archived(evidence).task
    items = {name: item for name, item in evidence.after_redrive.items.items() if name != task}
    evidence.before_redrive = evidence.after_redrive = replace(evidence.after_redrive, items=items)
    return task


@_violates("every task reaches its final status")
def available_image_expired(evidence: Evidence) -> str:
    """An image that was always available is EXPIRED, and its task is INCOMPLETE."""
    plan = _archived(evidence)
    images = [replace(image, state="EXPIRED", key=None, sha256=None) for image in _item(evidence, plan).images]
    _set_item(evidence, plan, status="INCOMPLETE", rank=40, images=tuple(images))
    _remove_objects(evidence, plan)
    return plan.task


@_violates("every dead-letter queue has an alarm")
def no_alarm(evidence: Evidence) -> str:
    """The alarm for a dead-letter queue is missing."""
    evidence.template = copy.deepcopy(evidence.template)
    del evidence.template.resources["ArchiveDeadLettersAlarm"]
    return "ArchiveDeadLetters"


# ------------------------------------------------------------------------------------------------ callbacks


@_violates("acknowledged callbacks are stored")
def callback_lost(evidence: Evidence) -> str:
    """A callback is answered with 200, and its report is not stored."""
    plan = _archived(evidence)
    lost = ReportedState("FAILED", reason="INTERNAL")
    evidence.history.deliveries.append(Delivery(plan.task, lost, "", 1, 1.0, 9000.0, 200))
    return plan.task


@_violates("conflicts are never removed")
def conflict_removed(evidence: Evidence) -> str:
    """ArchiveImages removes an entry from `conflicts`."""
    plan = _archived(evidence)
    conflict = ReportedState("FAILED", reason="INTERNAL")
    evidence.history.deliveries.append(Delivery(plan.task, conflict, "", 1, 1.0, 1.0, 503))
    changes = _changes(evidence, plan)
    assert changes[1].after
    with_conflict = replace(changes[1].after, conflicts=(conflict,))
    _replace_change(evidence, changes[1], after=with_conflict)
    _replace_change(evidence, changes[2], before=with_conflict)
    return plan.task


@_violates("all data has a source")
def forgery_accepted(evidence: Evidence) -> str:
    """A callback without a valid token is applied."""
    plan = next(
        plan
        for plan in evidence.plans
        if plan.provider_outcome.status == "FAILED" and _item(evidence, plan).reported_by
    )
    forged = ReportedState("SUCCEEDED", (f"/forged/{plan.provider}/{plan.task_id}/result-0.png",))
    sent = Delivery(plan.task, forged, "forged", 1, 1.0, 9000.0, 401, is_authorized=False)
    evidence.history.deliveries.append(sent)
    _set_item(evidence, plan, reported=forged, status="SUCCEEDED", rank=30)
    return plan.task


@_violates("all data has a source")
def forged_image_fetched(evidence: Evidence) -> str:
    """The image of a callback without a valid token is downloaded."""
    plan = _archived(evidence)
    path = f"/forged/{plan.provider}/{plan.task_id}/result-0.png"
    evidence.image_requests = {**evidence.image_requests, path: 1}
    return plan.task


@_violates("all data has a source")
def item_of_unknown_task(evidence: Evidence) -> str:
    """The table has an item of a task that does not exist."""
    task = "flux-kontext#unknown"
    item = TaskRecord(RUNNING, "PENDING", 0, None, False, (), (), has_request=False)
    evidence.before_redrive = evidence.after_redrive = replace(
        evidence.after_redrive, items={**evidence.after_redrive.items, task: item}
    )
    return task


@_violates("archived results are confirmed")
def archived_unconfirmed(evidence: Evidence) -> str:
    """A callback's result is archived without the provider's confirmation."""
    plan = next(plan for plan in _all_archived(evidence) if _item(evidence, plan).reported_by == "callback")
    _set_item(evidence, plan, is_confirmed=False)
    return plan.task


@_violates("the status rank never decreases")
def status_moves_down(evidence: Evidence) -> str:
    """A late callback moves a task from ARCHIVED to FAILED."""
    plan = _archived(evidence)
    failure = ReportedState("FAILED", reason="INTERNAL")
    evidence.history.deliveries.append(Delivery(plan.task, failure, "", 1, 1.0, 1.0, 503))
    _set_item(evidence, plan, reported=failure, status="FAILED", rank=20, images=())
    return plan.task


@_violates("the status rank never decreases")
def item_removed(evidence: Evidence) -> str:
    """A function removes an item."""
    plan = _archived(evidence)
    change = Change(plan.task, 9000.0, "ArchiveImagesFunction", _item(evidence, plan), None, "9")
    evidence.history.changes.append(change)
    return plan.task


@_violates("unreadable callbacks are stored")
def rejected_delivery_not_stored(evidence: Evidence) -> str:
    """The body of an unreadable callback is not stored."""
    evidence.contents = replace(evidence.contents, rejected_bodies=frozenset())
    return evidence.plans[0].task


# ------------------------------------------------------------------------------------------------ images


@_violates("image metadata is correct")
def original_and_result_exchanged(evidence: Evidence) -> str:
    """The original is stored as the result, and the result as the original."""
    plan = _with_original(evidence)
    one, other = _item(evidence, plan).images
    images = (
        replace(one, kind=other.kind, key=other.key, sha256=one.sha256),
        replace(other, kind=one.kind, key=one.key, sha256=other.sha256),
    )
    _set_item(evidence, plan, images=images)
    return plan.task


def _wrong_metadata(name: str, value: Any) -> Plant:
    def plant(evidence: Evidence) -> str:
        plan = _archived(evidence)
        first, *others = _item(evidence, plan).images
        _set_item(evidence, plan, images=(replace(first, **{name: value}), *others))
        return plan.task

    plant.__doc__ = f"The item has the wrong `{name}` {value!r}."
    return plant


for _name, _value in (
    ("key", "images/another/key.png"),
    ("bytes", 1),
    ("sha256", OTHER_SHA256),
    ("width", 1),
    ("height", 1),
    ("content_type", "image/gif"),
    ("kind", "origin"),
    ("bytes", None),
):
    _violates("image metadata is correct")(_wrong_metadata(_name, _value))


@_violates("objects match the items")
def object_missing(evidence: Evidence) -> str:
    """An object was never written."""
    plan = _archived(evidence)
    _set_object(evidence, _key(evidence, plan), None)
    return plan.task


@_violates("objects match the items")
def object_deleted(evidence: Evidence) -> str:
    """An object is deleted after its task was ARCHIVED."""
    plan = _archived(evidence)
    _set_object(evidence, _key(evidence, plan), StoredObject(None, 2))
    return plan.task


@_violates("objects match the items")
def object_with_other_bytes(evidence: Evidence) -> str:
    """An object has other bytes than its image."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], sha256=OTHER_SHA256))
    return plan.task


@_violates("objects match the items")
def object_with_wrong_type(evidence: Evidence) -> str:
    """An object's content type matches the extension of its URL instead of its bytes."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], content_type="image/gif"))
    return plan.task


@_violates("objects match the items")
def object_of_another_task(evidence: Evidence) -> str:
    """An object's metadata names another task."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], task="flux-kontext#another"))
    return plan.task


@_violates("objects match the items")
def object_without_item(evidence: Evidence) -> str:
    """The bucket has an object that is not in any item."""
    plan = next(plan for plan in evidence.plans if plan.provider_outcome.status == "FAILED")
    key = f"images/{plan.provider}/{plan.task_id}/result-0.png"
    _set_object(evidence, key, StoredObject(OTHER_SHA256, 1, task=plan.task))
    return plan.task


@_violates("results are written once")
def object_put_twice(evidence: Evidence) -> str:
    """An object is put twice."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    evidence.history.puts += [replace(put, at=put.at + 0.1) for put in evidence.history.puts if put.key == key]
    return plan.task


@_violates("ARCHIVED images are in the bucket")
def archived_before_the_object(evidence: Evidence) -> str:
    """A task is ARCHIVED before its object is written."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    evidence.history.puts = [
        replace(put, at=put.at + 100.0) if put.key == key else put for put in evidence.history.puts
    ]
    return plan.task


@_violates("the generation request is stored")
def request_missing_in_item(evidence: Evidence) -> str:
    """The generation request is not in the item."""
    plan = _with_request(evidence)
    _set_item(evidence, plan, has_request=False)
    return plan.task


@_violates("the generation request is stored")
def request_missing_in_bucket(evidence: Evidence) -> str:
    """The generation request is neither in the metadata of the images nor in request.json."""
    plan = _with_request(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], has_request=False))
    return plan.task


@_violates("rejected images are in quarantine")
def rejected_image_not_stored(evidence: Evidence) -> str:
    """The bytes of a REJECTED image are not in quarantine."""
    plan = next(plan for plan in evidence.plans if any(image.fault is ImageFault.PAGE for image in plan.images))
    key = next(image.quarantine_key for image in _item(evidence, plan).images if image.quarantine_key)
    _set_object(evidence, key, None)
    return plan.task


# ------------------------------------------------------------------------------------------------ queues


@_violates("one run per message at a time")
def message_received_twice(evidence: Evidence) -> str:
    """A second run receives a message that a first one still handles, as with a visibility timeout of 0."""
    first = evidence.history.handlings[0]
    evidence.history.handlings.append(replace(first, begun=first.begun + 0.1))
    return first.task


# ------------------------------------------------------------------------------------------------ disruptions


@_violates("every task reaches its final status")
def false_failure_not_corrected(evidence: Evidence) -> str:
    """The hourly run does not correct a false failure from a long outage of the provider."""
    plan = _with_provider_out(evidence)
    _remove_changes(evidence, plan, since=2)
    return plan.task


@_violates(FAILURES_COUNTED)
def unconfirmed_failure_not_counted(evidence: Evidence) -> str:
    """The hourly run does not count an unconfirmed failure."""
    evidence.before_repair = replace(
        evidence.before_repair, counted_failures=evidence.before_repair.counted_failures - 1
    )
    return UNCONFIRMED_FAILURES


@_violates(FAILURES_COUNTED)
def unconfirmed_failures_without_alarm(evidence: Evidence) -> str:
    """The alarm for unconfirmed failures is missing."""
    evidence.template = copy.deepcopy(evidence.template)
    del evidence.template.resources["UnconfirmedFailuresAlarm"]
    return UNCONFIRMED_FAILURES


@_violates("every task reaches its final status")
def oversized_task_not_archived(evidence: Evidence) -> str:
    """An oversized task stays SUCCEEDED after the function's memory has become sufficient."""
    plan = _oversized(evidence)
    _remove_changes(evidence, plan, since=2)
    return plan.task


@_violates(OVERSIZED_REPORTED)
def oversized_task_not_logged(evidence: Evidence) -> str:
    """The log does not name an oversized task, whose runs are all killed."""
    evidence.before_repair = replace(evidence.before_repair, logged_as_killed=frozenset())
    return _oversized(evidence).task


@_violates(OVERSIZED_REPORTED)
def oversized_task_without_dead_letter(evidence: Evidence) -> str:
    """The message of an oversized task disappears."""
    snapshot = replace(evidence.before_repair.snapshot, dead_letters={})
    evidence.before_repair = replace(evidence.before_repair, snapshot=snapshot)
    return _oversized(evidence).task


@_violates(OTHERS_ARCHIVED)
def other_task_never_separated(evidence: Evidence) -> str:
    """A task is in each run of an oversized task."""
    other_task = _archived(evidence).task
    _share_runs(evidence, other_task, count=MAX_SHARED_RUNS + 1)
    return other_task


@_violates(OTHERS_ARCHIVED)
def other_task_in_dead_letters(evidence: Evidence) -> str:
    """The message of an archived task becomes a dead letter together with the message of an oversized task."""
    other_task = _archived(evidence).task
    _share_runs(evidence, other_task, count=1)
    dead_letters = {**evidence.before_repair.snapshot.dead_letters, other_task: "ArchiveDeadLetters"}
    evidence.before_repair = replace(
        evidence.before_repair, snapshot=replace(evidence.before_repair.snapshot, dead_letters=dead_letters)
    )
    return other_task


# ------------------------------------------------------------------------------------------------ helpers


def _with_provider_out(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in evidence.plans if plan.is_provider_out)


def _oversized(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in evidence.plans if plan.is_oversized)


def _share_runs(evidence: Evidence, task: str, *, count: int) -> None:
    """Adds runs that handled both a task and an oversized task."""
    for number in range(count):
        begun = 9000.0 + number
        for name in (task, _oversized(evidence).task):
            evidence.history.handlings.append(Handling(name, f"a message of {name}", begun, begun + 0.5))


def _all_archived(evidence: Evidence) -> Sequence[TaskPlan]:
    return [
        plan
        for plan in evidence.plans
        if not (plan.is_oversized or plan.is_provider_out)
        and _item(evidence, plan).status == "ARCHIVED"
        and {image.fault for image in plan.images} == {ImageFault.NONE}
    ]


def _archived(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in _all_archived(evidence) if {image.kind for image in plan.images} == {"result"})


def _with_original(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in _all_archived(evidence) if plan.provider == FLUX_KONTEXT and len(plan.images) == 2)


def _with_request(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in _all_archived(evidence) if plan.provider == ACEDATA)


def _item(evidence: Evidence, plan: TaskPlan) -> TaskRecord:
    return evidence.after_redrive.items[plan.task]


def _key(evidence: Evidence, plan: TaskPlan) -> str:
    key = _item(evidence, plan).images[0].key
    assert key
    return key


def _changes(evidence: Evidence, plan: TaskPlan) -> list[Change]:
    return [change for change in evidence.history.changes if change.task == plan.task]


def _replace_change(evidence: Evidence, change: Change, **attributes: Any) -> None:
    changes = evidence.history.changes
    place = next(place for place, other in enumerate(changes) if other is change)
    changes[place] = replace(change, **attributes)


def _set_item(evidence: Evidence, plan: TaskPlan, **attributes: Any) -> None:
    """Changes attributes of a task's item and of its last write."""
    last = _changes(evidence, plan)[-1]
    assert last.after
    item = replace(last.after, **attributes)
    _replace_change(evidence, last, after=item)
    _set_snapshot(evidence, plan, item)


def _remove_changes(evidence: Evidence, plan: TaskPlan, *, since: int) -> None:
    """Removes the writes of a task's item from this index on, with the task's events and objects."""
    remaining, removed = _changes(evidence, plan)[:since], _changes(evidence, plan)[since:]
    evidence.history.changes = [change for change in evidence.history.changes if change not in removed]
    evidence.history.events = [event for event in evidence.history.events if event.task != plan.task]
    item = remaining[-1].after
    assert item
    _set_snapshot(evidence, plan, item)
    _remove_objects(evidence, plan)


def _remove_objects(evidence: Evidence, plan: TaskPlan) -> None:
    folder = f"/{plan.task_id}/"
    objects = {key: found for key, found in evidence.contents.objects.items() if folder not in key}
    evidence.contents = replace(evidence.contents, objects=objects)
    evidence.history.puts = [put for put in evidence.history.puts if folder not in put.key]


def _set_snapshot(evidence: Evidence, plan: TaskPlan, item: TaskRecord) -> None:
    snapshot = Snapshot({**evidence.after_redrive.items, plan.task: item}, evidence.after_redrive.dead_letters)
    evidence.before_redrive = evidence.after_redrive = snapshot


def _set_object(evidence: Evidence, key: str, stored: StoredObject | None) -> None:
    others = {name: found for name, found in evidence.contents.objects.items() if name != key}
    objects = others if stored is None else {**others, key: stored}
    evidence.contents = replace(evidence.contents, objects=objects)
