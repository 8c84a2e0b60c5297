"""Provides the building blocks of the smoke test's steps: answers of AWS, tasks and images."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from boto3.dynamodb.types import TypeSerializer
from PIL import Image

from catchlight.models import iso, utc_now
from scripts.smoke.account import BUCKET, Account, Answering, AwsResponse, Call

TOKEN = "smokeCallbackToken0123456789abcdefghijklmnopqrstuv"  # noqa: S105 - not one of any stack
KEYS = {name: {"apiKey": f"{name}-key"} for name in ("flux-kontext", "nanobanana", "acedata")}
IMAGE_HOST = "tempfile.aiquickdraw.com"
WEBHOOK_HOST = "hooks.example.com"
WEBHOOK_URL = f"https://{WEBHOOK_HOST}/catchlight"
WEBHOOK_SECRET = "c21va2VXZWJob29rU2VjcmV0MDEyMzQ1Njc4OWFi"  # noqa: S105 - not one of any stack
OTHER_HOSTS = (IMAGE_HOST, "api.kie.ai", "api.nanobananaapi.ai", "api.acedata.cloud", WEBHOOK_HOST)
IMAGE_URL = f"https://{IMAGE_HOST}/r/task12345.png"
IMAGE_KEY = "images/flux-kontext/task12345/result-0.png"
STREAM_LABEL = "2026-01-06T00:17:05.000"
QUARANTINE_KEY = "quarantine/flux-kontext/task12345/result-0"
RECORD_INFO = "GET https://api.kie.ai/api/v1/flux/kontext/record-info"

FollowUp = Callable[[Any, Sequence[Call], Account], Iterator[str]]


@dataclass(frozen=True)
class Step:
    """An event for a function, the expected members of its response, and AWS's answers to its calls.

    `answers`: the answers to successive calls, by operation. All of them must be used.
    """

    name: str
    event: Mapping[str, Any]
    response: Any = field(default_factory=dict)
    answers: Mapping[str, Sequence[AwsResponse]] = field(default_factory=dict)
    follow_up: FollowUp | None = None  # further checks; yields problems


# ------------------------------------------------------------------------------------------------ answers of AWS


def error(code: str, status: int = 400, **members: Any) -> AwsResponse:
    """Builds an error response of AWS's JSON protocols."""
    return AwsResponse(status, {"__type": f"com.amazonaws.smoke#{code}", "message": f"smoke: {code}", **members})


def s3_error(code: str, status: int) -> AwsResponse:
    """Builds an error response of S3."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>smoke</Message></Error>'
    return AwsResponse(status, body.encode(), {"Content-Type": "application/xml"})


def refused(item: Mapping[str, Any]) -> AwsResponse:
    """Builds the response to a write whose condition is false, with the current item."""
    return error("ConditionalCheckFailedException", Item=attributes(item))


def attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an item in DynamoDB's JSON."""
    return dict(TypeSerializer().serialize(item)["M"])


def found(item: Mapping[str, Any]) -> AwsResponse:
    """Builds the response to GetItem with this item."""
    return AwsResponse(body={"Item": attributes(item)})


def _secret(call: Call) -> AwsResponse:
    if call.parameters["VersionStage"] != "AWSCURRENT":
        return error("ResourceNotFoundException")  # as for a secret that was never rotated
    values = {"CallbackToken": TOKEN, "ProviderKeys": json.dumps(KEYS), "Webhook": WEBHOOK_SECRET}
    (value,) = [value for name, value in values.items() if name in call.parameters["SecretId"]]
    return AwsResponse(body={"Name": "secret", "SecretString": value})


def sent(*ids: str) -> AwsResponse:
    """Builds SQS's response to a batch of which it accepts the entries with these ids."""
    accepted = [{"Id": each, "MessageId": f"message-{each}", "MD5OfMessageBody": "0" * 32} for each in ids]
    return AwsResponse(body={"Successful": accepted})


def _published(call: Call) -> AwsResponse:
    entries = call.parameters["Entries"]
    return AwsResponse(
        body={"FailedEntryCount": 0, "Entries": [{"EventId": f"event-{i}"} for i in range(len(entries))]}
    )


OK = AwsResponse()
STARTED = AwsResponse(body={"executionArn": "arn", "startDate": 1767658625.1})
THROTTLED = error("ThrottlingException")
USUAL: dict[str, Answering] = {
    "GetSecretValue": _secret,
    "UpdateItem": lambda _: OK,
    "PutObject": lambda _: OK,
    "StartExecution": lambda _: STARTED,
    "SendMessageBatch": lambda call: sent(*(entry["Id"] for entry in call.parameters["Entries"])),
    "ReceiveMessage": lambda _: OK,
    "ChangeMessageVisibility": lambda _: OK,
    "PutEvents": _published,
}

# ------------------------------------------------------------------------------------------------ tasks and images


def moment(**ago: float) -> str:
    """Returns a past time (a future one for negative values) in the items' format."""
    return iso(utc_now() - timedelta(**ago))


def _png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(content, "PNG")
    return content.getvalue()


PNG = _png()


def task(status: str, rank: int, **more: Any) -> dict[str, Any]:
    """Builds an item of the tasks table."""
    known = {"task": "flux-kontext#task12345", "provider": "flux-kontext", "taskId": "task12345"}
    return {**known, "status": status, "rank": rank, "updatedAt": moment(minutes=1), **more}


def succeeded(**more: Any) -> dict[str, Any]:
    """Builds a SUCCEEDED task with one image, reported by an unconfirmed callback."""
    image = {"kind": "result", "url": IMAGE_URL, "expiresAt": moment(days=-13), "state": "PENDING"}
    reported = {"reportedBy": "callback", "reportedAt": moment(minutes=1), "images": [image]}
    return task("SUCCEEDED", 30, **reported, **more)


def archived() -> dict[str, Any]:
    """Builds a task whose image is archived in the bucket."""
    item = succeeded() | {"status": "ARCHIVED", "rank": 50, "archivedAt": moment()}
    stored = {"state": "ARCHIVED", "bucket": BUCKET, "key": IMAGE_KEY, "bytes": len(PNG), "sha256": "0" * 64}
    measured = {"contentType": "image/png", "width": 64, "height": 48, "archivedAt": moment()}
    return item | {"images": [{**item["images"][0], **stored, **measured}]}


def quarantined() -> dict[str, Any]:
    """Builds a task whose image was refused, and whose bytes are in quarantine."""
    item = succeeded() | {"status": "INCOMPLETE", "rank": 40, "archivedAt": moment()}
    kept = {"key": QUARANTINE_KEY, "bytes": len(PNG), "sha256": "0" * 64}
    return item | {"images": [{**item["images"][0], "state": "REJECTED", "reason": "cut", "quarantine": kept}]}


def kept_until_confirmed() -> dict[str, Any]:
    """Builds a task whose image was downloaded before the provider confirmed it."""
    item = succeeded()
    kept = {"key": QUARANTINE_KEY, "bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    return item | {"images": [{**item["images"][0], "quarantine": kept}]}


def quarantined_object() -> AwsResponse:
    """Builds S3's response with the object in quarantine to which `kept_until_confirmed` refers."""
    digest = hashlib.sha256(IMAGE_URL.encode()).hexdigest()
    return AwsResponse(200, PNG, {"x-amz-meta-source-url-sha256": digest, "x-amz-meta-source-host": IMAGE_HOST})


def record_info(url: str = IMAGE_URL) -> AwsResponse:
    """Builds kie.ai's response to a poll of a completed task."""
    record = {"taskId": "task12345", "successFlag": 1, "response": {"resultImageUrl": url}, "errorMessage": ""}
    return AwsResponse(body={"code": 200, "msg": "success", "data": record})


IMAGE = AwsResponse(200, PNG, {"Content-Type": "image/png"})
NOTHING_FAILED: dict[str, Any] = {"batchItemFailures": []}
PENDING = task("PENDING", 0)
ITEM = AwsResponse(body={"Responses": {"TasksTable": [attributes(PENDING)]}, "UnprocessedKeys": {}})
UNPROCESSED = AwsResponse(
    body={
        "Responses": {"TasksTable": []},
        "UnprocessedKeys": {"TasksTable": {"Keys": [{"task": {"S": PENDING["task"]}}]}},
    }
)
FOUND = found(succeeded(request={"prompt": "a lake"}))


def page(*items: Mapping[str, Any], more: bool = False) -> AwsResponse:
    """Builds a page of a Query's result; `more` adds a LastEvaluatedKey."""
    last = {"LastEvaluatedKey": attributes({"task": "flux-kontext#last", "status": "PENDING", "updatedAt": moment()})}
    count = {"Count": len(items), "ScannedCount": len(items)}
    return AwsResponse(body={"Items": [attributes(item) for item in items], **count, **(last if more else {})})
