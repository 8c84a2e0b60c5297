"""How much waits in a stack's queues."""

from collections.abc import Iterator

from catchlight.stack import Stack
from image_tasks.models import Model


class QueueDepth(Model):
    """A queue and what is in it, about: SQS counts approximately."""

    queue: str  # its logical id
    holds: str
    waiting: int
    in_flight: int  # somebody has received them just now
    delayed: int
    should_be_empty: bool

    @property
    def messages(self) -> int:
        """All of them."""
        return self.waiting + self.in_flight + self.delayed


# What each holds, and whether a message in it means that something went wrong.
_QUEUES = {
    "ArchiveQueue": ("succeeded tasks on their way to the archiver", False),
    "ArchiveDeadLetters": ("tasks whose images could not be archived in five tries", True),
    "DispatchFailures": ("changes of tasks that could not be dispatched", True),
    "ReconcileFailures": ("hourly repairs that could not begin", True),
}


def queue_depths(stack: Stack) -> Iterator[QueueDepth]:
    """The stack's queues; one that a stack of an older version has not got is left out."""
    sqs = stack.client("sqs")
    for queue, (holds, should_be_empty) in _QUEUES.items():
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
            should_be_empty=should_be_empty,
        )
