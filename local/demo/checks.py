"""Compares items, callbacks and stored images with the expected outcome of each case, down to the image bytes."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from catchlight.models import ImageState, TaskStatus
from catchlight.recovery.deliveries import PREFIX, DeliveryStore, StoredDelivery
from local.demo.forgeries import forged_urls
from local.demo.runner import DemoTask
from local.simulator import Delivery, SimulatedTask, Simulator

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An object of the bucket: an archived image, an image in quarantine, or an unexpected object."""

    key: str
    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """All objects of the bucket, by key."""

    images: Mapping[str, StoredImage]
    requests: Mapping[str, Any]  # generation requests, by the folder of the images with which they are stored
    kept_deliveries: Mapping[str, StoredDelivery]
    quarantine: Mapping[str, StoredImage] = field(default_factory=dict)


def read_bucket(s3: "S3Client", bucket: str) -> Bucket:
    """Reads all objects of the bucket."""
    stored: dict[str, StoredImage] = {}
    quarantine: dict[str, StoredImage] = {}
    requests: dict[str, Any] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            if entry["Key"].startswith(PREFIX):
                continue
            found = s3.get_object(Bucket=bucket, Key=entry["Key"])
            with found["Body"] as body:
                content = body.read()
            folder, _, name = entry["Key"].rpartition("/")
            if name == "request.json":
                requests[folder] = json.loads(content)["request"]
            else:
                if request := found["Metadata"].get("request"):
                    requests[folder] = json.loads(request)
                objects = quarantine if entry["Key"].startswith("quarantine/") else stored
                objects[entry["Key"]] = StoredImage(entry["Key"], content, found["ContentType"])
    return Bucket(stored, requests, dict(DeliveryStore(s3, bucket)), quarantine)


def save_images(stored: Mapping[str, StoredImage], folder: Path) -> None:
    """Writes the objects into a folder, under their keys without the prefix `images/`."""
    for key, image in stored.items():
        path = folder / key.removeprefix("images/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.content)


def find_problems(tasks: Sequence[DemoTask], simulator: Simulator, bucket: Bucket, dead_letters: int) -> list[str]:
    """Returns a message for each deviation from the expected outcome; empty if there is none."""
    problems = []
    for task in tasks:
        found = [
            *_task_problems(task, simulator),
            *_forgery_problems(task, simulator),
            *_request_problems(task, bucket),
            *_image_problems(task, simulator, bucket.images),
            *_quarantine_problems(task, simulator, bucket.quarantine),
        ]
        problems += [f"{task.case.key}: {problem}" for problem in found]
    known_keys = {image.get("key") for task in tasks for image in (task.item or {}).get("images", [])}
    problems += [f"{key} is in the bucket and belongs to no task" for key in sorted(bucket.images.keys() - known_keys)]
    unreadable = {(sent.provider, json.dumps(sent.body)) for sent in simulator.deliveries if sent.status == 422}
    kept = {(each.provider_id, each.body.decode()) for each in bucket.kept_deliveries.values()}
    if kept != unreadable:
        problems.append(f"{len(kept)} unreadable deliveries are stored instead of {len(unreadable)}")
    if dead_letters:
        problems.append(f"{dead_letters} messages are in the archive's dead-letter queue")
    return problems


def _request_problems(task: DemoTask, bucket: Bucket) -> list[str]:
    case = task.case
    if not (case.images and task.is_final) or case.status is TaskStatus.UNCONFIRMED:
        return []
    stored = bucket.requests.get(f"images/{case.provider}/{case.task_id}", {})
    recorded = (task.item or {}).get("request", {})
    return [] if case.prompt == stored.get("prompt") == recorded.get("prompt") else ["its prompt is not stored"]


def count_messages(sqs: "SQSClient", queue_url: str) -> int:
    """Counts the messages in a queue, including those in flight."""
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def _task_problems(task: DemoTask, simulator: Simulator) -> list[str]:
    case, item = task.case, task.item
    if item is None:
        return ["there is no item"]
    if item["status"] != case.status:
        late = "" if task.is_final else " when the time was over"
        return [f"{item['status']} instead of {case.status}{late}"]
    reason = item.get("failure", {}).get("reason")
    deliveries, conflicts = int(item.get("deliveries", 0)), len(item.get("conflicts", []))
    accepted = sum(sent.is_accepted for sent in _deliveries(case.task_id, simulator))
    checks = {
        f"reported by {item.get('reportedBy')}": item.get("reportedBy") in case.reported_by,
        f"failure {reason} instead of {case.failure}": reason == case.failure,
        f"{deliveries} callbacks counted instead of {' or '.join(map(str, case.callbacks))}": (
            deliveries in case.callbacks
        ),
        f"{accepted} callbacks accepted instead of {1 + case.repeated}": not case.repeated or accepted > case.repeated,
        f"{conflicts} conflicts instead of {' or '.join(map(str, case.conflicts))}": conflicts in case.conflicts,
        "was not polled while it was running": not case.polled_while_running
        or any(simulated.polls_while_running for simulated in simulator.tasks if simulated.task_id == case.task_id),
    }
    return [problem for problem, is_fine in checks.items() if not is_fine]


def _deliveries(task_id: str, simulator: Simulator) -> list[Delivery]:
    return [sent for sent in simulator.deliveries if sent.task_id == task_id]


def _forgery_problems(task: DemoTask, simulator: Simulator) -> list[str]:
    case = task.case
    if case.forgery is None:
        return []
    urls = set(forged_urls(case.task_id, simulator.url))
    evidence = [set(conflict.get("urls", [])) for conflict in (task.item or {}).get("conflicts", [])]
    status, expected = task.forgery_status, case.forgery.expected_status
    checks = {
        f"the forged callback was answered {status} instead of {expected}": status == expected,
        "the forged callback is not among the evidence": urls in evidence or not case.forgery.has_token,
        # An image from a forged URL stays in quarantine until the provider has confirmed or contradicted the report.
        "a forged URL is among the images": not urls & {image["url"] for image in (task.item or {}).get("images", [])},
    }
    return [problem for problem, is_fine in checks.items() if not is_fine]


def _image_problems(task: DemoTask, simulator: Simulator, stored: Mapping[str, StoredImage]) -> list[str]:
    simulated = simulator.find_task(task.case.provider, task.case.task_id)
    images = (task.item or {}).get("images", [])
    if not task.is_final:
        return []  # reported by `_task_problems`
    if simulated is None or len(images) != task.case.images:
        return [f"{len(images)} images instead of {task.case.images}"]
    if task.case.status is TaskStatus.UNCONFIRMED:
        return []  # checked by `_quarantine_problems`
    if not task.case.has_original:
        original, *images = images
        if (original["kind"], original["state"]) != ("origin", ImageState.EXPIRED):
            return [f"{original['kind']} {original['state']} instead of an EXPIRED original"]
    return [
        problem for image in images for problem in _one_image_problems(image, simulated, stored, task.case.rejected)
    ]


def _quarantine_problems(task: DemoTask, simulator: Simulator, quarantine: Mapping[str, StoredImage]) -> Iterator[str]:
    simulated = simulator.find_task(task.case.provider, task.case.task_id)
    # An image at a URL in a private network was not downloaded, so it is not in quarantine.
    is_unconfirmed = task.case.status is TaskStatus.UNCONFIRMED
    if simulated is None or task.case.scenario.result_base_url or not (task.case.rejected or is_unconfirmed):
        return
    for image in simulated.images:
        key = f"quarantine/{task.case.provider}/{task.case.task_id}/{image.kind}-{image.index}"
        is_expected = is_unconfirmed or image.kind == "result"
        if is_expected and (key not in quarantine or quarantine[key].content != image.content):
            yield f"{key} does not have the bytes that were served"


def _one_image_problems(
    image: Mapping[str, Any], simulated: SimulatedTask, stored: Mapping[str, StoredImage], rejected: str | None
) -> list[str]:
    # URLs are compared without the query, which has a new signature if the URL was refreshed.
    url, _, query = image["url"].partition("?")
    signature = dict(parse_qsl(query)).get("signature", "0")
    served = next((served for served in simulated.images if served.url == url), None)
    if served is None:
        return [f"the simulator does not serve {image['url']}"]
    name = f"{served.kind}-{served.index}"
    if rejected and served.kind == "result":
        is_rejected = image["state"] == ImageState.REJECTED and rejected in image.get("reason", "")
        return [] if is_rejected else [f"{name}: {image['state']}, {image.get('reason')} instead of {rejected}"]
    stored_image = stored.get(image.get("key", ""))
    if stored_image is None:
        return [f"{name} is not in the bucket: {image['state']}, {image.get('reason', 'no reason given')}"]
    picture = served.picture
    checks = {
        "signature of the URL": int(signature) >= served.first_signature,
        "kind": image["kind"] == served.kind,
        "key": image["key"].startswith(f"images/{simulated.provider}/{simulated.task_id}/{name}."),
        "bytes in the bucket": hashlib.sha256(stored_image.content).hexdigest() == picture.sha256,
        "content type in the bucket": stored_image.content_type == picture.format.content_type,
        "sha256": image["sha256"] == picture.sha256,
        "bytes": image["bytes"] == len(picture.content),
        "contentType": image["contentType"] == picture.format.content_type,
        "width and height": (image["width"], image["height"]) == (picture.width, picture.height),
        "trailingBytes": image.get("trailingBytes", 0) == picture.trailing_bytes,
    }
    return [f"{name}: {check} differs from what was served" for check, is_fine in checks.items() if not is_fine]
