"""Tests the checks of the final state: each test changes one item or object of a valid final state."""

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
from tests.searches.soak.final_state import (
    BucketContents,
    Snapshot,
    StoredObject,
    check_bucket,
    check_requests,
    check_tasks,
    queues_without_alarm,
    read_objects,
)
from tests.searches.soak.history import History, ImageRecord, TaskRecord
from tests.searches.soak.images import PAGE_SHA256, expected_images
from tests.searches.soak.planning import plan_tasks
from tests.searches.soak.plans import Cut, ImageFault, Registration, TaskPlan
from tests.searches.soak.reported_state import RUNNING, ReportedState

PLANS = plan_tasks(seed=3, count=400)
IMAGES = expected_images(PLANS)
REQUEST_MISSING = "the generation request is stored: it is neither in the metadata of all images nor in request.json"
STATES = {ImageFault.GONE: "EXPIRED", ImageFault.PAGE: "REJECTED"}


def item(plan: TaskPlan) -> TaskRecord:
    """Returns the expected final item of a plan."""
    images = []
    for image in plan.images:
        state, expected = STATES.get(image.fault, "ARCHIVED"), IMAGES[image.path]
        is_stored = state == "ARCHIVED"
        quarantine_key = f"quarantine/{plan.provider}/{plan.task_id}/{image.kind}-{image.index}"
        images.append(
            ImageRecord(
                image.path,
                state,
                expected.key if is_stored else None,
                expected.sha256 if is_stored else None,
                image.kind,
                quarantine_key=quarantine_key if state == "REJECTED" else None,
                quarantine_sha256=PAGE_SHA256 if state == "REJECTED" else None,
            )
        )
    reported = ReportedState("TIMED_OUT") if plan.provider_outcome.status == "PENDING" else plan.provider_outcome
    return TaskRecord(
        reported, plan.expected_status, 50, "callback", True, tuple(images), (), has_request=plan.provider == "acedata"
    )


def valid_state() -> tuple[Snapshot, BucketContents]:
    """Returns items and objects without violations."""
    items = {plan.task: item(plan) for plan in PLANS}
    objects = {
        image.key: StoredObject(image.sha256, 1, task=task, content_type=IMAGES[image.path].content_type)
        for task, record in items.items()
        for image in record.images
        if image.key and image.sha256
    }
    objects |= {
        image.quarantine_key: StoredObject(image.quarantine_sha256, 1)
        for record in items.values()
        for image in record.images
        if image.quarantine_key
    }
    for plan in PLANS:
        if plan.provider == "acedata" and plan.images:
            objects[f"images/acedata/{plan.task_id}/request.json"] = StoredObject("of the request", 1)
    return Snapshot(items, {}), BucketContents(objects, frozenset())


def find_plan(expected_status: str, fault: ImageFault = ImageFault.NONE) -> TaskPlan:
    return next(
        plan
        for plan in PLANS
        if plan.expected_status == expected_status
        and (not plan.images or fault in {image.fault for image in plan.images})
    )


def problems(snapshot: Snapshot, *, is_repaired: bool = True) -> list[str]:
    violations, _ = check_tasks(PLANS, snapshot, History(), is_repaired=is_repaired)
    return [f"{violation.task}: {violation.what}" for violation in violations]


def test_a_valid_final_state_has_no_violation() -> None:
    snapshot, contents = valid_state()

    violations, outcomes = check_tasks(PLANS, snapshot, History(), is_repaired=True)

    assert violations == list(check_bucket(snapshot, contents, History(), IMAGES)) == []
    assert set(outcomes) == {"ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"}
    assert outcomes.total() == len(PLANS)


# ------------------------------------------------------------------------------------------------ tasks


@pytest.mark.parametrize("status", ["PENDING", "SUCCEEDED", "FAILED", "INCOMPLETE"])
def test_a_task_without_its_expected_status(status: str) -> None:
    snapshot, _ = valid_state()
    plan = find_plan("ARCHIVED")
    stuck = Snapshot({**snapshot.items, plan.task: replace(item(plan), status=status)}, {})

    assert problems(stuck) == [f"{plan.task}: it is {status} instead of ARCHIVED"]


@pytest.mark.parametrize(("status", "is_accepted"), [(503, True), (200, False), (None, False)])
def test_a_task_whose_callbacks_were_all_refused_may_time_out(status: int | None, is_accepted: bool) -> None:
    snapshot, _ = valid_state()
    plan = replace(find_plan("TIMED_OUT"), callbacks=find_plan("ARCHIVED").callbacks)
    assert (plan.expected_status, snapshot.items[plan.task].status) == ("UNCONFIRMED", "TIMED_OUT")
    sent = [
        Delivery(plan.task, RUNNING, "none", attempt, 1.0, 1.0, answer) for attempt, answer in enumerate((503, status))
    ]
    plans = [plan if each.task == plan.task else each for each in PLANS]

    violations, _ = check_tasks(plans, snapshot, History(deliveries=sent), is_repaired=True)

    assert [violation.task for violation in violations] == ([] if is_accepted else [plan.task])


def test_a_dead_letter_is_accepted_before_the_redrive_only() -> None:
    snapshot, _ = valid_state()
    plan = find_plan("ARCHIVED")
    with_dead_letter = Snapshot(
        {**snapshot.items, plan.task: replace(item(plan), status="SUCCEEDED")}, {plan.task: "ArchiveDeadLetters"}
    )

    assert problems(with_dead_letter, is_repaired=False) == []
    assert problems(with_dead_letter) == [f"{plan.task}: it is SUCCEEDED instead of ARCHIVED"]


@pytest.mark.parametrize(("fault", "is_accepted"), [(ImageFault.NOT_YET, True), (ImageFault.SLOW, False)])
def test_an_image_that_is_expired_too_early(fault: ImageFault, is_accepted: bool) -> None:
    snapshot, _ = valid_state()
    plan = find_plan("ARCHIVED", fault)
    record = item(plan)
    faults = {image.path: image.fault for image in plan.images}
    images = tuple(
        replace(image, state="EXPIRED", key=None, sha256=None) if faults[image.path] is fault else image
        for image in record.images
    )
    given_up = Snapshot({**snapshot.items, plan.task: replace(record, status="INCOMPLETE", images=images)}, {})

    assert (problems(given_up, is_repaired=False) == []) == is_accepted
    assert problems(given_up) != []


def test_a_failure_with_another_reason() -> None:
    snapshot, _ = valid_state()
    plan = find_plan("FAILED")
    other = replace(item(plan), reported=ReportedState("FAILED", reason="OTHER"))

    assert "instead of ReportedState" in problems(Snapshot({**snapshot.items, plan.task: other}, {}))[0]


def test_a_task_with_a_false_result() -> None:
    snapshot, _ = valid_state()
    plan = find_plan("ARCHIVED")
    false_image = ImageRecord("/strange/result-0.png", "EXPIRED", None, None)
    record = replace(
        item(plan), status="INCOMPLETE", reported=ReportedState("SUCCEEDED", (false_image.path,)), images=(false_image,)
    )

    assert problems(Snapshot({**snapshot.items, plan.task: record}, {}), is_repaired=False) != []


def test_an_image_in_the_wrong_state() -> None:
    snapshot, _ = valid_state()
    plan = find_plan("INCOMPLETE", ImageFault.GONE)
    record = item(plan)
    images = tuple(replace(image, state="REJECTED", key=None, sha256=None) for image in record.images)

    assert problems(Snapshot({**snapshot.items, plan.task: replace(record, images=images)}, {})) != []


@pytest.mark.parametrize(
    ("registration", "status", "is_violation"),
    [
        (Registration.FIRST, None, True),
        (Registration.NEVER, 200, True),
        (Registration.NEVER, 503, False),
    ],
)
def test_a_task_without_an_item(registration: Registration, status: int | None, is_violation: bool) -> None:
    snapshot, _ = valid_state()
    plan = next(plan for plan in PLANS if plan.registration is registration)
    items = {task: record for task, record in snapshot.items.items() if task != plan.task}
    recorded = History(
        deliveries=[Delivery(plan.task, plan.provider_outcome, "", 1, 1.0, 1.0, status)] if status else []
    )

    violations, outcomes = check_tasks(PLANS, Snapshot(items, {}), recorded, is_repaired=True)

    assert [violation.task for violation in violations] == ([plan.task] if is_violation else [])
    assert outcomes["not known to the stack"] == 1


def test_an_item_that_is_not_in_the_plans() -> None:
    snapshot, _ = valid_state()
    unplanned = Snapshot({**snapshot.items, "flux-kontext#unplanned": item(PLANS[0])}, {})

    assert problems(unplanned) == ["flux-kontext#unplanned: it is not in the plans"]


# ------------------------------------------------------------------------------------------------ the bucket


def bucket_problems(snapshot: Snapshot, contents: BucketContents, history: History | None = None) -> list[str]:
    violations = check_bucket(snapshot, contents, history or History(), IMAGES)
    return [f"{violation.guarantee}: {violation.what}" for violation in violations]


def test_objects_that_do_not_match_the_items() -> None:
    snapshot, contents = valid_state()
    key, stored = next(iter(contents.objects.items()))
    guarantee = f"objects match the items: {key}"

    def with_object(changed: StoredObject | None) -> BucketContents:
        others = {name: found for name, found in contents.objects.items() if name != key}
        return BucketContents(others | ({key: changed} if changed else {}), frozenset())

    assert bucket_problems(snapshot, with_object(None)) == [f"{guarantee} is missing"]
    assert bucket_problems(snapshot, with_object(StoredObject(None, 2))) == [f"{guarantee} was deleted"]
    assert bucket_problems(snapshot, with_object(StoredObject("0" * 64, 1))) == [f"{guarantee} has other bytes"]
    assert bucket_problems(snapshot, with_object(replace(stored, versions=2))) == [f"{guarantee} has 2 versions"]


def test_an_object_without_an_item() -> None:
    snapshot, contents = valid_state()
    plan = find_plan("FAILED")
    path = f"images/{plan.provider}/{plan.task_id}/result-0.png"
    expected_image = next(iter(contents.objects.values()))
    with_dead_letter = Snapshot(snapshot.items, {plan.task: "ArchiveDeadLetters"})
    guarantee = f"objects match the items: no item has {path}"

    def extra(stored: StoredObject) -> BucketContents:
        return BucketContents({**contents.objects, path: stored}, frozenset())

    assert bucket_problems(snapshot, extra(expected_image)) == [guarantee]
    assert bucket_problems(with_dead_letter, extra(expected_image)) == []
    assert bucket_problems(with_dead_letter, extra(StoredObject("0" * 64, 1))) == [guarantee]


def test_a_request_that_is_missing_or_written_again() -> None:
    snapshot, contents = valid_state()
    key = next(key for key in contents.objects if key.endswith("request.json"))
    without = {name: stored for name, stored in contents.objects.items() if name != key}

    assert bucket_problems(snapshot, BucketContents(without, frozenset())) == [REQUEST_MISSING]
    again = BucketContents({**without, key: StoredObject("of the request", 2)}, frozenset())
    assert bucket_problems(snapshot, again) == [f"the generation request is stored: {key} has 2 versions"]


def test_a_request_in_the_metadata_of_all_images_needs_no_request_json() -> None:
    snapshot, contents = valid_state()
    key = next(key for key in contents.objects if key.endswith("request.json"))
    folder = key.removesuffix("request.json")

    def without_file(images_with_request: int) -> BucketContents:
        images = [name for name in contents.objects if name.startswith(folder) and name != key]
        changed = {name: replace(contents.objects[name], has_request=True) for name in images[:images_with_request]}
        objects = {name: stored for name, stored in contents.objects.items() if name != key}
        return BucketContents({**objects, **changed}, frozenset())

    images = sum(name.startswith(folder) for name in contents.objects) - 1
    assert bucket_problems(snapshot, without_file(images)) == []
    assert bucket_problems(snapshot, without_file(images - 1)) == [REQUEST_MISSING]


def test_only_unreadable_deliveries_are_stored() -> None:
    snapshot, contents = valid_state()
    cut = Delivery(PLANS[0].task, PLANS[0].provider_outcome, "cut", 1, 1.0, 1.0, 400, cut=Cut.BODY, sha256="digest")
    recorded = History(deliveries=[cut])

    assert bucket_problems(snapshot, replace(contents, rejected_bodies=frozenset({"digest"})), recorded) == []
    guarantee = "unreadable callbacks are stored"
    assert bucket_problems(snapshot, contents, recorded) == [
        f"{guarantee}: its body is not stored, although it was answered with 400"
    ]
    with_unknown = replace(contents, rejected_bodies=frozenset({"digest", "another"}))
    assert bucket_problems(snapshot, with_unknown, recorded) == [f"{guarantee}: 1 stored bodies were never sent"]


def test_only_downloads_of_forged_images_are_violations() -> None:
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


def test_objects_are_read_with_their_versions_and_deleted_objects_without_bytes(s3: Any) -> None:
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


def test_every_dead_letter_queue_has_an_alarm(template: Template) -> None:
    assert queues_without_alarm(template) == []


@pytest.mark.parametrize("queue", ["ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters"])
def test_a_dead_letter_queue_without_an_alarm(template: Template, queue: str) -> None:
    without = copy.deepcopy(template)
    del without.resources[f"{queue}Alarm"]

    assert queues_without_alarm(without) == [queue]
