"""Defines the smoke test's steps of the functions that read the table's stream: DispatchChanges and PublishEvents."""

from collections.abc import Mapping
from typing import Any

from scripts.smoke.account import AwsResponse
from scripts.smoke.steps import (
    NOTHING_FAILED,
    PENDING,
    THROTTLED,
    Step,
    archived,
    attributes,
    error,
    sent,
    succeeded,
)


def change(item: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Builds a record of the table's stream for a new item."""
    return {
        "eventName": "INSERT",
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": 1767658625,
            "Keys": {"task": {"S": item["task"]}},
            "NewImage": attributes(item),
            "SequenceNumber": str(number),
        },
    }


def changes(*items: Mapping[str, Any]) -> dict[str, Any]:
    """Builds a batch of the table's stream for new items."""
    return {"Records": [change(item, number) for number, item in enumerate(items, 1)]}


SQS_FAILURE = {"Id": "1", "SenderFault": False, "Code": "InternalError", "Message": "smoke"}

DISPATCH_CHANGES = [
    Step(
        "a task to poll for and one to archive",
        changes(PENDING, succeeded()),
        NOTHING_FAILED,
        {"SendMessageBatch": [sent("0")] * 2},
    ),
    Step(
        "a throttled queue",
        changes(PENDING),
        NOTHING_FAILED,
        {"SendMessageBatch": [error("RequestThrottled", 403), sent("0")]},
    ),
    Step(
        "a message that SQS does not accept",
        changes(succeeded(), succeeded() | {"task": f"{PENDING['task']}-2"}),
        NOTHING_FAILED,
        {"SendMessageBatch": [AwsResponse(body=sent("0").body | {"Failed": [SQS_FAILURE]})]},
    ),
    Step(
        "a denied message, which is sent again",
        changes(PENDING),
        NOTHING_FAILED,
        {"SendMessageBatch": [error("AccessDenied", 403)]},
    ),
    Step(
        "a record that cannot be read",
        {"Records": [change(PENDING, 1) | {"dynamodb": {"Keys": {}, "NewImage": {}, "SequenceNumber": "1"}}]},
        NOTHING_FAILED,
        {"SendMessageBatch": [sent("0")]},
    ),
]

PUBLISH_EVENTS = [
    Step("an archived task", changes(archived()), NOTHING_FAILED),
    Step(
        "a throttled event bus",
        changes(archived(), archived()),
        NOTHING_FAILED,
        {
            "PutEvents": [
                THROTTLED,
                AwsResponse(
                    body={
                        "FailedEntryCount": 1,
                        "Entries": [{"EventId": "event-0"}, {"ErrorCode": "ThrottlingException", "ErrorMessage": ""}],
                    }
                ),
                AwsResponse(body={"FailedEntryCount": 0, "Entries": [{"EventId": "event-1"}]}),
            ]
        },
    ),
    Step(
        "a denied event",
        changes(archived()),
        {"batchItemFailures": [{"itemIdentifier": "1"}]},
        {"PutEvents": [AwsResponse(body={"FailedEntryCount": 1, "Entries": [{"ErrorCode": "AccessDeniedException"}]})]},
    ),
]
