"""What is left is held against the plans: each thing that could be wrong is, once."""

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from moto import mock_aws

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
    read_objects,
)
from tests.searches.soak.history import History, ImageRecord, TaskRecord
from tests.searches.soak.images import PAGE_SHA256, image_truths
from tests.searches.soak.planning import plan_tasks
from tests.searches.soak.plans import Cut, ImageFate, Registration, TaskPlan
from tests.searches.soak.reported_state import ReportedState

PLANS = plan_tasks(seed=3, count=400)
IMAGES = image_truths(PLANS)
REQUEST_MISSING = "the request is kept: it is neither in the metadata of all images nor in a file"
STATES = {ImageFate.GONE: "EXPIRED", ImageFate.PAGE: "REJECTED"}


def item(plan: TaskPlan) -> TaskRecord:
    """The item as it should be in the end."""
    images = []
    for image in plan.images:
        state, true = STATES.get(image.fate, "ARCHIVED"), IMAGES[image.path]
        is_stored = state == "ARCHIVED"
        kept_key = f"quarantine/{plan.provider}/{plan.task_id}/{image.kind}-{image.index}"
        images.append(
            ImageRecord(
                image.path,
                state,
                true.key if is_stored else None,
                true.sha256 if is_stored else None,
                image.kind,
                kept_key=kept_key if state == "REJECTED" else None,
                kept_sha256=PAGE_SHA256 if state == "REJECTED" else None,
            )
        )
    reported = ReportedState("TIMED_OUT") if plan.truth.status == "PENDING" else plan.truth
    return TaskRecord(
        reported, plan.ending, 50, "callback", True, tuple(images), (), has_request=plan.provider == "acedata"
    )


def right() -> tuple[Standing, Contents]:
    """Everything in its place."""
    items = {plan.task: item(plan) for plan in PLANS}
    objects = {
        image.key: StoredObject(image.sha256, 1, task=task, content_type=IMAGES[image.path].content_type)
        for task, record in items.items()
        for image in record.images
        if image.key and image.sha256
    }
    objects |= {
        image.kept_key: StoredObject(image.kept_sha256, 1)
        for record in items.values()
        for image in record.images
        if image.kept_key
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
    violations = check_bucket(standing, contents, history or History(), IMAGES)
    return [f"{violation.promise}: {violation.what}" for violation in violations]


def test_objects_that_are_not_as_the_items_say() -> None:
    standing, contents = right()
    key, stored = next(iter(contents.objects.items()))
    promise = f"objects are those of successful tasks: {key}"

    def with_object(changed: StoredObject | None) -> Contents:
        others = {name: found for name, found in contents.objects.items() if name != key}
        return Contents(others | ({key: changed} if changed else {}), frozenset())

    assert bucket_problems(standing, with_object(None)) == [f"{promise} is missing"]
    assert bucket_problems(standing, with_object(StoredObject(None, 2))) == [f"{promise} was deleted"]
    assert bucket_problems(standing, with_object(StoredObject("0" * 64, 1))) == [f"{promise} has other bytes"]
    assert bucket_problems(standing, with_object(replace(stored, versions=2))) == [f"{promise} has 2 versions"]


def test_an_object_that_nobody_knows_of() -> None:
    standing, contents = right()
    plan = a_plan("FAILED")
    path = f"images/{plan.provider}/{plan.task_id}/result-0.png"
    true_image = next(iter(contents.objects.values()))
    waiting = Standing(standing.items, {plan.task: "ArchiveDeadLetters"})
    promise = f"objects are those of successful tasks: nobody knows of {path}"

    def extra(stored: StoredObject) -> Contents:
        return Contents({**contents.objects, path: stored}, frozenset())

    assert bucket_problems(standing, extra(true_image)) == [promise]
    assert bucket_problems(waiting, extra(true_image)) == []
    assert bucket_problems(waiting, extra(StoredObject("0" * 64, 1))) == [promise]


def test_a_request_that_is_missing_or_written_again() -> None:
    standing, contents = right()
    key = next(key for key in contents.objects if key.endswith("request.json"))
    without = {name: stored for name, stored in contents.objects.items() if name != key}

    assert bucket_problems(standing, Contents(without, frozenset())) == [REQUEST_MISSING]
    again = Contents({**without, key: StoredObject("of the request", 2)}, frozenset())
    assert bucket_problems(standing, again) == [f"the request is kept: {key} has 2 versions"]


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
    assert bucket_problems(standing, without_file(images - 1)) == [REQUEST_MISSING]


def test_deliveries_that_cannot_be_read_are_kept_and_no_others() -> None:
    standing, contents = right()
    cut = Delivery(PLANS[0].task, PLANS[0].truth, "cut", 1, 1.0, 1.0, 400, cut=Cut.BODY, sha256="digest")
    heard = History(deliveries=[cut])

    assert bucket_problems(standing, replace(contents, kept=frozenset({"digest"})), heard) == []
    promise = "what cannot be read is kept"
    assert bucket_problems(standing, contents, heard) == [f"{promise}: it was answered 400 and is not kept"]
    kept = replace(contents, kept=frozenset({"digest", "another"}))
    assert bucket_problems(standing, kept, heard) == [f"{promise}: nobody sent 1 of what is there"]


def test_only_images_of_forged_reports_must_not_be_fetched() -> None:
    requests = {
        "/images/a.png": 3,
        "/strange/acedata/task1/result-0.png": 1,
        "/favicon.ico": 1,
        "/forged/acedata/task1/result-0.png": 1,
    }

    assert [violation.task for violation in check_requests(requests)] == ["acedata#task1"]


@pytest.fixture
def s3() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="images")
        client.put_bucket_versioning(Bucket="images", VersioningConfiguration={"Status": "Enabled"})
        yield client


def test_objects_are_read_with_their_versions_and_without_the_deleted_ones_bytes(s3: Any) -> None:
    s3.put_object(Bucket="images", Key="images/a/b/one", Body=b"one", Metadata={"task": "a#b", "request": "{}"})
    s3.put_object(Bucket="images", Key="images/a/b/two", Body=b"two", ContentType="image/png")
    s3.put_object(Bucket="images", Key="images/a/b/two", Body=b"two", ContentType="image/png")
    s3.put_object(Bucket="images", Key="images/a/b/three", Body=b"three")
    s3.delete_object(Bucket="images", Key="images/a/b/three")
    s3.put_object(Bucket="images", Key="quarantine/a/b/one", Body=b"one")

    found = read_objects(s3, "images", "images/")

    assert found == {
        "images/a/b/one": StoredObject(
            hashlib.sha256(b"one").hexdigest(), 1, has_request=True, task="a#b", content_type="binary/octet-stream"
        ),
        "images/a/b/two": StoredObject(hashlib.sha256(b"two").hexdigest(), 2, content_type="image/png"),
        "images/a/b/three": StoredObject(None, 2),
    }


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
