"""StartPolling: starts polling of tasks whose callback is overdue.

PollQueue delivers a message for each task when its first poll is due. Most callbacks have arrived by then, and their
tasks need no polling. For the other tasks of a batch, the function starts one execution of the polling state machine. A
message that fails is received ten times, which takes longer than the shortest-lived image URL is valid; then SQS moves
it to the dead-letter queue.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.aws.batches import batch_item_failures
from catchlight.aws.clients import AwsClients
from catchlight.dispatch import PollingExecutions, execution_name
from catchlight.errors import InvalidMessageError
from catchlight.models import is_task_key, utc_now
from catchlight.observability.failures import (
    count_failure,
    message_task,
    message_tasks,
    report_failure,
    reports_failures,
)
from catchlight.observability.log_lines import log_line
from catchlight.settings import StartPollingSettings
from catchlight.tasks.concurrent_writes import write_all
from catchlight.tasks.restarts import POLLING_SLACK, Restarts
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task

logger = Logger(json_serializer=log_line)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of PollQueue."""

    message_id: str
    task: str
    change: str  # the sequence number of the task's change in the stream


class Dependencies:
    """Creates settings, the table and the client on first use."""

    def __init__(self) -> None:
        self.settings = StartPollingSettings.from_environment()
        clients = AwsClients()
        self.table = TasksTable(self.settings.tasks_table, clients.dynamodb())
        self.restarts = Restarts(self.table)
        self.executions = PollingExecutions(clients.step_functions(), self.settings.poll_tasks_state_machine)


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, message_tasks)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Starts polling of those tasks of an SQS batch that need it and returns the messages to retry.

    Raises:
        StoreUnavailableError: the tasks could not be read; SQS delivers the whole batch again.
    """
    invalid: list[str] = []
    messages = list(read_messages(event["Records"], invalid))
    items = read_tasks(messages)
    due = [message for message in messages if is_due(items.get(message.task))]
    is_started = not due or start(due, items)
    logger.info("polling started", messages=len(event["Records"]), due=len(due))
    return batch_item_failures([*invalid, *(message.message_id for message in due if not is_started)])


def read_messages(records: Iterable[dict[str, Any]], invalid: list[str]) -> Iterator[Message]:
    """Yields the messages of an SQS event, and adds the ids of those that could not be read to `invalid`."""
    for record in records:
        try:
            yield read_message(record)
        except Exception as exc:  # noqa: BLE001 - reported, and it must not block the others
            message = "message not read, it will be received again"
            report_failure(logger, message, exc, task=message_task(record), message_id=record["messageId"])
            invalid.append(record["messageId"])


def read_message(record: dict[str, Any]) -> Message:
    """Parses a message of PollQueue.

    Raises:
        InvalidMessageError, KeyError, ValueError: the message has another format.
    """
    task = message_task(record)
    if task is None or not is_task_key(task):
        raise InvalidMessageError('expected {"task": "PROVIDER#TASK_ID"}: delete it from the dead letters')
    return Message(record["messageId"], task, str(json.loads(record["body"])["change"]))


def read_tasks(messages: Iterable[Message]) -> Mapping[str, Task]:
    """Reads the tasks of messages, and returns them by key.

    Raises:
        StoreUnavailableError: a call to DynamoDB failed.
    """
    unreadable: dict[str, str] = {}
    tasks = dependencies().table.get_many([message.task for message in messages], unreadable=unreadable.__setitem__)
    for task, reason in unreadable.items():
        logger.error("malformed item, its task is not polled: repair it by hand", task=task, reason=reason)
        count_failure("UnreadableItem")
    return tasks


def is_due(task: Task | None) -> bool:
    """Decides whether polling is to be started: the task needs it, and no execution polls for it already.

    An execution may poll for it already: if SQS delivers the message again, or if a callback without a URL is repeated.
    """
    if task is None or not task.needs_polling:
        return False
    longest_polling = timedelta(seconds=dependencies().settings.give_up_after_seconds) + POLLING_SLACK
    return not task.is_being_polled(since=utc_now() - longest_polling)


def start(due: Sequence[Message], items: Mapping[str, Task]) -> bool:
    """Starts one execution for the tasks of messages, and notes the start in their items. Returns False on failure."""
    tasks = list(dict.fromkeys(message.task for message in due))
    # Taken before the execution is started: its first poll may miss changes that are written from now on.
    now = utc_now()
    # The name is derived from the messages, so a batch that is delivered again starts no second execution.
    name = execution_name("tasks", sorted(f"{message.task}@{message.change}" for message in due))
    try:
        waited = dependencies().settings.first_poll_after_seconds
        if not dependencies().executions.start(tasks, name=name, waited_seconds=waited, since=now):
            # The start is not noted again: an execution ends its polling of a task whose item has a later start.
            logger.info("polling was started before", tasks=tasks)
            return True
    except Exception as exc:  # noqa: BLE001 - reported, and the messages are received again
        message = "polling not started, the messages will be received again"
        report_failure(logger, message, exc, tasks=tasks, reason=str(exc))
        return False
    note_start([items[task] for task in tasks], now)
    return True


def note_start(tasks: Sequence[Task], now: datetime) -> None:
    """Notes the start of polling in the items of tasks. ReconcileTasks starts polling of tasks without this note."""
    _, errors = write_all({task.task: partial(dependencies().restarts.note_start, task, now=now) for task in tasks})
    for task, exc in errors.items():
        report_failure(logger, "start of polling not noted, the hourly run may start it again", exc, task=task)
