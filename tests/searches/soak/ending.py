"""Compares the final state of a soak test with the plans: items, objects, dead letters, rejected deliveries."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from local.stack import LocalStack
from local.template.expand import Template
from tests.searches.soak.checks import Violation
from tests.searches.soak.history import History, TaskRecord
from tests.searches.soak.plans import Cut, ImageFate, Registration, TaskPlan

UNHEARD_OF = "never heard of"
DEAD_LETTERS = "in dead letters"
GIVEN_UP = "INCOMPLETE before its time"
_NOT_THERE_AT_FIRST = {ImageFate.NOT_YET, ImageFate.STALE, ImageFate.GONE}
# The queues of tasks that need an operator, by logical id.
FAILURE_QUEUES = ("ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the bucket: the digest of its content, read again, and the number of versions."""

    sha256: str
    versions: int
    has_request: bool = False  # its metadata has the generation request


@dataclass(frozen=True)
class Standing:
    """The items of all tasks and the failure queues that contain tasks."""

    items: Mapping[str, TaskRecord]
    dead: Mapping[str, str]  # the failure queue that contains the task

    @classmethod
    def of(cls, stack: LocalStack, history: History) -> "Standing":
        """Reads it through the services' own APIs; dead letters stay in their queues."""
        pages = stack.boto3_client("dynamodb").get_paginator("scan").paginate(TableName=stack.info["table"])
        items = {item["task"]["S"]: TaskRecord.of(item) for page in pages for item in page["Items"]}
        return cls(items, _read_failures(stack, history))


@dataclass(frozen=True)
class Contents:
    """The contents of the bucket."""

    objects: Mapping[str, StoredObject]  # below images/
    kept: frozenset[str]  # SHA-256 of the bodies of deliveries that could not be parsed

    @classmethod
    def of(cls, stack: LocalStack) -> "Contents":
        """Reads every object."""
        return cls(_read_objects(stack), _read_kept(stack))


def check_tasks(
    plans: Sequence[TaskPlan], standing: Standing, history: History, *, is_repaired: bool
) -> tuple[list[Violation], Counter[str]]:
    """Returns all violations, and the number of tasks by outcome. After the repair no task may need one."""
    violations: list[Violation] = []
    outcomes: Counter[str] = Counter()
    known = {delivery.task for delivery in history.deliveries if delivery.status == 200}
    changed = {change.task for change in history.changes}
    for plan in plans:
        item = standing.items.get(plan.task)
        if item is None:
            outcomes[UNHEARD_OF] += 1
            if plan.registration is not Registration.NEVER or plan.task in known | changed:
                violations.append(Violation("every task ends", plan.task, "it has no item"))
        elif problem := _problem(plan, item):
            outcome = DEAD_LETTERS if plan.task in standing.dead else _excuse(plan, item)
            outcomes[outcome or "STUCK"] += 1
            if outcome is None or is_repaired:
                violations.append(Violation("every task ends", plan.task, problem))
        else:
            outcomes[item.status] += 1
    unplanned = sorted(standing.items.keys() - {plan.task for plan in plans})
    violations += [Violation("nothing is made up", task, "nobody planned it") for task in unplanned]
    return violations, outcomes


def check_bucket(
    standing: Standing, contents: Contents, history: History, images: Mapping[str, str]
) -> Iterator[Violation]:
    """Compares objects with items, and stored rejected deliveries with sent ones; `images` are SHA-256 by path."""
    yield from _check_objects(standing, contents.objects, images)
    yield from _check_kept(contents.kept, history)


def check_requests(image_requests: Mapping[str, int]) -> Iterator[Violation]:
    """Checks that no image was downloaded that only a false report names; `image_requests` counts by path."""
    for path, count in image_requests.items():
        if not path.startswith("/images/"):
            yield Violation("nothing is made up", path, f"the image of a false report was fetched {count} times")


def _problem(plan: TaskPlan, item: TaskRecord) -> str | None:
    if item.status != plan.ending:
        return f"it is {item.status} instead of {plan.ending}"
    if plan.truth.status != "PENDING" and item.reported != plan.truth:
        return f"it says {item.reported} instead of {plan.truth}"
    fates = {image.path: image.fate for image in plan.images}
    for image in item.images:
        fate = fates[image.path]
        state = {ImageFate.GONE: "EXPIRED", ImageFate.PAGE: "REJECTED"}.get(fate, "ARCHIVED")
        if image.state != state:
            return f"{image.path} ({fate}) is {image.state} instead of {state}"
    return None


def _excuse(plan: TaskPlan, item: TaskRecord) -> str | None:
    """Returns the outcome if INCOMPLETE is acceptable: every lost image was still unavailable at its last attempt."""
    fates = {image.path: image.fate for image in plan.images}
    given_up = {fates.get(image.path) for image in item.images if image.state == "EXPIRED"}
    is_excused = item.status == "INCOMPLETE" and item.reported == plan.truth
    return GIVEN_UP if is_excused and given_up <= _NOT_THERE_AT_FIRST else None


def _check_objects(
    standing: Standing, objects: Mapping[str, StoredObject], images: Mapping[str, str]
) -> Iterator[Violation]:
    expected = {
        image.key: image
        for item in standing.items.values()
        for image in item.images
        if image.state == "ARCHIVED" and image.key
    }
    requests = {
        f"{folder(task)}/request.json": [image.key for image in item.images if image.state == "ARCHIVED" and image.key]
        for task, item in standing.items.items()
        if item.has_request and item.status in ("ARCHIVED", "INCOMPLETE")
    }
    for key, archived in requests.items():
        if key not in objects:
            is_in_metadata = archived and all(name in objects and objects[name].has_request for name in archived)
            if not is_in_metadata:
                yield Violation("objects are those of successful tasks", key, "it is missing")
        elif objects[key].versions != 1:
            yield Violation("objects are those of successful tasks", key, "it was written again")
    for key, image in expected.items():
        stored = objects.get(key)
        if stored is None:
            yield Violation("objects are those of successful tasks", key, "it is missing")
        elif not (stored.sha256 == image.sha256 == images.get(image.path)):
            yield Violation("objects are those of successful tasks", key, "it has other bytes")
        elif stored.versions != 1:
            yield Violation("objects are those of successful tasks", key, f"it has {stored.versions} versions")
    true_images = set(images.values())
    for key in objects.keys() - expected.keys() - requests.keys():
        _, provider, task_id, name = key.split("/")
        # The object was written, but its item was not updated: the task's dead letter refers to it.
        is_true = name == "request.json" or objects[key].sha256 in true_images
        if not (is_true and f"{provider}#{task_id}" in standing.dead):
            yield Violation("objects are those of successful tasks", key, "nobody knows of it")


def _check_kept(kept: frozenset[str], history: History) -> Iterator[Violation]:
    cut = [delivery for delivery in history.deliveries if delivery.cut == Cut.BODY]
    for delivery in cut:
        if delivery.status == 400 and delivery.sha256 not in kept:
            yield Violation("what cannot be read is kept", delivery.task, "it was answered 400 and is not kept")
    if unknown := kept - {delivery.sha256 for delivery in cut}:
        yield Violation("what cannot be read is kept", "rejected/", f"nobody sent {len(unknown)} of what is there")


def folder(task: str) -> str:
    """Returns the key prefix of a task's objects."""
    return f"images/{task.replace('#', '/')}"


def alarms_missing(template: Template) -> list[str]:
    """Returns the failure queues without an alarm."""
    watched = {
        dimension["Value"]["Fn::GetAtt"][0]
        for name in template.of_type("AWS::CloudWatch::Alarm")
        for dimension in template.resources[name]["Properties"].get("Dimensions", [])
        if dimension["Name"] == "QueueName" and isinstance(dimension["Value"], dict)
    }
    return [queue for queue in FAILURE_QUEUES if queue not in watched]


# ------------------------------------------------------------------------------------------------ reading


def _read_objects(stack: LocalStack) -> dict[str, StoredObject]:
    s3, bucket = stack.boto3_client("s3"), stack.info["bucket"]
    versions: Counter[str] = Counter()
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix="images/"):
        versions.update(entry["Key"] for entry in (*page.get("Versions", []), *page.get("DeleteMarkers", [])))

    def read(key: str) -> StoredObject:
        found = s3.get_object(Bucket=bucket, Key=key)
        sha256 = hashlib.sha256(found["Body"].read()).hexdigest()
        return StoredObject(sha256, versions[key], has_request="request" in found["Metadata"])

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(versions, pool.map(read, versions), strict=True))


def _read_kept(stack: LocalStack) -> frozenset[str]:
    s3, bucket = stack.boto3_client("s3"), stack.info["bucket"]
    kept = set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="rejected/"):
        for entry in page.get("Contents", []):
            document = json.loads(s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
            kept.add(hashlib.sha256(base64.b64decode(document["body"])).hexdigest())
    return frozenset(kept)


def _read_failures(stack: LocalStack, history: History) -> dict[str, str]:
    """Returns the tasks in failure queues, with their queues; the messages stay there."""
    dead = {
        json.loads(body)["task"]: queue
        for queue in ("ArchiveDeadLetters", "PollDeadLetters")
        for body in _peek(stack, stack.resources[queue].ref)
    }
    numbers = {int(change.sequence_number): change.task for change in history.changes}
    for body in _peek(stack, stack.resources["DispatchDeadLetters"].ref):
        batch = json.loads(body)["DDBStreamBatchInfo"]
        first, last = int(batch["startSequenceNumber"]), int(batch["endSequenceNumber"])
        dead |= {task: "DispatchDeadLetters" for number, task in numbers.items() if first <= number <= last}
    return dead


def _peek(stack: LocalStack, queue_url: str) -> list[str]:
    sqs = stack.boto3_client("sqs")
    messages: list[Any] = []
    while received := sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, VisibilityTimeout=600).get(
        "Messages"
    ):
        messages += received
    for message in messages:
        sqs.change_message_visibility(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return [message["Body"] for message in messages]
