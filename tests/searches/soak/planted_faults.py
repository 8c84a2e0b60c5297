"""Faults that a stack may have, each planted into the evidence of a run in which every promise was kept.

Each function plants one fault into the evidence and returns the task (or the queue) that has it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.searches.soak.aftermath import (
    FALSE_FAILURES,
    KILLED_TRIES,
    MAX_SHARED_RUNS,
    NEIGHBOURS,
    UNCONFIRMED_FAILURES,
)
from tests.searches.soak.callers import Delivery
from tests.searches.soak.ending import Standing, StoredObject
from tests.searches.soak.history import Change, Handling, TaskRecord
from tests.searches.soak.plans import ACEDATA, FLUX_KONTEXT, ImageFate, Registration, TaskPlan
from tests.searches.soak.reported_state import RUNNING, ReportedState
from tests.searches.soak.verdict import Evidence

Plant = Callable[[Evidence], str]
OTHER_SHA256 = "f" * 64


@dataclass(frozen=True, slots=True)
class PlantedFault:
    """A fault, the promise that it breaks, and the function that plants it."""

    name: str
    promise: str
    plant: Plant


FAULTS: list[PlantedFault] = []


def _breaks(promise: str) -> Callable[[Plant], Plant]:
    """Adds a fault to FAULTS; its name is the function's docstring."""

    def add(plant: Plant) -> Plant:
        assert plant.__doc__
        FAULTS.append(PlantedFault(plant.__doc__.rstrip("."), promise, plant))
        return plant

    return add


# ------------------------------------------------------------------------------------------------ events


@_breaks("every final status is an event")
def no_events(evidence: Evidence) -> str:
    """No event is published at all."""
    evidence.history.events.clear()
    return evidence.plans[0].task


@_breaks("every final status is an event")
def one_event_missing(evidence: Evidence) -> str:
    """The event of one task is not published."""
    task = _archived(evidence).task
    evidence.history.events = [event for event in evidence.history.events if event.task != task]
    return task


@_breaks("every final status is an event")
def event_of_another_status(evidence: Evidence) -> str:
    """An event says another status than the item."""
    task = _archived(evidence).task
    evidence.history.events = [
        replace(event, status="FAILED") if event.task == task else event for event in evidence.history.events
    ]
    return task


@_breaks("an event is published once")
def double_events(evidence: Evidence) -> str:
    """Each event is published twice, by a run that did not fail."""
    evidence.history.events += [replace(event, at=event.at + 0.1) for event in evidence.history.events]
    return evidence.plans[0].task


@_breaks("an event is published once")
def event_with_another_id(evidence: Evidence) -> str:
    """A repeated event has another `eventId`."""
    first = next(event for event in evidence.history.events if event.task == _archived(evidence).task)
    evidence.history.events.append(replace(first, event_id="another id", at=first.at + 0.1))
    return first.task


# ------------------------------------------------------------------------------------------------ tasks that stop


@_breaks("every task ends")
def nothing_reconciled(evidence: Evidence) -> str:
    """ReconcileTasks does nothing: a task whose change was not dispatched stays PENDING."""
    plan = next(plan for plan in evidence.plans if plan.registration is Registration.UNSEEN)
    _forget(evidence, plan, since=1)
    return plan.task


@_breaks("every task ends")
def nothing_polled(evidence: Evidence) -> str:
    """Polling does nothing: a task whose callback was dropped stays PENDING."""
    plan = next(plan for plan in evidence.plans if plan.callbacks and not plan.callbacks[0].at)
    _forget(evidence, plan, since=1)
    return plan.task


@_breaks("every task ends")
def nothing_archived(evidence: Evidence) -> str:
    """Archiving does nothing: a task stays SUCCEEDED."""
    plan = _archived(evidence)
    _forget(evidence, plan, since=2)
    return plan.task


@_breaks("every task ends")
def nothing_redriven(evidence: Evidence) -> str:
    """A task is still among the dead letters after a redrive."""
    plan = _archived(evidence)
    _forget(evidence, plan, since=2)
    evidence.before = replace(evidence.before, dead={plan.task: "ArchiveDeadLetters"})
    evidence.after = replace(evidence.after, dead={plan.task: "ArchiveDeadLetters"})
    return plan.task


@_breaks("every task ends")
def item_missing(evidence: Evidence) -> str:
    """A registered task has no item."""
    task = _archived(evidence).task
    items = {name: item for name, item in evidence.after.items.items() if name != task}
    evidence.before = evidence.after = replace(evidence.after, items=items)
    return task


@_breaks("every task ends")
def good_image_expired(evidence: Evidence) -> str:
    """An image that was there all the time is given up, and its task is INCOMPLETE."""
    plan = _archived(evidence)
    images = [replace(image, state="EXPIRED", key=None, sha256=None) for image in _item(evidence, plan).images]
    _set_item(evidence, plan, status="INCOMPLETE", rank=40, images=tuple(images))
    _remove_objects(evidence, plan)
    return plan.task


@_breaks("dead letters raise an alarm")
def no_alarm(evidence: Evidence) -> str:
    """The alarm of a dead-letter queue is missing."""
    evidence.template = copy.deepcopy(evidence.template)
    del evidence.template.resources["ArchiveDeadLettersAlarm"]
    return "ArchiveDeadLetters"


# ------------------------------------------------------------------------------------------------ callbacks


@_breaks("what is acknowledged is known")
def callback_lost(evidence: Evidence) -> str:
    """A callback is answered with 200, and nothing of it is stored."""
    plan = _archived(evidence)
    lost = ReportedState("FAILED", reason="INTERNAL")
    evidence.history.deliveries.append(Delivery(plan.task, lost, "", 1, 1.0, 9000.0, 200))
    return plan.task


@_breaks("evidence stays")
def evidence_dropped(evidence: Evidence) -> str:
    """The archiver drops the evidence of a conflicting callback."""
    plan = _archived(evidence)
    conflict = ReportedState("FAILED", reason="INTERNAL")
    evidence.history.deliveries.append(Delivery(plan.task, conflict, "", 1, 1.0, 1.0, 503))
    changes = _changes(evidence, plan)
    assert changes[1].after
    kept = replace(changes[1].after, conflicts=(conflict,))
    _replace_change(evidence, changes[1], after=kept)
    _replace_change(evidence, changes[2], before=kept)
    return plan.task


@_breaks("nothing is made up")
def forgery_accepted(evidence: Evidence) -> str:
    """A callback without a valid token is applied."""
    plan = next(plan for plan in evidence.plans if plan.truth.status == "FAILED" and _item(evidence, plan).reported_by)
    forged = ReportedState("SUCCEEDED", (f"/forged/{plan.provider}/{plan.task_id}/result-0.png",))
    sent = Delivery(plan.task, forged, "forged", 1, 1.0, 9000.0, 401, is_authorized=False)
    evidence.history.deliveries.append(sent)
    _set_item(evidence, plan, reported=forged, status="SUCCEEDED", rank=30)
    return plan.task


@_breaks("nothing is made up")
def forged_image_fetched(evidence: Evidence) -> str:
    """The image of a callback without a valid token is downloaded."""
    plan = _archived(evidence)
    path = f"/forged/{plan.provider}/{plan.task_id}/result-0.png"
    evidence.image_requests = {**evidence.image_requests, path: 1}
    return plan.task


@_breaks("nothing is made up")
def task_made_up(evidence: Evidence) -> str:
    """The table has an item of a task that does not exist."""
    task = "flux-kontext#nobody"
    item = TaskRecord(RUNNING, "PENDING", 0, None, False, (), (), has_request=False)
    evidence.before = evidence.after = replace(evidence.after, items={**evidence.after.items, task: item})
    return task


@_breaks("a result is confirmed")
def archived_unconfirmed(evidence: Evidence) -> str:
    """A callback's result is archived without its service's confirmation."""
    plan = next(plan for plan in _all_archived(evidence) if _item(evidence, plan).reported_by == "callback")
    _set_item(evidence, plan, is_confirmed=False)
    return plan.task


@_breaks("statuses only move up")
def status_moves_down(evidence: Evidence) -> str:
    """A late callback moves a task from ARCHIVED to FAILED."""
    plan = _archived(evidence)
    failure = ReportedState("FAILED", reason="INTERNAL")
    evidence.history.deliveries.append(Delivery(plan.task, failure, "", 1, 1.0, 1.0, 503))
    _set_item(evidence, plan, reported=failure, status="FAILED", rank=20, images=())
    return plan.task


@_breaks("statuses only move up")
def item_removed(evidence: Evidence) -> str:
    """A function removes an item."""
    plan = _archived(evidence)
    change = Change(plan.task, 9000.0, "ArchiveImagesFunction", _item(evidence, plan), None, "9")
    evidence.history.changes.append(change)
    return plan.task


@_breaks("what cannot be read is kept")
def rejected_delivery_dropped(evidence: Evidence) -> str:
    """The body of a callback that could not be read is not stored."""
    evidence.contents = replace(evidence.contents, kept=frozenset())
    return evidence.plans[0].task


# ------------------------------------------------------------------------------------------------ images


@_breaks("an item describes its images")
def originals_and_results_exchanged(evidence: Evidence) -> str:
    """The original is stored as the result, and the result as the original."""
    plan = _with_original(evidence)
    one, other = _item(evidence, plan).images
    images = (
        replace(one, kind=other.kind, key=other.key, sha256=one.sha256),
        replace(other, kind=one.kind, key=one.key, sha256=other.sha256),
    )
    _set_item(evidence, plan, images=images)
    return plan.task


def _misdescribed(name: str, value: Any) -> Plant:
    def plant(evidence: Evidence) -> str:
        plan = _archived(evidence)
        first, *others = _item(evidence, plan).images
        _set_item(evidence, plan, images=(replace(first, **{name: value}), *others))
        return plan.task

    plant.__doc__ = f"The item has `{name}` {value!r}, which is wrong."
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
    _breaks("an item describes its images")(_misdescribed(_name, _value))


@_breaks("objects are those of successful tasks")
def object_missing(evidence: Evidence) -> str:
    """An object was never written."""
    plan = _archived(evidence)
    _set_object(evidence, _key(evidence, plan), None)
    return plan.task


@_breaks("objects are those of successful tasks")
def object_deleted(evidence: Evidence) -> str:
    """An object is deleted after its task was ARCHIVED."""
    plan = _archived(evidence)
    _set_object(evidence, _key(evidence, plan), StoredObject(None, 2))
    return plan.task


@_breaks("objects are those of successful tasks")
def object_damaged(evidence: Evidence) -> str:
    """An object has other bytes than its image."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], sha256=OTHER_SHA256))
    return plan.task


@_breaks("objects are those of successful tasks")
def object_with_wrong_type(evidence: Evidence) -> str:
    """An object has the content type of its URL's extension instead of its bytes'."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], content_type="image/gif"))
    return plan.task


@_breaks("objects are those of successful tasks")
def object_of_another_task(evidence: Evidence) -> str:
    """An object's metadata names another task."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], task="flux-kontext#another"))
    return plan.task


@_breaks("objects are those of successful tasks")
def object_nobody_knows(evidence: Evidence) -> str:
    """The bucket has an object that no item names."""
    plan = next(plan for plan in evidence.plans if plan.truth.status == "FAILED")
    key = f"images/{plan.provider}/{plan.task_id}/result-0.png"
    _set_object(evidence, key, StoredObject(OTHER_SHA256, 1, task=plan.task))
    return plan.task


@_breaks("once")
def object_put_twice(evidence: Evidence) -> str:
    """An object is overwritten."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    evidence.history.puts += [replace(put, at=put.at + 0.1) for put in evidence.history.puts if put.key == key]
    return plan.task


@_breaks("ARCHIVED means bytes")
def archived_before_the_object(evidence: Evidence) -> str:
    """A task is ARCHIVED before its object is written."""
    plan = _archived(evidence)
    key = _key(evidence, plan)
    evidence.history.puts = [
        replace(put, at=put.at + 100.0) if put.key == key else put for put in evidence.history.puts
    ]
    return plan.task


@_breaks("the request is kept")
def request_missing_in_item(evidence: Evidence) -> str:
    """The generation request is not in the item."""
    plan = _with_request(evidence)
    _set_item(evidence, plan, has_request=False)
    return plan.task


@_breaks("the request is kept")
def request_missing_in_bucket(evidence: Evidence) -> str:
    """The generation request is neither in the metadata of the images nor in request.json."""
    plan = _with_request(evidence)
    key = _key(evidence, plan)
    _set_object(evidence, key, replace(evidence.contents.objects[key], has_request=False))
    return plan.task


@_breaks("refused bytes are kept")
def refused_bytes_dropped(evidence: Evidence) -> str:
    """The bytes of an image that was refused are not in quarantine."""
    plan = next(plan for plan in evidence.plans if any(image.fate is ImageFate.PAGE for image in plan.images))
    key = next(image.kept_key for image in _item(evidence, plan).images if image.kept_key)
    _set_object(evidence, key, None)
    return plan.task


# ------------------------------------------------------------------------------------------------ queues


@_breaks("one run at a time")
def no_visibility_timeout(evidence: Evidence) -> str:
    """A queue's visibility timeout is 0: a second run receives a message that a first one still handles."""
    first = evidence.history.handlings[0]
    evidence.history.handlings.append(replace(first, begun=first.begun + 0.1))
    return first.task


# ------------------------------------------------------------------------------------------------ weather


@_breaks("every task ends")
def false_failure_for_ever(evidence: Evidence) -> str:
    """A false failure of a service that was out beyond giving up stays FAILED after the hourly run."""
    plan = _with_service_out(evidence)
    _forget(evidence, plan, since=2)
    return plan.task


@_breaks(FALSE_FAILURES)
def false_failure_not_counted(evidence: Evidence) -> str:
    """The hourly run does not count a failure that no service has confirmed."""
    evidence.aftermath = replace(evidence.aftermath, counted=evidence.aftermath.counted - 1)
    return UNCONFIRMED_FAILURES


@_breaks(FALSE_FAILURES)
def false_failures_without_alarm(evidence: Evidence) -> str:
    """The alarm of unconfirmed failures is missing."""
    evidence.template = copy.deepcopy(evidence.template)
    del evidence.template.resources["UnconfirmedFailuresAlarm"]
    return UNCONFIRMED_FAILURES


@_breaks("every task ends")
def lethal_task_never_archived(evidence: Evidence) -> str:
    """A task that killed each run stays SUCCEEDED after the functions have enough memory."""
    plan = _lethal(evidence)
    _forget(evidence, plan, since=2)
    return plan.task


@_breaks(KILLED_TRIES)
def lethal_task_not_named(evidence: Evidence) -> str:
    """No log line names the task that kills each run."""
    evidence.aftermath = replace(evidence.aftermath, suspects=frozenset())
    return _lethal(evidence).task


@_breaks(KILLED_TRIES)
def lethal_task_no_dead_letter(evidence: Evidence) -> str:
    """The message of a task that kills each run disappears."""
    standing = replace(evidence.aftermath.standing, dead={})
    evidence.aftermath = replace(evidence.aftermath, standing=standing)
    return _lethal(evidence).task


@_breaks(NEIGHBOURS)
def neighbour_killed_again_and_again(evidence: Evidence) -> str:
    """A task is in each run of one that kills it."""
    neighbour = _archived(evidence).task
    _share_runs(evidence, neighbour, count=MAX_SHARED_RUNS + 1)
    return neighbour


@_breaks(NEIGHBOURS)
def neighbour_among_the_dead_letters(evidence: Evidence) -> str:
    """The message of an archived task becomes a dead letter together with that of a task that kills each run."""
    neighbour = _archived(evidence).task
    _share_runs(evidence, neighbour, count=1)
    dead = {**evidence.aftermath.standing.dead, neighbour: "ArchiveDeadLetters"}
    evidence.aftermath = replace(evidence.aftermath, standing=replace(evidence.aftermath.standing, dead=dead))
    return neighbour


# ------------------------------------------------------------------------------------------------ changing evidence


def _with_service_out(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in evidence.plans if plan.is_service_out)


def _lethal(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in evidence.plans if plan.is_lethal)


def _share_runs(evidence: Evidence, task: str, *, count: int) -> None:
    """Adds runs that handled both a task and one that kills them."""
    for number in range(count):
        begun = 9000.0 + number
        for name in (task, _lethal(evidence).task):
            evidence.history.handlings.append(Handling(name, f"a message of {name}", begun, begun + 0.5))


def _all_archived(evidence: Evidence) -> Sequence[TaskPlan]:
    return [
        plan
        for plan in evidence.plans
        if not (plan.is_lethal or plan.is_service_out)
        and _item(evidence, plan).status == "ARCHIVED"
        and {image.fate for image in plan.images} == {ImageFate.FINE}
    ]


def _archived(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in _all_archived(evidence) if {image.kind for image in plan.images} == {"result"})


def _with_original(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in _all_archived(evidence) if plan.provider == FLUX_KONTEXT and len(plan.images) == 2)


def _with_request(evidence: Evidence) -> TaskPlan:
    return next(plan for plan in _all_archived(evidence) if plan.provider == ACEDATA)


def _item(evidence: Evidence, plan: TaskPlan) -> TaskRecord:
    return evidence.after.items[plan.task]


def _key(evidence: Evidence, plan: TaskPlan) -> str:
    key = _item(evidence, plan).images[0].key
    assert key
    return key


def _changes(evidence: Evidence, plan: TaskPlan) -> list[Change]:
    return [change for change in evidence.history.changes if change.task == plan.task]


def _replace_change(evidence: Evidence, change: Change, **what: Any) -> None:
    changes = evidence.history.changes
    place = next(place for place, other in enumerate(changes) if other is change)
    changes[place] = replace(change, **what)


def _set_item(evidence: Evidence, plan: TaskPlan, **what: Any) -> None:
    """Changes the last write of a task's item, and the item."""
    last = _changes(evidence, plan)[-1]
    assert last.after
    item = replace(last.after, **what)
    _replace_change(evidence, last, after=item)
    _set_standing(evidence, plan, item)


def _forget(evidence: Evidence, plan: TaskPlan, *, since: int) -> None:
    """Removes the later writes of a task's item, and all that follows from them."""
    kept, forgotten = _changes(evidence, plan)[:since], _changes(evidence, plan)[since:]
    evidence.history.changes = [change for change in evidence.history.changes if change not in forgotten]
    evidence.history.events = [event for event in evidence.history.events if event.task != plan.task]
    item = kept[-1].after
    assert item
    _set_standing(evidence, plan, item)
    _remove_objects(evidence, plan)


def _remove_objects(evidence: Evidence, plan: TaskPlan) -> None:
    folder = f"/{plan.task_id}/"
    objects = {key: found for key, found in evidence.contents.objects.items() if folder not in key}
    evidence.contents = replace(evidence.contents, objects=objects)
    evidence.history.puts = [put for put in evidence.history.puts if folder not in put.key]


def _set_standing(evidence: Evidence, plan: TaskPlan, item: TaskRecord) -> None:
    standing = Standing({**evidence.after.items, plan.task: item}, evidence.after.dead)
    evidence.before = evidence.after = standing


def _set_object(evidence: Evidence, key: str, stored: StoredObject | None) -> None:
    others = {name: found for name, found in evidence.contents.objects.items() if name != key}
    objects = others if stored is None else {**others, key: stored}
    evidence.contents = replace(evidence.contents, objects=objects)
