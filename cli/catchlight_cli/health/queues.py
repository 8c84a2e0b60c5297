"""How much waits in a stack's queues."""

from collections.abc import Iterator

from pydantic import computed_field

from catchlight.client.stack import Stack
from catchlight.models import Model


class QueueDepth(Model):
    """A queue and what is in it, about: SQS counts approximately."""

    queue: str  # its logical id
    holds: str
    waiting: int
    in_flight: int  # somebody has received them just now
    delayed: int
    next_step: str  # what to do about messages in it; nothing: they are as it should be

    @computed_field  # type: ignore[prop-decorator] # mypy knows no decorated property
    @property
    def should_be_empty(self) -> bool:
        """Whether a message in it means that something went wrong."""
        return bool(self.next_step)

    @property
    def messages(self) -> int:
        """All of them."""
        return self.waiting + self.in_flight + self.delayed


# What each holds, and what to do about a message in it if there should be none.
_QUEUES = {
    "ArchiveQueue": ("succeeded tasks on their way to the archiver", ""),
    "ArchiveDeadLetters": ("tasks whose archiving failed five times", "`catchlight redrive --kind dead-letters`"),
    "DispatchDeadLetters": ("changes that could not be dispatched", "`catchlight redrive --kind dispatch-failures`"),
    "PublishDeadLetters": ("ends of tasks that nobody could be told of", "`catchlight tell`"),
    "ReconcileDeadLetters": (
        "hourly repairs that could not begin",
        "is ReconcileTasks throttled? Then empty the queue",
    ),
}


def queue_depths(stack: Stack) -> Iterator[QueueDepth]:
    """The stack's queues; one that a stack of an older version has not got is left out."""
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
