"""The package's objects as they work on a stack from outside, with the user's own credentials."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.aws.secrets import RotatingSecret
from catchlight.client.stack import Stack
from catchlight.dispatch import Dispatcher
from catchlight.models import utc_now
from catchlight.polling.provider_client import ProviderClient
from catchlight.polling.status_lookup import StatusLookup
from catchlight.recovery.reconcile import POLLING_SLACK, Reconciliation
from catchlight.recovery.redrive import Redrive
from catchlight.tasks.by_status import TasksByStatus
from catchlight.tasks.table import TasksTable

_DEFAULT_GIVE_UP_AFTER_SECONDS = 21_600


def tasks_table(stack: Stack) -> TasksTable:
    """The stack's table, which deletes finished tasks when the stack's functions would."""
    days = int(stack.parameters.get("TaskRetentionDays", "0"))
    return TasksTable(stack.table, stack.client("dynamodb"), retention=timedelta(days=days) if days else None)


def tasks_by_status(stack: Stack, *, unreadable: Callable[[str, str], None] | None = None) -> TasksByStatus:
    """The stack's index. `unreadable` is called with the key of a malformed item that is left out, and the reason."""
    return TasksByStatus(stack.table, stack.client("dynamodb"), unreadable=unreadable)


def dispatcher(stack: Stack) -> Dispatcher:
    """The stack's archive queue and state machine."""
    return Dispatcher(
        stack.client("sqs"),
        stack.client("stepfunctions"),
        archive_queue_url=stack.resource("ArchiveQueue"),
        state_machine=stack.resource("PollTasksStateMachine"),
    )


def reconciliation(stack: Stack) -> Reconciliation:
    """What the hourly run does."""
    return Reconciliation(stack.table, stack.client("dynamodb"), dispatcher(stack), now=utc_now)


def longest_polling(stack: Stack) -> timedelta:
    """How long a task can be PENDING before nobody polls for it any more."""
    return timedelta(seconds=stack.seconds("GiveUpAfterSeconds", _DEFAULT_GIVE_UP_AFTER_SECONDS)) + POLLING_SLACK


@contextmanager
def redrive(stack: Stack) -> Iterator[Redrive]:
    """Another try for tasks, with the providers' fresh URLs."""
    secret = RotatingSecret(stack.resource("ProviderKeysSecret"), stack.client("secretsmanager"))
    table = tasks_table(stack)
    with closing(ProviderClient(stack.provider_base_urls)) as client:
        status_lookup = StatusLookup(client, secret.provider_keys, now=utc_now)
        yield Redrive(table, UrlRefresher(table, status_lookup), dispatcher(stack), now=utc_now)
