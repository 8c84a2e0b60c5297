"""Reads the number of messages in a stack's queues."""

from collections.abc import Iterator

from pydantic import computed_field

from catchlight.client.stack import Stack
from catchlight.models import Model


class QueueDepth(Model):
    """A queue and the approximate number of its messages, as SQS counts them."""

    queue: str  # its logical id
    content: str
    waiting: int
    in_flight: int  # received by a consumer and not yet deleted
    delayed: int
    next_step: str  # if the queue has messages; an empty string if messages are normal

    @computed_field  # type: ignore[prop-decorator] # mypy does not support decorated properties
    @property
    def should_be_empty(self) -> bool:
        """Whether messages in the queue indicate a problem."""
        return bool(self.next_step)

    @property
    def messages(self) -> int:
        """Number of all messages: waiting, in flight and delayed."""
        return self.waiting + self.in_flight + self.delayed


# By logical id: the content of the queue, and the next step if it should be empty and has messages.
_QUEUES = {
    "ArchiveQueue": ("succeeded tasks that wait for archiving", ""),
    "ArchiveDeadLetters": (
        "tasks whose URLs expired before they were archived",
        "run `catchlight redrive --kind archive-dead-letters`",
    ),
    "DispatchDeadLetters": (
        "changes that could not be dispatched",
        "run `catchlight redrive --kind dispatch-dead-letters`",
    ),
    "PollQueue": ("tasks whose polling has not started yet", ""),
    "PollDeadLetters": (
        "tasks whose polling could not be started in ten tries",
        "run `catchlight redrive --kind poll-dead-letters`",
    ),
    "PublishDeadLetters": ("task events that EventBridge did not accept", "run `catchlight resend-events`"),
    "WebhookQueue": ("task events to be sent as webhooks", ""),
    "WebhookDeadLetters": ("webhooks that the receiver did not accept", "run `catchlight resend-events`"),
    "ReconcileDeadLetters": (
        "hourly runs that could not be started",
        "check whether ReconcileTasks is throttled, then purge the queue",
    ),
}


def queue_depths(stack: Stack) -> Iterator[QueueDepth]:
    """Yields the depth of each queue of the stack; queues that the stack does not have are left out."""
    sqs = stack.client("sqs")
    for queue, (content, next_step) in _QUEUES.items():
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
            content=content,
            waiting=waiting,
            in_flight=in_flight,
            delayed=delayed,
            next_step=next_step,
        )
