"""Builds what a run without faults leaves, in memory: for tests of the checker, which plant violations into it."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from local import REPOSITORY
from local.template.expand import load_template
from tests.searches.soak.aftermath import Aftermath
from tests.searches.soak.callers import Delivery
from tests.searches.soak.ending import Contents, Standing, StoredObject
from tests.searches.soak.history import Change, Event, Handling, History, ImageRecord, Put, Run, TaskRecord
from tests.searches.soak.images import PAGE_SHA256, ImageTruth, image_truths
from tests.searches.soak.planning import plan_tasks
from tests.searches.soak.plans import ACEDATA, Cut, ImageFate, TaskPlan
from tests.searches.soak.reported_state import RUNNING, ReportedState
from tests.searches.soak.verdict import Evidence

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
REGISTERED, REPORTED_FALSELY, SAID, SENT, REPORTED, PUT, SETTLED, PUBLISHED = 0.0, 0.5, 1.0, 2.0, 2.5, 4.0, 5.0, 6.0
KEPT_BODY_SHA256 = "0" * 64


def finished_world() -> Evidence:
    """Returns the evidence of a run in which every promise was kept."""
    plans = plan_tasks(SEED, TASKS)
    truths = image_truths(plans)
    template = load_template(REPOSITORY / "template.yaml", {}, {})
    history = History()
    items: dict[str, TaskRecord] = {}
    objects: dict[str, StoredObject] = {}
    for number, plan in enumerate(plans):
        begun = 1000.0 + 10 * number
        changes = list(_changes(plan, truths, begun))
        history.changes += changes
        last = changes[-1].after
        assert last
        items[plan.task] = last
        history.said[plan.task, RUNNING] = begun
        if plan.truth is not RUNNING:
            history.said[plan.task, plan.truth] = begun + SAID
        history.deliveries += _deliveries(plan, begun)
        for item in (change.after for change in changes):
            if item and (item is last or item.status == "FAILED"):
                event_id = f"id of {item.status} of {plan.task}"
                history.events.append(Event(plan.task, item.status, event_id, item.updated_at or "", begun + PUBLISHED))
        stored = _objects(plan, last)
        objects |= stored
        history.puts += [_put(key, found, begun) for key, found in stored.items() if key.startswith("images/")]
        if last.images:
            history.handlings.append(Handling(plan.task, f"message of {plan.task}", begun + REPORTED, begun + SETTLED))
        history.runs.append(Run("PublishEventsFunction", begun + SETTLED, begun + PUBLISHED, has_failed=False))
    cut = Delivery(plans[0].task, plans[0].truth, "cut", 1, 1.0, 1.0, 400, cut=Cut.BODY, sha256=KEPT_BODY_SHA256)
    history.deliveries.append(cut)
    standing = Standing(items, {})
    aftermath = _aftermath(plans, items, history)
    requests = Counter(image.path for plan in plans for image in plan.images)
    contents = Contents(objects, frozenset({KEPT_BODY_SHA256}))
    return Evidence(plans, history, aftermath, standing, standing, contents, requests, template)


def _aftermath(plans: Sequence[TaskPlan], items: Mapping[str, TaskRecord], history: History) -> Aftermath:
    """Returns what was left before the hourly run: false failures, and dead letters of what kills each run."""
    by_task = history.changes_by_task()
    left = {
        plan.task: after
        for plan in plans
        if (plan.is_service_out or plan.is_lethal) and (after := by_task[plan.task][1].after)
    }
    lethal = [plan.task for plan in plans if plan.is_lethal]
    standing = Standing({**items, **left}, dict.fromkeys(lethal, "ArchiveDeadLetters"))
    aftermath = Aftermath(standing, counted=0, suspects=frozenset(lethal))
    return replace(aftermath, counted=len(aftermath.false_failures()))


def _changes(plan: TaskPlan, truths: dict[str, ImageTruth], begun: float) -> Iterator[Change]:
    registered = TaskRecord(RUNNING, "PENDING", 0, None, False, (), (), has_request=False, updated_at=str(begun))
    before = None
    steps: list[tuple[float, str, TaskRecord]] = [(begun + REGISTERED, "", registered)]
    if plan.truth is RUNNING and not plan.callbacks:
        gave_up = ReportedState("TIMED_OUT")
        steps.append((begun + SETTLED, "PollTasksFunction", _record(gave_up, "TIMED_OUT", "poll", begun + SETTLED)))
    else:
        writer, reporter = (
            ("ReceiveCallbackFunction", "callback") if plan.callbacks[0].at else ("PollTasksFunction", "poll")
        )
        says = plan.callbacks[0].says if plan.truth is RUNNING else plan.truth
        if plan.is_service_out:
            failure = plan.callbacks[1].says
            failed = _record(failure, "FAILED", "callback", begun + REPORTED_FALSELY)
            steps.append((begun + REPORTED_FALSELY, "ReceiveCallbackFunction", failed))
        has_request = plan.provider == ACEDATA and plan.truth.status == "SUCCEEDED"
        waiting = replace(
            _record(says, says.status, reporter, begun + REPORTED),
            images=tuple(ImageRecord(path, "PENDING") for path in says.paths),
            has_request=has_request,
        )
        if plan.truth.paths:
            waiting = replace(
                waiting, images=tuple(ImageRecord(image.path, "PENDING", kind=image.kind) for image in plan.images)
            )
        steps.append((begun + REPORTED, writer, waiting))
        if says.paths:
            images = tuple(_image(plan, path, truths) for path in says.paths)
            settled = replace(
                waiting,
                status=plan.ending,
                rank=RANKS[plan.ending],
                is_confirmed=plan.truth is not RUNNING,
                images=images,
                updated_at=str(begun + SETTLED),
            )
            steps.append((begun + SETTLED, "ArchiveImagesFunction", settled))
    for number, (at, writer, after) in enumerate(steps):
        yield Change(plan.task, at, writer, before, after, f"{plan.number}{number}")
        before = after


def _record(reported: ReportedState, status: str, reporter: str, at: float) -> TaskRecord:
    return TaskRecord(reported, status, RANKS[status], reporter, False, (), (), has_request=False, updated_at=str(at))


def _image(plan: TaskPlan, path: str, truths: dict[str, ImageTruth]) -> ImageRecord:
    image = next((image for image in plan.images if image.path == path), None)
    if image is None:  # of a report that its service has not confirmed
        return ImageRecord(path, "PENDING", kind="result")
    if image.fate is ImageFate.GONE:
        return ImageRecord(path, "EXPIRED", kind=image.kind)
    if image.fate is ImageFate.PAGE:
        key = f"quarantine/{plan.provider}/{plan.task_id}/{image.kind}-{image.index}"
        return ImageRecord(path, "REJECTED", kind=image.kind, kept_key=key, kept_sha256=PAGE_SHA256)
    true = truths[path]
    return ImageRecord(
        path, "ARCHIVED", true.key, true.sha256, true.kind, true.bytes, true.width, true.height, true.content_type
    )


def _deliveries(plan: TaskPlan, begun: float) -> Sequence[Delivery]:
    if plan.is_service_out:
        says, sent_at = plan.callbacks[1].says, begun + REPORTED_FALSELY
        return [Delivery(plan.task, says, "contradicted", 1, sent_at, sent_at + 0.1, 200)]
    if not plan.callbacks or not plan.callbacks[0].at:
        return []
    says = plan.callbacks[0].says
    return [Delivery(plan.task, says, "as it should be", 1, begun + SENT, begun + REPORTED + 0.1, 200)]


def _objects(plan: TaskPlan, item: TaskRecord) -> dict[str, StoredObject]:
    objects: dict[str, StoredObject] = {}
    for image in item.images:
        if image.key and image.sha256:
            has_request = item.has_request
            objects[image.key] = StoredObject(image.sha256, 1, has_request, plan.task, image.content_type)
        if image.kept_key and image.kept_sha256:
            objects[image.kept_key] = StoredObject(
                image.kept_sha256, 1, task=plan.task, content_type="application/octet-stream"
            )
    return objects


def _put(key: str, stored: StoredObject, begun: float) -> Put:
    assert stored.sha256
    return Put(key, begun + PUT, "ArchiveImagesFunction", base64.b64encode(bytes.fromhex(stored.sha256)).decode())
