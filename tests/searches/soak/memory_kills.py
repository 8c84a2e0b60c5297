"""Plays tasks whose images need too much memory: each run of ArchiveImages that handles one is killed.

`AwsFaults` kills the process at the task's first call to S3. Here is what else belongs to it: on AWS a message comes
back long after the killed run's timeout, and SQS makes it a dead letter after 1,000 receives, which take 16 hours.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from moto.sqs.models import Queue

from catchlight.models import ARCHIVING_TIMEOUT
from local.moto import patches
from local.stack import LocalStack

VISIBILITY_TIMEOUT_SECONDS = 60  # of ArchiveQueue; a test holds it
# The mark of a killed try counts once it is older than the function's timeout, whose seconds are real.
SHARE_OF_VISIBILITY = (ARCHIVING_TIMEOUT.total_seconds() + 1) / VISIBILITY_TIMEOUT_SECONDS


@contextmanager
def messages_outlast_their_runs() -> Iterator[None]:
    """Lets a message of a killed run of ArchiveImages come back after the function's timeout, at any time scale."""
    scale = patches.scale_rest_of_visibility

    def scale_less(queue: Queue, receipt_handle: str, time_scale: float) -> None:
        is_long = "ArchiveQueue" in queue.name
        scale(queue, receipt_handle, max(time_scale, SHARE_OF_VISIBILITY) if is_long else time_scale)

    with mock.patch.object(patches, "scale_rest_of_visibility", scale_less):
        yield


@contextmanager
def receives_used_up(stack: LocalStack) -> Iterator[None]:
    """Lets SQS move each message that is received again to the dead letters, as it does after 1,000 receives."""
    sqs, queue_url = stack.boto3_client("sqs"), stack.info["archive_queue_url"]

    def set_policy(policy: str) -> None:
        sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"RedrivePolicy": policy})

    policy = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])["Attributes"][
        "RedrivePolicy"
    ]
    set_policy(json.dumps(json.loads(policy) | {"maxReceiveCount": 1}))
    try:
        yield
    finally:
        set_policy(policy)
