"""Simulates how SQS treats the messages of oversized tasks, whose images exceed the memory of ArchiveImages.

`AwsFaults` kills the process at the task's first call to S3. On AWS its message becomes visible again only after the
killed run's timeout, and SQS moves it to the dead-letter queue after 1,000 receives, which take 16 hours.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from moto.sqs.models import Queue

from catchlight.tasks.task import ARCHIVING_TIMEOUT
from local.moto.patches import sqs as moto_sqs
from local.stack import LocalStack

VISIBILITY_TIMEOUT_SECONDS = 60  # of ArchiveQueue; a test compares it with the template
# ArchiveImages regards a recorded try as killed once it is older than the function's timeout, in real seconds.
SHARE_OF_VISIBILITY = (ARCHIVING_TIMEOUT.total_seconds() + 1) / VISIBILITY_TIMEOUT_SECONDS


@contextmanager
def keep_messages_invisible_until_timeout() -> Iterator[None]:
    """Delays the redelivery of a killed run's message until after the timeout of ArchiveImages, at any time scale."""
    scale = moto_sqs.scale_rest_of_visibility

    def scale_with_minimum(queue: Queue, receipt_handle: str, time_scale: float) -> None:
        is_archive_queue = "ArchiveQueue" in queue.name
        scale(queue, receipt_handle, max(time_scale, SHARE_OF_VISIBILITY) if is_archive_queue else time_scale)

    with mock.patch.object(moto_sqs, "scale_rest_of_visibility", scale_with_minimum):
        yield


@contextmanager
def expire_redelivered_messages(stack: LocalStack) -> Iterator[None]:
    """Sets `maxReceiveCount` of ArchiveQueue to 1: SQS moves each redelivered message to the dead-letter queue."""
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
