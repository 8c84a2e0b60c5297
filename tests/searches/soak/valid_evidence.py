"""Builds the evidence of a run without violations, in memory. The tests of the checker plant violations into it."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from local import REPOSITORY
from local.template.expand import load_template
from tests.searches.soak.before_repair import StateBeforeRepair
from tests.searches.soak.callers import Delivery
from tests.searches.soak.evidence import Evidence
from tests.searches.soak.final_state import BucketContents, Snapshot, StoredObject
from tests.searches.soak.history import Change, Event, Handling, History, ImageRecord, Put, Run, TaskRecord
from tests.searches.soak.images import PAGE_SHA256, ExpectedImage, expected_images
from tests.searches.soak.planning import plan_tasks
from tests.searches.soak.plans import ACEDATA, Cut, ImageFault, TaskPlan
from tests.searches.soak.reported_state import RUNNING, ReportedState

SEED, TASKS = 2, 150
RANKS = {
    "PENDING": 0,
    "TIMED_OUT": 10,
    "FAILED": 20,
    "SUCCEEDED": 30,
    "UNCONFIRMED": 35,
    "INCOMPLETE": 40,
    "ARCHIVED": 50,
}
# The times of a task's steps, in seconds after its start.
REGISTERED, REPORTED_FALSELY, POLLED, SENT, REPORTED, PUT, SETTLED, PUBLISHED = 0.0, 0.5, 1.0, 2.0, 2.5, 4.0, 5.0, 6.0
SANDBOX = "PublishEventsFunction-1"  # the process that publishes all events
REJECTED_BODY_SHA256 = "0" * 64


def valid_evidence() -> Evidence:
    """Returns the evidence of a run that violates no guarantee."""
    plans = plan_tasks(SEED, TASKS)
    images = expected_images(plans)
    template = load_template(REPOSITORY / "template.yaml", {}, {})
    history = History()
    items: dict[str, TaskRecord] = {}
    objects: dict[str, StoredObject] = {}
    for number, plan in enumerate(plans):
        begun = 1000.0 + 10 * number
        changes = list(_changes(plan, images, begun))
        history.changes += changes
        last = changes[-1].after
        assert last
        items[plan.task] = last
        history.provider_reports[plan.task, RUNNING] = begun
        if plan.provider_outcome is not RUNNING:
            history.provider_reports[plan.task, plan.provider_outcome] = begun + POLLED
        history.deliveries += _deliveries(plan, begun)
        for item in (change.after for change in changes):
            if item and (item is last or item.status == "FAILED"):
                event_id = f"id of {item.status} of {plan.task}"
                facts = (plan.task, item.status, event_id, item.updated_at or "")
                history.events.append(Event(*facts, begun + PUBLISHED, SANDBOX, f"call about {event_id}"))
        stored = _objects(plan, last)
        objects |= stored
        history.puts += [_put(key, found, begun) for key, found in stored.items() if key.startswith("images/")]
        if last.images:
            history.handlings.append(Handling(plan.task, f"message of {plan.task}", begun + REPORTED, begun + SETTLED))
        history.runs.append(
            Run(
                "PublishEventsFunction",
                begun + SETTLED,
                begun + PUBLISHED,
                has_failed=False,
                sandbox=SANDBOX,
                started=begun + SETTLED,
            )
        )
    cut = Delivery(
        plans[0].task, plans[0].provider_outcome, "cut", 1, 1.0, 1.0, 400, cut=Cut.BODY, sha256=REJECTED_BODY_SHA256
    )
    history.deliveries.append(cut)
    snapshot = Snapshot(items, {})
    before_repair = _state_before_repair(plans, items, history)
    requests = Counter(image.path for plan in plans for image in plan.images)
    contents = BucketContents(objects, frozenset({REJECTED_BODY_SHA256}))
    return Evidence(plans, history, before_repair, snapshot, snapshot, contents, requests, template)


def _state_before_repair(
    plans: Sequence[TaskPlan], items: Mapping[str, TaskRecord], history: History
) -> StateBeforeRepair:
    """Returns the state before ReconcileTasks: unconfirmed failures, and dead letters of oversized tasks."""
    by_task = history.changes_by_task()
    items_before_repair = {
        plan.task: after
        for plan in plans
        if (plan.is_provider_out or plan.is_oversized) and (after := by_task[plan.task][1].after)
    }
    oversized = [plan.task for plan in plans if plan.is_oversized]
    snapshot = Snapshot({**items, **items_before_repair}, dict.fromkeys(oversized, "ArchiveDeadLetters"))
    before_repair = StateBeforeRepair(snapshot, counted_failures=0, logged_as_killed=frozenset(oversized))
    return replace(before_repair, counted_failures=len(before_repair.unconfirmed_failures()))


def _changes(plan: TaskPlan, expected: dict[str, ExpectedImage], begun: float) -> Iterator[Change]:
    registered = TaskRecord(RUNNING, "PENDING", 0, None, False, (), (), has_request=False, updated_at=str(begun))
    before = None
    steps: list[tuple[float, str, TaskRecord]] = [(begun + REGISTERED, "", registered)]
    if plan.provider_outcome is RUNNING and not plan.callbacks:
        gave_up = ReportedState("TIMED_OUT")
        steps.append((begun + SETTLED, "PollTasksFunction", _record(gave_up, "TIMED_OUT", "poll", begun + SETTLED)))
    else:
        writer, reporter = (
            ("ReceiveCallbackFunction", "callback") if plan.callbacks[0].at else ("PollTasksFunction", "poll")
        )
        reported = plan.callbacks[0].reported if plan.provider_outcome is RUNNING else plan.provider_outcome
        if plan.is_provider_out:
            failure = plan.callbacks[1].reported
            failed = _record(failure, "FAILED", "callback", begun + REPORTED_FALSELY)
            steps.append((begun + REPORTED_FALSELY, "ReceiveCallbackFunction", failed))
        has_request = plan.provider == ACEDATA and plan.provider_outcome.status == "SUCCEEDED"
        waiting = replace(
            _record(reported, reported.status, reporter, begun + REPORTED),
            images=tuple(ImageRecord(path, "PENDING") for path in reported.paths),
            has_request=has_request,
        )
        if plan.provider_outcome.paths:
            waiting = replace(
                waiting, images=tuple(ImageRecord(image.path, "PENDING", kind=image.kind) for image in plan.images)
            )
        steps.append((begun + REPORTED, writer, waiting))
        if reported.paths:
            images = tuple(_image(plan, path, expected) for path in reported.paths)
            settled = replace(
                waiting,
                status=plan.expected_status,
                rank=RANKS[plan.expected_status],
                is_confirmed=plan.provider_outcome is not RUNNING,
                images=images,
                updated_at=str(begun + SETTLED),
            )
            steps.append((begun + SETTLED, "ArchiveImagesFunction", settled))
    for number, (at, writer, after) in enumerate(steps):
        yield Change(plan.task, at, writer, before, after, f"{plan.number}{number}")
        before = after


def _record(reported: ReportedState, status: str, reporter: str, at: float) -> TaskRecord:
    return TaskRecord(reported, status, RANKS[status], reporter, False, (), (), has_request=False, updated_at=str(at))


def _image(plan: TaskPlan, path: str, expected: dict[str, ExpectedImage]) -> ImageRecord:
    image = next((image for image in plan.images if image.path == path), None)
    if image is None:  # of a report that the provider has not confirmed
        return ImageRecord(path, "PENDING", kind="result")
    if image.fault is ImageFault.GONE:
        return ImageRecord(path, "EXPIRED", kind=image.kind)
    if image.fault is ImageFault.PAGE:
        key = f"quarantine/{plan.provider}/{plan.task_id}/{image.kind}-{image.index}"
        return ImageRecord(path, "REJECTED", kind=image.kind, quarantine_key=key, quarantine_sha256=PAGE_SHA256)
    found = expected[path]
    return ImageRecord(
        path,
        "ARCHIVED",
        found.key,
        found.sha256,
        found.kind,
        found.bytes,
        found.width,
        found.height,
        found.content_type,
    )


def _deliveries(plan: TaskPlan, begun: float) -> Sequence[Delivery]:
    if plan.is_provider_out:
        reported, sent_at = plan.callbacks[1].reported, begun + REPORTED_FALSELY
        return [Delivery(plan.task, reported, "contradicted", 1, sent_at, sent_at + 0.1, 200)]
    if not plan.callbacks or not plan.callbacks[0].at:
        return []
    reported = plan.callbacks[0].reported
    return [Delivery(plan.task, reported, "no fault", 1, begun + SENT, begun + REPORTED + 0.1, 200)]


def _objects(plan: TaskPlan, item: TaskRecord) -> dict[str, StoredObject]:
    objects: dict[str, StoredObject] = {}
    for image in item.images:
        if image.key and image.sha256:
            has_request = item.has_request
            objects[image.key] = StoredObject(image.sha256, 1, has_request, plan.task, image.content_type)
        if image.quarantine_key and image.quarantine_sha256:
            objects[image.quarantine_key] = StoredObject(
                image.quarantine_sha256, 1, task=plan.task, content_type="application/octet-stream"
            )
    return objects


def _put(key: str, stored: StoredObject, begun: float) -> Put:
    assert stored.sha256
    return Put(key, begun + PUT, "ArchiveImagesFunction", base64.b64encode(bytes.fromhex(stored.sha256)).decode())
