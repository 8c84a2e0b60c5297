"""Compares the final items, objects, dead letters and rejected deliveries of a soak test with the plans."""

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
from tests.searches.soak.images import PAGE_SHA256, ExpectedImage
from tests.searches.soak.plans import ACEDATA, Cut, ImageFault, Registration, TaskPlan

UNKNOWN_TO_STACK = "not known to the stack"
DEAD_LETTERS = "in a dead-letter queue"
GIVEN_UP_EARLY = "INCOMPLETE too early"
_UNAVAILABLE_AT_FIRST = {ImageFault.NOT_YET, ImageFault.STALE, ImageFault.GONE}
# Logical ids of the dead-letter queues whose messages name tasks.
DEAD_LETTER_QUEUES = ("ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the bucket: the SHA-256 of its content as read from S3, its number of versions, its metadata."""

    sha256: str | None  # None: it was deleted
    versions: int
    has_request: bool = False  # whether its metadata has the generation request
    task: str | None = None  # from its metadata
    content_type: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The items of all tasks, and the tasks in dead-letter queues, at one time."""

    items: Mapping[str, TaskRecord]
    dead_letters: Mapping[str, str]  # logical id of the dead-letter queue, by task

    @classmethod
    def of(cls, stack: LocalStack, history: History) -> "Snapshot":
        """Reads the items and dead letters through the AWS APIs. The dead letters stay in their queues."""
        pages = stack.boto3_client("dynamodb").get_paginator("scan").paginate(TableName=stack.info["table"])
        items = {item["task"]["S"]: TaskRecord.of(item) for page in pages for item in page["Items"]}
        return cls(items, _read_dead_letters(stack, history))


@dataclass(frozen=True)
class BucketContents:
    """The objects in the images bucket."""

    objects: Mapping[str, StoredObject]  # below images/ and quarantine/
    rejected_bodies: frozenset[str]  # SHA-256 of the callback bodies below rejected/

    @classmethod
    def of(cls, stack: LocalStack) -> "BucketContents":
        """Reads every object."""
        s3, bucket = stack.boto3_client("s3"), stack.info["bucket"]
        return cls(
            {**read_objects(s3, bucket, "images/"), **read_objects(s3, bucket, "quarantine/")},
            _read_rejected_bodies(stack),
        )


def check_tasks(
    plans: Sequence[TaskPlan], snapshot: Snapshot, history: History, *, is_repaired: bool
) -> tuple[list[Violation], Counter[str]]:
    """Returns all violations, and the number of tasks by outcome.

    `is_repaired`: after the redrive, every task must have its expected status; before it, a dead letter is accepted.
    """
    violations: list[Violation] = []
    outcomes: Counter[str] = Counter()
    acknowledged = {delivery.task for delivery in history.deliveries if delivery.status == 200}
    changed = {change.task for change in history.changes}
    # After a 503 nothing was stored. After any other response, or none, the callback may have been accepted.
    possibly_accepted = {delivery.task for delivery in history.deliveries if delivery.status != 503}
    for plan in plans:
        item = snapshot.items.get(plan.task)
        if item is None:
            outcomes[UNKNOWN_TO_STACK] += 1
            if plan.registration is not Registration.NEVER or plan.task in acknowledged | changed:
                violations.append(Violation("every task reaches its final status", plan.task, "it has no item"))
        elif (
            plan.expected_status == "UNCONFIRMED" and item.status == "TIMED_OUT" and plan.task not in possibly_accepted
        ):
            # The stack responded to each callback with 503 during an outage, so it never received the result.
            outcomes[item.status] += 1
        elif problem := _problem(plan, item):
            outcome = DEAD_LETTERS if plan.task in snapshot.dead_letters else _accepted_outcome(plan, item)
            outcomes[outcome or "STUCK"] += 1
            if outcome is None or is_repaired:
                violations.append(Violation("every task reaches its final status", plan.task, problem))
        else:
            outcomes[item.status] += 1
    unplanned = sorted(snapshot.items.keys() - {plan.task for plan in plans})
    violations += [Violation("all data has a source", task, "it is not in the plans") for task in unplanned]
    return violations, outcomes


def check_items(
    plans: Sequence[TaskPlan], snapshot: Snapshot, images: Mapping[str, ExpectedImage]
) -> Iterator[Violation]:
    """Checks the images, confirmation and generation request of all items.

    `images`: the expected images, by the paths of their URLs.
    """
    for plan in plans:
        item = snapshot.items.get(plan.task)
        for image in item.images if item else ():
            if (expected := images.get(image.path)) is not None:
                yield from _check_image(plan, image, expected)
        if item is None or item.status not in ("ARCHIVED", "INCOMPLETE"):
            continue
        if item.reported_by == "callback" and not item.is_confirmed:
            yield Violation(
                "archived results are confirmed",
                plan.task,
                f"it is {item.status}, and only a callback has reported the result",
            )
        has_archived = any(image.state == "ARCHIVED" for image in item.images)
        if plan.provider == ACEDATA and has_archived and not item.has_request:
            yield Violation(
                "the generation request is stored", plan.task, "its item has none, although the provider has sent it"
            )


def check_bucket(
    snapshot: Snapshot, contents: BucketContents, history: History, images: Mapping[str, ExpectedImage]
) -> Iterator[Violation]:
    """Compares objects with items, and stored rejected deliveries with sent ones.

    `images`: the expected images, by the paths of their URLs.
    """
    yield from _check_objects(snapshot, contents.objects, images)
    yield from _check_requests_stored(snapshot, contents.objects)
    yield from _check_quarantine(snapshot, contents.objects)
    yield from _check_rejected_deliveries(contents.rejected_bodies, history)


def check_requests(image_requests: Mapping[str, int]) -> Iterator[Violation]:
    """Checks that no image of an unauthorised callback was downloaded. `image_requests`: number of requests by path.

    The image of a false callback with a valid token may be downloaded into quarantine while the provider is out.
    Requests for paths outside the plans are ignored: other programs on this machine may send them.
    """
    for path, count in image_requests.items():
        if path.startswith("/forged/"):
            task = "#".join(path.split("/")[2:4])
            yield Violation(
                "all data has a source", task, f"the image of a forged callback was downloaded {count} times"
            )


def _problem(plan: TaskPlan, item: TaskRecord) -> str | None:
    if item.status != plan.expected_status:
        return f"it is {item.status} instead of {plan.expected_status}"
    if plan.provider_outcome.status != "PENDING" and item.reported != plan.provider_outcome:
        return f"it has {item.reported} instead of {plan.provider_outcome}"
    planned = {image.path: image for image in plan.images}
    for image in item.images:
        if image.path not in planned:  # an image of a false report
            continue
        kind, fault = planned[image.path].kind, planned[image.path].fault
        state = {ImageFault.GONE: "EXPIRED", ImageFault.PAGE: "REJECTED"}.get(fault, "ARCHIVED")
        # An original that was unavailable at first may be EXPIRED: the status ARCHIVED does not require it.
        may_expire = kind == "origin" and fault in _UNAVAILABLE_AT_FIRST
        if image.state != state and not (may_expire and image.state == "EXPIRED"):
            return f"{image.path} ({fault}) is {image.state} instead of {state}"
    return None


def _check_image(plan: TaskPlan, image: ImageRecord, expected: ExpectedImage) -> Iterator[Violation]:
    guarantee = "image metadata is correct"
    if image.kind != expected.kind:
        yield Violation(guarantee, plan.task, f"kind of {image.path} is {image.kind} instead of {expected.kind}")
    if image.state != "ARCHIVED":
        return
    for name in ("key", "bytes", "sha256", "width", "height", "content_type"):
        recorded, correct = getattr(image, name), getattr(expected, name)
        if recorded != correct:
            yield Violation(guarantee, plan.task, f"{name} of {image.path} is {recorded} instead of {correct}")


def _accepted_outcome(plan: TaskPlan, item: TaskRecord) -> str | None:
    """Returns GIVEN_UP_EARLY if all EXPIRED images were unavailable at first, otherwise None."""
    faults = {image.path: image.fault for image in plan.images}
    given_up = {faults.get(image.path) for image in item.images if image.state == "EXPIRED"}
    is_excused = item.status == "INCOMPLETE" and item.reported == plan.provider_outcome
    return GIVEN_UP_EARLY if is_excused and given_up <= _UNAVAILABLE_AT_FIRST else None


def _check_objects(
    snapshot: Snapshot, objects: Mapping[str, StoredObject], images: Mapping[str, ExpectedImage]
) -> Iterator[Violation]:
    guarantee = "objects match the items"
    recorded = {
        image.key: (task, image)
        for task, item in snapshot.items.items()
        for image in item.images
        if image.state == "ARCHIVED" and image.key
    }
    for key, (task, image) in recorded.items():
        stored, expected = objects.get(key), images.get(image.path)
        if stored is None:
            yield Violation(guarantee, task, f"{key} is missing")
        elif stored.sha256 is None:
            yield Violation(guarantee, task, f"{key} was deleted")
        elif expected is None or not (stored.sha256 == image.sha256 == expected.sha256):
            yield Violation(guarantee, task, f"{key} has other bytes")
        elif stored.versions != 1:
            yield Violation(guarantee, task, f"{key} has {stored.versions} versions")
        elif (stored.task, stored.content_type) != (task, expected.content_type):
            yield Violation(guarantee, task, f"{key} has content type {stored.content_type} and task {stored.task}")
    expected_sha256 = {image.sha256 for image in images.values()}
    requests = {_request_key(task) for task in _tasks_with_request(snapshot)}
    for key in objects.keys() - recorded.keys() - requests:
        if not key.startswith("images/"):
            continue
        # A run may write an object and fail to update the item; the task's message is then a dead letter.
        is_valid = key.endswith("/request.json") or objects[key].sha256 in expected_sha256
        if not (is_valid and task_of(key) in snapshot.dead_letters):
            yield Violation(guarantee, task_of(key), f"no item has {key}")


def _check_requests_stored(snapshot: Snapshot, objects: Mapping[str, StoredObject]) -> Iterator[Violation]:
    """Checks that the generation request is in the metadata of all images or in request.json."""
    for task in _tasks_with_request(snapshot):
        file = objects.get(_request_key(task))
        archived = [image.key for image in snapshot.items[task].images if image.state == "ARCHIVED" and image.key]
        is_in_metadata = archived and all(key in objects and objects[key].has_request for key in archived)
        if file is None and not is_in_metadata:
            yield Violation(
                "the generation request is stored",
                task,
                "it is neither in the metadata of all images nor in request.json",
            )
        elif file is not None and file.versions != 1:
            yield Violation(
                "the generation request is stored", task, f"{_request_key(task)} has {file.versions} versions"
            )


def _tasks_with_request(snapshot: Snapshot) -> list[str]:
    return [
        task for task, item in snapshot.items.items() if item.has_request and item.status in ("ARCHIVED", "INCOMPLETE")
    ]


def _request_key(task: str) -> str:
    return f"images/{task.replace('#', '/')}/request.json"


def _check_quarantine(snapshot: Snapshot, objects: Mapping[str, StoredObject]) -> Iterator[Violation]:
    """Checks that the bytes of each REJECTED image are in quarantine under the key in its item."""
    for task, item in snapshot.items.items():
        for image in item.images:
            if image.state != "REJECTED":
                continue
            stored = objects.get(image.quarantine_key or "")
            if stored is None or not (stored.sha256 == image.quarantine_sha256 == PAGE_SHA256):
                yield Violation(
                    "rejected images are in quarantine", task, f"the bytes of {image.path} are not in quarantine"
                )


def _check_rejected_deliveries(stored: frozenset[str], history: History) -> Iterator[Violation]:
    cut = [delivery for delivery in history.deliveries if delivery.cut == Cut.BODY]
    for delivery in cut:
        if delivery.status == 400 and delivery.sha256 not in stored:
            yield Violation(
                "unreadable callbacks are stored",
                delivery.task,
                "its body is not stored, although it was answered with 400",
            )
    if unknown := stored - {delivery.sha256 for delivery in cut}:
        yield Violation("unreadable callbacks are stored", "rejected/", f"{len(unknown)} stored bodies were never sent")


def queues_without_alarm(template: Template) -> list[str]:
    """Returns the logical ids of the dead-letter queues without an alarm."""
    watched = {
        dimension["Value"]["Fn::GetAtt"][0]
        for name in template.of_type("AWS::CloudWatch::Alarm")
        for dimension in template.resources[name]["Properties"].get("Dimensions", [])
        if dimension["Name"] == "QueueName" and isinstance(dimension["Value"], dict)
    }
    return [queue for queue in DEAD_LETTER_QUEUES if queue not in watched]


# ------------------------------------------------------------------------------------------------ reading


def read_objects(s3: Any, bucket: str, prefix: str) -> dict[str, StoredObject]:
    """Returns all objects with this prefix, including deleted objects."""
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


def _read_rejected_bodies(stack: LocalStack) -> frozenset[str]:
    s3, bucket = stack.boto3_client("s3"), stack.info["bucket"]
    digests = set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="rejected/"):
        for entry in page.get("Contents", []):
            document = json.loads(s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
            digests.add(hashlib.sha256(base64.b64decode(document["body"])).hexdigest())
    return frozenset(digests)


def _read_dead_letters(stack: LocalStack, history: History) -> dict[str, str]:
    """Returns the tasks in dead-letter queues, with the queue's logical id. The messages stay in the queues."""
    dead_letters = {
        json.loads(body)["task"]: queue
        for queue in ("ArchiveDeadLetters", "PollDeadLetters")
        for body in _peek(stack, stack.resources[queue].ref)
    }
    numbers = {int(change.sequence_number): change.task for change in history.changes}
    for body in _peek(stack, stack.resources["DispatchDeadLetters"].ref):
        batch = json.loads(body)["DDBStreamBatchInfo"]
        first, last = int(batch["startSequenceNumber"]), int(batch["endSequenceNumber"])
        dead_letters |= {task: "DispatchDeadLetters" for number, task in numbers.items() if first <= number <= last}
    return dead_letters


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
