"""Implements `catchlight resend-events`: sends task events again that were not published or not received."""

import argparse
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.stack import Stack
from catchlight.models import Model
from catchlight_cli.arguments import add_dry_run, add_limit
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.output import format_time, plural, task_path
from catchlight_cli.repair.resending import (
    QUEUE,
    WEBHOOK_QUEUE,
    ResendOutcome,
    ResentMessage,
    log_of_publish_events,
    resend,
    resend_webhooks,
)

_DEFAULT_LIMIT = 1000
_SENT = (ResendOutcome.PUBLISHED, ResendOutcome.QUEUED, ResendOutcome.READY)
_OUTCOMES = {
    ResendOutcome.PUBLISHED: ("published", "green"),
    ResendOutcome.QUEUED: ("queued as a webhook", "green"),
    ResendOutcome.READY: ("would be sent again", "green"),
    ResendOutcome.FAILED: ("not published", "red"),
    ResendOutcome.SKIPPED: ("not tried", "yellow"),
    ResendOutcome.EXPIRED: ("expired from the stream", "red"),
    ResendOutcome.UNREADABLE: ("not a message of this stack", "red"),
}


class ResentEvents(Model):
    """Outcome of each message of the queues PublishDeadLetters and WebhookDeadLetters."""

    dry_run: bool
    dead_letters: tuple[ResentMessage, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dry_run(parser)
    add_limit(parser, _DEFAULT_LIMIT, "messages of each queue")


def run(session: Session) -> ExitStatus:
    """Sends the events again. Returns FAILURE if those of a message could not be sent."""
    options = session.options
    stack = session.stack
    messages = chain(
        resend(stack, limit=options.limit, dry_run=options.dry_run),
        resend_webhooks(stack, limit=options.limit, dry_run=options.dry_run),
    )
    tracked = session.output.track(messages, "Sending again")
    shown = session.output.show_rows(tracked, _cells, "Message sent at", "Tasks", "Outcome")
    result = ResentEvents(dry_run=options.dry_run, dead_letters=shown)
    session.output.show(result, lambda: render(result, stack))
    is_success = all(message.outcome in _SENT for message in shown)
    return ExitStatus.SUCCESS if is_success else ExitStatus.FAILURE


def _cells(message: ResentMessage) -> tuple[Text, ...]:
    tasks = Text(", ".join(map(task_path, message.tasks)))
    return Text(format_time(message.sent_at)), tasks, Text(*_OUTCOMES[message.outcome])


def render(result: ResentEvents, stack: Stack) -> Iterable[RenderableType]:
    """Renders the summary for the terminal, below the table: messages by outcome, each with the next step."""
    if not result.dead_letters:
        has_webhooks = WEBHOOK_QUEUE in stack.resources
        yield Text(f"✓ {QUEUE} and {WEBHOOK_QUEUE} are empty." if has_webhooks else f"✓ {QUEUE} is empty.", "green")
        return
    counts = Counter(message.outcome for message in result.dead_letters)
    next_steps = {
        ResendOutcome.FAILED: f"The log {log_of_publish_events(stack)} has the reason. Repeat the command later.",
        ResendOutcome.SKIPPED: "EventBridge published none of the events before them. Repeat the command later.",
        ResendOutcome.EXPIRED: "The stream keeps records for 24 hours. Find the tasks with `catchlight list --status`.",
        ResendOutcome.UNREADABLE: "Inspect them in the SQS console.",
    }
    yield ""
    for outcome, number in counts.items():
        text, style = _OUTCOMES[outcome]
        step = f". {next_steps[outcome]}" if outcome in next_steps else "."
        yield Text(f"{plural(number, 'message')} {text}{step}", style)


COMMAND = Command(
    name="resend-events",
    summary="send task events again that EventBridge or the receiver of webhooks did not accept",
    add_arguments=add_arguments,
    run=run,
    description="""\
Publish the events of the messages in PublishDeadLetters again. Each message refers to records of the table's stream,
which keeps them for 24 hours. The command passes the records to PublishEvents, and deletes the message when all their
events are published; otherwise it stays in the queue. Subscribers recognize repeated events by their eventId.
Messages in WebhookDeadLetters are moved back to WebhookQueue: SendWebhooks sends them again, with the same webhook-id,
and retries for a day.""",
)
