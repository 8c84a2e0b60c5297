"""What is left is held against the plans: each thing that could be wrong is, once."""

import copy
import hashlib
from dataclasses import replace

import pytest

from local import REPOSITORY
from local.template.expand import Template, load_template
from tests.searches.soak.callers import Delivery
from tests.searches.soak.ending import (
    Contents,
    Standing,
    StoredObject,
    alarms_missing,
    check_bucket,
    check_requests,
    check_tasks,
)
from tests.searches.soak.history import History, ImageRecord, TaskRecord
from tests.searches.soak.images import image_bytes
from tests.searches.soak.planning import plan_tasks
from tests.searches.soak.plans import Cut, ImageFate, Registration, TaskPlan
from tests.searches.soak.reported_state import ReportedState

PLANS = plan_tasks(seed=3, count=400)
IMAGES = {image.path: hashlib.sha256(image_bytes(image)).hexdigest() for plan in PLANS for image in plan.images}
STATES = {ImageFate.GONE: "EXPIRED", ImageFate.PAGE: "REJECTED"}


def item(plan: TaskPlan) -> TaskRecord:
    """The item as it should be in the end."""
    images = []
    for image in plan.images:
        state = STATES.get(image.fate, "ARCHIVED")
        key = f"images/{plan.provider}/{plan.task_id}/{image.kind}-{image.index}.png" if state == "ARCHIVED" else None
        images.append(ImageRecord(image.path, state, key, IMAGES[image.path] if key else None))
    reported = ReportedState("TIMED_OUT") if plan.truth.status == "PENDING" else plan.truth
    return TaskRecord(
        reported, plan.ending, 50, "callback", True, tuple(images), (), has_request=plan.provider == "acedata"
    )


def right() -> tuple[Standing, Contents]:
    """Everything in its place."""
    items = {plan.task: item(plan) for plan in PLANS}
    objects = {
        image.key: StoredObject(image.sha256, 1)
        for record in items.values()
        for image in record.images
        if image.key and image.sha256
    }
    for plan in PLANS:
        if plan.provider == "acedata" and plan.images:
            objects[f"images/acedata/{plan.task_id}/request.json"] = StoredObject("of the request", 1)
    return Standing(items, {}), Contents(objects, frozenset())


def a_plan(ending: str, fate: ImageFate = ImageFate.FINE) -> TaskPlan:
    return next(
        plan
        for plan in PLANS
        if plan.ending == ending and (not plan.images or fate in {image.fate for image in plan.images})
    )


def problems(standing: Standing, *, is_repaired: bool = True) -> list[str]:
    violations, _ = check_tasks(PLANS, standing, History(), is_repaired=is_repaired)
    return [f"{violation.task}: {violation.what}" for violation in violations]


def test_everything_is_in_its_place() -> None:
    standing, contents = right()

    violations, outcomes = check_tasks(PLANS, standing, History(), is_repaired=True)

    assert violations == list(check_bucket(standing, contents, History(), IMAGES)) == []
    assert set(outcomes) == {"ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"}
    assert outcomes.total() == len(PLANS)


# ------------------------------------------------------------------------------------------------ tasks


@pytest.mark.parametrize("status", ["PENDING", "SUCCEEDED", "FAILED", "INCOMPLETE"])
def test_a_task_that_is_stuck(status: str) -> None:
    standing, _ = right()
    plan = a_plan("ARCHIVED")
    stuck = Standing({**standing.items, plan.task: replace(item(plan), status=status)}, {})

    assert problems(stuck) == [f"{plan.task}: it is {status} instead of ARCHIVED"]


def test_dead_letters_excuse_a_task_until_they_are_redriven() -> None:
    standing, _ = right()
    plan = a_plan("ARCHIVED")
    dead = Standing(
        {**standing.items, plan.task: replace(item(plan), status="SUCCEEDED")}, {plan.task: "ArchiveDeadLetters"}
    )

    assert problems(dead, is_repaired=False) == []
    assert problems(dead) == [f"{plan.task}: it is SUCCEEDED instead of ARCHIVED"]


@pytest.mark.parametrize(("fate", "is_excused"), [(ImageFate.NOT_YET, True), (ImageFate.SLOW, False)])
def test_an_image_that_is_given_up_too_soon(fate: ImageFate, is_excused: bool) -> None:
    standing, _ = right()
    plan = a_plan("ARCHIVED", fate)
    record = item(plan)
    fates = {image.path: image.fate for image in plan.images}
    images = tuple(
        replace(image, state="EXPIRED", key=None, sha256=None) if fates[image.path] is fate else image
        for image in record.images
    )
    given_up = Standing({**standing.items, plan.task: replace(record, status="INCOMPLETE", images=images)}, {})

    assert (problems(given_up, is_repaired=False) == []) == is_excused
    assert problems(given_up) != []


def test_a_task_that_says_something_else() -> None:
    standing, _ = right()
    plan = a_plan("FAILED")
    other = replace(item(plan), reported=ReportedState("FAILED", reason="OTHER"))

    assert "instead of ReportedState" in problems(Standing({**standing.items, plan.task: other}, {}))[0]


def test_a_task_that_believes_a_lie() -> None:
    standing, _ = right()
    plan = a_plan("ARCHIVED")
    lie = ImageRecord("/strange/result-0.png", "EXPIRED", None, None)
    record = replace(item(plan), status="INCOMPLETE", reported=ReportedState("SUCCEEDED", (lie.path,)), images=(lie,))

    assert problems(Standing({**standing.items, plan.task: record}, {}), is_repaired=False) != []


def test_an_image_in_the_wrong_state() -> None:
    standing, _ = right()
    plan = a_plan("INCOMPLETE", ImageFate.GONE)
    record = item(plan)
    images = tuple(replace(image, state="REJECTED", key=None, sha256=None) for image in record.images)

    assert problems(Standing({**standing.items, plan.task: replace(record, images=images)}, {})) != []


@pytest.mark.parametrize(
    ("registration", "status", "is_missed"),
    [
        (Registration.FIRST, None, True),
        (Registration.NEVER, 200, True),
        (Registration.NEVER, 503, False),
    ],
)
def test_a_task_without_an_item(registration: Registration, status: int | None, is_missed: bool) -> None:
    standing, _ = right()
    plan = next(plan for plan in PLANS if plan.registration is registration)
    items = {task: record for task, record in standing.items.items() if task != plan.task}
    heard = History(deliveries=[Delivery(plan.task, plan.truth, "", 1, 1.0, 1.0, status)] if status else [])

    violations, outcomes = check_tasks(PLANS, Standing(items, {}), heard, is_repaired=True)

    assert [violation.task for violation in violations] == ([plan.task] if is_missed else [])
    assert outcomes["never heard of"] == 1


def test_an_item_that_nobody_planned() -> None:
    standing, _ = right()
    strange = Standing({**standing.items, "flux-kontext#strange": item(PLANS[0])}, {})

    assert problems(strange) == ["flux-kontext#strange: nobody planned it"]


# ------------------------------------------------------------------------------------------------ the bucket


def bucket_problems(standing: Standing, contents: Contents, history: History | None = None) -> list[str]:
    return [violation.what for violation in check_bucket(standing, contents, history or History(), IMAGES)]


def test_objects_that_are_not_as_the_items_say() -> None:
    standing, contents = right()
    key, stored = next(iter(contents.objects.items()))

    def with_object(changed: StoredObject | None) -> Contents:
        others = {name: found for name, found in contents.objects.items() if name != key}
        return Contents(others | ({key: changed} if changed else {}), frozenset())

    assert bucket_problems(standing, with_object(None)) == ["it is missing"]
    assert bucket_problems(standing, with_object(StoredObject("0" * 64, 1))) == ["it has other bytes"]
    assert bucket_problems(standing, with_object(replace(stored, versions=2))) == ["it has 2 versions"]


def test_an_object_that_nobody_knows_of() -> None:
    standing, contents = right()
    plan = a_plan("FAILED")
    path = f"images/{plan.provider}/{plan.task_id}/result-0.png"
    true_image = next(iter(contents.objects.values()))
    waiting = Standing(standing.items, {plan.task: "ArchiveDeadLetters"})

    def extra(stored: StoredObject) -> Contents:
        return Contents({**contents.objects, path: stored}, frozenset())

    assert bucket_problems(standing, extra(true_image)) == ["nobody knows of it"]
    assert bucket_problems(waiting, extra(true_image)) == []
    assert bucket_problems(waiting, extra(StoredObject("0" * 64, 1))) == ["nobody knows of it"]


def test_a_request_that_is_missing_or_written_again() -> None:
    standing, contents = right()
    key = next(key for key in contents.objects if key.endswith("request.json"))
    without = {name: stored for name, stored in contents.objects.items() if name != key}

    assert bucket_problems(standing, Contents(without, frozenset())) == ["it is missing"]
    again = Contents({**without, key: StoredObject("of the request", 2)}, frozenset())
    assert bucket_problems(standing, again) == ["it was written again"]


def test_a_request_in_the_metadata_of_all_images_needs_no_file() -> None:
    standing, contents = right()
    key = next(key for key in contents.objects if key.endswith("request.json"))
    folder = key.removesuffix("request.json")

    def without_file(images_with_request: int) -> Contents:
        images = [name for name in contents.objects if name.startswith(folder) and name != key]
        changed = {name: replace(contents.objects[name], has_request=True) for name in images[:images_with_request]}
        kept = {name: stored for name, stored in contents.objects.items() if name != key}
        return Contents({**kept, **changed}, frozenset())

    images = sum(name.startswith(folder) for name in contents.objects) - 1
    assert bucket_problems(standing, without_file(images)) == []
    assert bucket_problems(standing, without_file(images - 1)) == ["it is missing"]


def test_deliveries_that_cannot_be_read_are_kept_and_no_others() -> None:
    standing, contents = right()
    cut = Delivery(PLANS[0].task, PLANS[0].truth, "cut", 1, 1.0, 1.0, 400, cut=Cut.BODY, sha256="digest")
    heard = History(deliveries=[cut])

    assert bucket_problems(standing, replace(contents, kept=frozenset({"digest"})), heard) == []
    assert bucket_problems(standing, contents, heard) == ["it was answered 400 and is not kept"]
    kept = replace(contents, kept=frozenset({"digest", "another"}))
    assert bucket_problems(standing, kept, heard) == ["nobody sent 1 of what is there"]


def test_a_request_for_what_only_a_lie_has_named() -> None:
    assert [violation.task for violation in check_requests({"/images/a.png": 3, "/strange/a.png": 1})] == [
        "/strange/a.png"
    ]


# ------------------------------------------------------------------------------------------------ alarms


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(REPOSITORY / "template.yaml", {}, {})


def test_dead_letters_raise_alarms(template: Template) -> None:
    assert alarms_missing(template) == []


@pytest.mark.parametrize("queue", ["ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters"])
def test_an_alarm_that_is_missing(template: Template, queue: str) -> None:
    without = copy.deepcopy(template)
    del without.resources[f"{queue}Alarm"]

    assert alarms_missing(without) == [queue]
