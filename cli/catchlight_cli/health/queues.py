"""Reads the number of messages in a stack's queues."""

from collections.abc import Iterator

from pydantic import computed_field

from catchlight.client.stack import Stack
from catchlight.models import Model


class QueueDepth(Model):
    """A queue and the approximate number of its messages, as SQS counts them."""

    queue: str  # its logical id
    holds: str
    waiting: int
    in_flight: int  # received by a consumer and not yet deleted
    delayed: int
    next_step: str  # what to do about messages in it; empty if messages are normal

    @computed_field  # type: ignore[prop-decorator] # mypy does not support decorated properties
    @property
    def should_be_empty(self) -> bool:
        """Whether a message in it means that something went wrong."""
        return bool(self.next_step)

    @property
    def messages(self) -> int:
        """Number of all messages: waiting, in flight and delayed."""
        return self.waiting + self.in_flight + self.delayed


# By logical id: what the queue holds, and what to do about messages in it if it should be empty.
_QUEUES = {
    "ArchiveQueue": ("succeeded tasks on their way to the archiver", ""),
    "ArchiveDeadLetters": ("tasks whose archiving failed five times", "`catchlight redrive --kind dead-letters`"),
    "DispatchDeadLetters": ("changes that could not be dispatched", "`catchlight redrive --kind dispatch-failures`"),
    "PublishDeadLetters": ("task events that EventBridge did not accept", "`catchlight resend-events`"),
    "ReconcileDeadLetters": (
        "hourly repairs that could not begin",
        "is ReconcileTasks throttled? Then empty the queue",
    ),
}


def queue_depths(stack: Stack) -> Iterator[QueueDepth]:
    """Yields the depth of each queue of the stack; queues that an older stack does not have are left out."""
    sqs = stack.client("sqs")
    for queue, (holds, next_step) in _QUEUES.items():
        if queue not in stack.resources:
            continue
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        found = sqs.get_queue_attributes(QueueUrl=stack.resource(queue), AttributeNames=list(names))["Attributes"]
        waiting, in_flight, delayed = (int(found.get(name, 0)) for name in names)
        yield QueueDepth(
            queue=queue,
            holds=holds,
            waiting=waiting,
            in_flight=in_flight,
            delayed=delayed,
            next_step=next_step,
        )
