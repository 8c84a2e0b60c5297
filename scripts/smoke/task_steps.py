"""Defines the smoke test's steps of the functions StartPolling, PollTasks, ArchiveImages and ReconcileTasks."""

import base64
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from local.account import ACCOUNT_ID
from scripts.smoke.account import REGION, Account, AwsResponse, Call
from scripts.smoke.change_steps import change
from scripts.smoke.steps import (
    FOUND,
    IMAGE,
    IMAGE_HOST,
    IMAGE_KEY,
    IMAGE_URL,
    ITEM,
    NOTHING_FAILED,
    OK,
    PENDING,
    PNG,
    QUARANTINE_KEY,
    RECORD_INFO,
    STARTED,
    STREAM_LABEL,
    THROTTLED,
    UNPROCESSED,
    FollowUp,
    Step,
    archived,
    error,
    found,
    kept_until_confirmed,
    moment,
    page,
    quarantined_object,
    record_info,
    refused,
    s3_error,
    succeeded,
)


def messages(body: str = json.dumps({"task": PENDING["task"]}), **more: str) -> dict[str, Any]:
    """Builds a batch of a queue with one message."""
    record = {
        "messageId": "message-1",
        "receiptHandle": "receipt-1",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1767658625000", **more},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }
    return {"Records": [record]}


RETRIED = {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
OVERDUE_MESSAGES = messages(json.dumps({"task": PENDING["task"], "change": "1"}))
START_POLLING = [
    Step(
        "a task whose callback is overdue",
        OVERDUE_MESSAGES,
        NOTHING_FAILED,
        {
            "BatchGetItem": [UNPROCESSED, ITEM],
            "StartExecution": [STARTED],
            "UpdateItem": [OK],
        },
    ),
    Step(
        "an execution that exists already",
        OVERDUE_MESSAGES,
        NOTHING_FAILED,
        {"BatchGetItem": [ITEM], "StartExecution": [error("ExecutionAlreadyExists")]},
    ),
    Step(
        "throttled services",
        OVERDUE_MESSAGES,
        NOTHING_FAILED,
        {
            "BatchGetItem": [THROTTLED, ITEM],
            "StartExecution": [THROTTLED, STARTED],
            "UpdateItem": [THROTTLED, OK],
        },
    ),
    Step(
        "a denied execution",
        OVERDUE_MESSAGES,
        RETRIED,
        {"BatchGetItem": [ITEM], "StartExecution": [error("AccessDeniedException")]},
    ),
]

POLL: dict[str, Any] = {"tasks": [PENDING["task"]], "waitSeconds": 60, "waitedSeconds": 0}
POLL_TASKS = [
    Step(
        "a result that polling finds",
        POLL,
        {"tasks": []},
        {"BatchGetItem": [UNPROCESSED, ITEM], RECORD_INFO: [record_info()], "UpdateItem": [OK]},
    ),
    Step(
        "a result that cannot be read",
        POLL,
        {"tasks": []},
        {
            "BatchGetItem": [ITEM],
            RECORD_INFO: [record_info("ftp://images.example/a")],
            "PutObject": [OK],
            "UpdateItem": [OK],
        },
    ),
    Step(
        "a throttled table",
        POLL,
        {"tasks": []},
        {
            "BatchGetItem": [THROTTLED, ITEM],
            RECORD_INFO: [record_info()],
            "UpdateItem": [THROTTLED, refused(succeeded())],
        },
    ),
]


SIGN_IN_PAGE = b"<!DOCTYPE html><title>Sign in</title>"
FETCH = f"GET {IMAGE_URL}"


def _is_stored(key: str, content: bytes, headers: Mapping[str, str]) -> FollowUp:
    """Builds a check that yields problems if these bytes were not sent to S3 unchanged, with these headers."""

    def check(_: Any, calls: Sequence[Call], __: Account) -> Iterator[str]:
        puts = [call.parameters for call in calls if call.operation == "PutObject" and call.parameters["Key"] == key]
        if not puts or puts[-1]["Body"] != content:
            yield f"{key} was not stored with the bytes that were served"
            return
        for name, value in headers.items():
            if (sent := puts[-1]["Headers"].get(name)) != value:
                yield f"{key} was stored with {name}: {sent} instead of {value}"

    return check


_image_is_stored = _is_stored(
    IMAGE_KEY,
    PNG,
    {
        "if-none-match": "*",
        "content-type": "image/png",
        "x-amz-meta-source-host": IMAGE_HOST,
        "x-amz-trailer": "x-amz-checksum-sha256",
    },
)
# With these headers browsers save the page instead of showing it.
_page_is_kept = _is_stored(
    QUARANTINE_KEY,
    SIGN_IN_PAGE,
    {
        "content-type": "application/octet-stream",
        "content-disposition": "attachment",
        "x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(SIGN_IN_PAGE).digest()).decode(),
    },
)


def _checksum_is_requested(_: Any, calls: Sequence[Call], __: Account) -> Iterator[str]:
    heads = [call.parameters["Headers"] for call in calls if call.operation == "HeadObject"]
    if [head.get("x-amz-checksum-mode") for head in heads] != ["ENABLED"]:
        yield "HeadObject did not request the checksum"


ARCHIVE_IMAGES = [
    Step(
        "an image",
        messages(),
        NOTHING_FAILED,
        {"GetItem": [FOUND], RECORD_INFO: [record_info()], FETCH: [IMAGE], "PutObject": [OK], "UpdateItem": [OK]},
        _image_is_stored,
    ),
    Step(
        "an existing object with other bytes",
        messages(),
        NOTHING_FAILED,  # nothing to retry: the image becomes REJECTED
        {
            "GetItem": [FOUND],
            RECORD_INFO: [record_info()],
            FETCH: [IMAGE],
            "PutObject": [s3_error("PreconditionFailed", 412), OK, OK],
            "HeadObject": [AwsResponse(200, b"", {"x-amz-checksum-sha256": "A" * 43 + "="})],
            "UpdateItem": [OK],
        },
        _checksum_is_requested,
    ),
    Step(
        "a sign-in page instead of an image",
        messages(),
        NOTHING_FAILED,
        {
            "GetItem": [FOUND],
            RECORD_INFO: [record_info()],
            FETCH: [AwsResponse(200, SIGN_IN_PAGE, {"content-type": "text/html"})],
            "PutObject": [OK, OK],
            "UpdateItem": [OK],
        },
        _page_is_kept,
    ),
    Step(
        "an image in quarantine that its provider has confirmed meanwhile",
        messages(),
        NOTHING_FAILED,
        {
            "GetItem": [found(kept_until_confirmed())],
            RECORD_INFO: [record_info()],
            "GetObject": [quarantined_object()],
            "PutObject": [OK],
            "UpdateItem": [OK],
        },
        _image_is_stored,
    ),
    Step(
        "an image that its provider does not confirm yet",
        messages(),
        RETRIED,
        {
            "GetItem": [FOUND],
            RECORD_INFO: [AwsResponse(500)],
            FETCH: [IMAGE],
            "PutObject": [OK],
            "UpdateItem": [OK],
            "ChangeMessageVisibility": [OK],
        },
    ),
    Step(
        "a message without a task",
        messages(body="no JSON"),
        NOTHING_FAILED,
        {"SendMessage": [OK]},
    ),
    Step(
        "a concurrent writer of the same object",
        messages(),
        RETRIED,
        {
            "GetItem": [THROTTLED, FOUND],
            RECORD_INFO: [record_info()],
            FETCH: [IMAGE],
            "PutObject": [s3_error("ConditionalRequestConflict", 409)],
            "ChangeMessageVisibility": [OK],
        },
    ),
    Step(
        "a message whose visibility timeout has expired",
        messages(SentTimestamp=str(int(time.time() * 1000))),
        RETRIED,
        {
            "GetItem": [error("ResourceNotFoundException")],
            "ChangeMessageVisibility": [error("MessageNotInflight")],
        },
    ),
]

# ------------------------------------------------------------------------------------------------ reconciling

COUNTED = AwsResponse(body={"Count": 1, "ScannedCount": 1, "ConsumedCapacity": {"CapacityUnits": 0.5}})
NOTHING_FOUND = AwsResponse(body={"Items": [], "Count": 0, "ScannedCount": 0})


OVERDUE_TASK = PENDING | {"updatedAt": moment(days=2)}


def dead_letter(body: Mapping[str, Any]) -> list[AwsResponse]:
    """Builds the answers to the two calls that receive the only message of a dead-letter queue."""
    message = {
        "MessageId": "message",
        "ReceiptHandle": "receipt",
        "Body": json.dumps(body),
        "Attributes": {"SentTimestamp": "1767658625200"},
    }
    return [AwsResponse(body={"Messages": [message]})] * 2


STREAM = f"arn:aws:dynamodb:{REGION}:{ACCOUNT_ID}:table/TasksTable/stream/{STREAM_LABEL}"
POSITIONS = {"streamArn": STREAM, "shardId": "shard", "startSequenceNumber": "1", "endSequenceNumber": "1"}
DELETED = AwsResponse(body={"Successful": [{"Id": "0"}]})
RECONCILE_TASKS = [
    Step(
        "stuck tasks and dead letters",
        {},
        {"pollingRestarted": 1, "archivingRepeated": 1},
        {
            "Query": [
                *(THROTTLED, COUNTED, COUNTED, COUNTED, page(OVERDUE_TASK)),  # the three counts, and the oldest task
                *(page(more=True), page(OVERDUE_TASK)),  # two pages of tasks to poll for
                # No FAILED, UNCONFIRMED or TIMED_OUT task is polled again for the provider's confirmation.
                *(NOTHING_FOUND, NOTHING_FOUND, NOTHING_FOUND),
                page(succeeded() | {"updatedAt": moment(days=2)}),
            ],
            "UpdateItem": [OK, refused(OVERDUE_TASK)],
            "ReceiveMessage": [
                *dead_letter({"task": PENDING["task"], "change": "1"}),  # of DispatchChanges
                *dead_letter({"task": PENDING["task"], "change": "1"}),  # of StartPolling
                *dead_letter({"DDBStreamBatchInfo": POSITIONS}),  # of PublishEvents
            ],
            "BatchGetItem": [UNPROCESSED, ITEM, ITEM],
            "GetShardIterator": [AwsResponse(body={"ShardIterator": f"{STREAM}|1"})],
            "GetRecords": [AwsResponse(body={"Records": [change(archived(), 1)]})],
            "Invoke": [AwsResponse(body=NOTHING_FAILED)],
            "DeleteMessageBatch": [DELETED] * 3,
        },
    ),
    Step(
        "an execution that the previous run started",
        {},
        {"pollingRestarted": 1, "archivingRepeated": 0},
        {
            "Query": [*[COUNTED] * 3, page(OVERDUE_TASK), page(OVERDUE_TASK), *[NOTHING_FOUND] * 4],
            "StartExecution": [error("ExecutionAlreadyExists")],
        },
    ),
]
