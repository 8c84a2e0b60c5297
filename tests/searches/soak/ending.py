"""Compares the final state of a soak test with the plans: items, objects, dead letters, rejected deliveries."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from local.stack import LocalStack
from local.template.expand import Template
from tests.searches.soak.checks import Violation, task_of
from tests.searches.soak.history import History, ImageRecord, TaskRecord
from tests.searches.soak.images import PAGE_SHA256, ImageTruth
from tests.searches.soak.plans import ACEDATA, Cut, ImageFate, Registration, TaskPlan

UNHEARD_OF = "never heard of"
DEAD_LETTERS = "in dead letters"
GIVEN_UP = "INCOMPLETE before its time"
_NOT_THERE_AT_FIRST = {ImageFate.NOT_YET, ImageFate.STALE, ImageFate.GONE}
# The queues of tasks that need an operator, by logical id.
FAILURE_QUEUES = ("ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the bucket: the digest of its content, read again, and the number of versions."""

    sha256: str | None  # None: it was deleted
    versions: int
    has_request: bool = False  # its metadata has the generation request
    task: str | None = None  # as its metadata says
    content_type: str | None = None


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

    objects: Mapping[str, StoredObject]  # below images/ and quarantine/
    kept: frozenset[str]  # SHA-256 of the bodies of deliveries that could not be parsed

    @classmethod
    def of(cls, stack: LocalStack) -> "Contents":
        """Reads every object."""
        s3, bucket = stack.boto3_client("s3"), stack.info["bucket"]
        return cls(
            {**read_objects(s3, bucket, "images/"), **read_objects(s3, bucket, "quarantine/")}, _read_kept(stack)
        )


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


def check_items(plans: Sequence[TaskPlan], standing: Standing, images: Mapping[str, ImageTruth]) -> Iterator[Violation]:
    """Checks what the items say of their images; `images` are the true ones, by the paths of their URLs."""
    for plan in plans:
        item = standing.items.get(plan.task)
        for image in item.images if item else ():
            if (true := images.get(image.path)) is not None:
                yield from _check_image(plan, image, true)
        if item is None or item.status not in ("ARCHIVED", "INCOMPLETE"):
            continue
        if item.reported_by == "callback" and not item.is_confirmed:
            yield Violation("a result is confirmed", plan.task, f"it is {item.status}, and only a callback said so")
        has_archived = any(image.state == "ARCHIVED" for image in item.images)
        if plan.provider == ACEDATA and has_archived and not item.has_request:
            yield Violation("the request is kept", plan.task, "its item has none, and the service has told it")


def check_bucket(
    standing: Standing, contents: Contents, history: History, images: Mapping[str, ImageTruth]
) -> Iterator[Violation]:
    """Compares objects with items, and kept deliveries with sent ones; `images` are the true ones, by path."""
    yield from _check_objects(standing, contents.objects, images)
    yield from _check_requests_kept(standing, contents.objects)
    yield from _check_quarantine(standing, contents.objects)
    yield from _check_kept(contents.kept, history)


def check_requests(image_requests: Mapping[str, int]) -> Iterator[Violation]:
    """Checks that no image was downloaded that only an unauthorised report names; `image_requests` counts by path.

    The image of a false report with a valid token may be downloaded into quarantine, while its service does not answer.
    Requests for other paths are those of strangers: any program on this machine may send some.
    """
    for path, count in image_requests.items():
        if path.startswith("/forged/"):
            task = "#".join(path.split("/")[2:4])
            yield Violation("nothing is made up", task, f"the image of a forged report was fetched {count} times")


def _problem(plan: TaskPlan, item: TaskRecord) -> str | None:
    if item.status != plan.ending:
        return f"it is {item.status} instead of {plan.ending}"
    if plan.truth.status != "PENDING" and item.reported != plan.truth:
        return f"it says {item.reported} instead of {plan.truth}"
    planned = {image.path: image for image in plan.images}
    for image in item.images:
        if image.path not in planned:  # of a false report
            continue
        kind, fate = planned[image.path].kind, planned[image.path].fate
        state = {ImageFate.GONE: "EXPIRED", ImageFate.PAGE: "REJECTED"}.get(fate, "ARCHIVED")
        # An original that was not there at first may be given up: an ARCHIVED task does not need it.
        may_expire = kind == "origin" and fate in _NOT_THERE_AT_FIRST
        if image.state != state and not (may_expire and image.state == "EXPIRED"):
            return f"{image.path} ({fate}) is {image.state} instead of {state}"
    return None


def _check_image(plan: TaskPlan, image: ImageRecord, true: ImageTruth) -> Iterator[Violation]:
    promise = "an item describes its images"
    if image.kind != true.kind:
        yield Violation(promise, plan.task, f"{image.path} is recorded as {image.kind}, and is its {true.kind}")
    if image.state != "ARCHIVED":
        return
    for name in ("key", "bytes", "sha256", "width", "height", "content_type"):
        said, correct = getattr(image, name), getattr(true, name)
        if said != correct:
            yield Violation(promise, plan.task, f"{name} of {image.path} is {said} instead of {correct}")


def _excuse(plan: TaskPlan, item: TaskRecord) -> str | None:
    """Returns the outcome if INCOMPLETE is acceptable: every lost image was still unavailable at its last attempt."""
    fates = {image.path: image.fate for image in plan.images}
    given_up = {fates.get(image.path) for image in item.images if image.state == "EXPIRED"}
    is_excused = item.status == "INCOMPLETE" and item.reported == plan.truth
    return GIVEN_UP if is_excused and given_up <= _NOT_THERE_AT_FIRST else None


def _check_objects(
    standing: Standing, objects: Mapping[str, StoredObject], images: Mapping[str, ImageTruth]
) -> Iterator[Violation]:
    promise = "objects are those of successful tasks"
    expected = {
        image.key: (task, image)
        for task, item in standing.items.items()
        for image in item.images
        if image.state == "ARCHIVED" and image.key
    }
    for key, (task, image) in expected.items():
        stored, true = objects.get(key), images.get(image.path)
        if stored is None:
            yield Violation(promise, task, f"{key} is missing")
        elif stored.sha256 is None:
            yield Violation(promise, task, f"{key} was deleted")
        elif true is None or not (stored.sha256 == image.sha256 == true.sha256):
            yield Violation(promise, task, f"{key} has other bytes")
        elif stored.versions != 1:
            yield Violation(promise, task, f"{key} has {stored.versions} versions")
        elif (stored.task, stored.content_type) != (task, true.content_type):
            yield Violation(promise, task, f"{key} is labelled as {stored.content_type} of {stored.task}")
    true_images = {true.sha256 for true in images.values()}
    requests = {_request_key(task) for task in _tasks_with_request(standing)}
    for key in objects.keys() - expected.keys() - requests:
        if not key.startswith("images/"):
            continue
        # The object was written, but its item was not updated: the task's dead letter refers to it.
        is_true = key.endswith("/request.json") or objects[key].sha256 in true_images
        if not (is_true and task_of(key) in standing.dead):
            yield Violation(promise, task_of(key), f"nobody knows of {key}")


def _check_requests_kept(standing: Standing, objects: Mapping[str, StoredObject]) -> Iterator[Violation]:
    """Checks that a known generation request is in the metadata of all images, or in a file of its own."""
    for task in _tasks_with_request(standing):
        file = objects.get(_request_key(task))
        archived = [image.key for image in standing.items[task].images if image.state == "ARCHIVED" and image.key]
        is_in_metadata = archived and all(key in objects and objects[key].has_request for key in archived)
        if file is None and not is_in_metadata:
            yield Violation("the request is kept", task, "it is neither in the metadata of all images nor in a file")
        elif file is not None and file.versions != 1:
            yield Violation("the request is kept", task, f"{_request_key(task)} has {file.versions} versions")


def _tasks_with_request(standing: Standing) -> list[str]:
    return [
        task for task, item in standing.items.items() if item.has_request and item.status in ("ARCHIVED", "INCOMPLETE")
    ]


def _request_key(task: str) -> str:
    return f"images/{task.replace('#', '/')}/request.json"


def _check_quarantine(standing: Standing, objects: Mapping[str, StoredObject]) -> Iterator[Violation]:
    """Checks that the bytes of an image that was refused are where its item says."""
    for task, item in standing.items.items():
        for image in item.images:
            if image.state != "REJECTED":
                continue
            stored = objects.get(image.kept_key or "")
            if stored is None or not (stored.sha256 == image.kept_sha256 == PAGE_SHA256):
                yield Violation("refused bytes are kept", task, f"those of {image.path} are not in quarantine")


def _check_kept(kept: frozenset[str], history: History) -> Iterator[Violation]:
    cut = [delivery for delivery in history.deliveries if delivery.cut == Cut.BODY]
    for delivery in cut:
        if delivery.status == 400 and delivery.sha256 not in kept:
            yield Violation("what cannot be read is kept", delivery.task, "it was answered 400 and is not kept")
    if unknown := kept - {delivery.sha256 for delivery in cut}:
        yield Violation("what cannot be read is kept", "rejected/", f"nobody sent {len(unknown)} of what is there")


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


def read_objects(s3: Any, bucket: str, prefix: str) -> dict[str, StoredObject]:
    """Returns all objects with this prefix, also those that were deleted."""
    versions: Counter[str] = Counter()
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        versions.update(entry["Key"] for entry in (*page.get("Versions", []), *page.get("DeleteMarkers", [])))

    def read(key: str) -> StoredObject:
        try:
            found = s3.get_object(Bucket=bucket, Key=key)
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "NoSuchKey":
                raise
            return StoredObject(None, versions[key])
        metadata = found["Metadata"]
        return StoredObject(
            hashlib.sha256(found["Body"].read()).hexdigest(),
            versions[key],
            has_request="request" in metadata,
            task=metadata.get("task"),
            content_type=found["ContentType"],
        )

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
