"""Creates objects of the package `catchlight` for a stack; they use the user's own credentials."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.aws.secrets import RotatingSecret
from catchlight.client.errors import CatchlightError
from catchlight.client.stack import Stack
from catchlight.dispatch import Dispatcher
from catchlight.models import utc_now
from catchlight.polling.provider_client import ProviderClient
from catchlight.polling.status_lookup import StatusLookup
from catchlight.recovery.reconcile import Reconciliation
from catchlight.recovery.redrive import Redrive
from catchlight.settings import parse_base_urls
from catchlight.tasks.by_status import TasksByStatus
from catchlight.tasks.images import TaskImages
from catchlight.tasks.restarts import POLLING_SLACK
from catchlight.tasks.table import TasksTable

_DEFAULT_FIRST_POLL_AFTER_SECONDS = 120
_DEFAULT_GIVE_UP_AFTER_SECONDS = 21_600


def tasks_table(stack: Stack) -> TasksTable:
    """Returns the tasks table of the stack, with the retention period that the stack's functions use."""
    days = int(stack.parameters.get("TaskRetentionDays", "0"))
    return TasksTable(stack.table, stack.client("dynamodb"), retention=timedelta(days=days) if days else None)


def tasks_by_status(stack: Stack, *, unreadable: Callable[[str, str], None] | None = None) -> TasksByStatus:
    """Returns the stack's index `byStatus`. Calls `unreadable` with key and reason for each malformed item it skips."""
    return TasksByStatus(stack.table, stack.client("dynamodb"), unreadable=unreadable)


def dispatcher(stack: Stack) -> Dispatcher:
    """Returns a dispatcher for the stack's archive queue and polling state machine."""
    return Dispatcher(
        stack.client("sqs"),
        stack.client("stepfunctions"),
        archive_queue_url=stack.resource("ArchiveQueue"),
        state_machine=stack.resource("PollTasksStateMachine"),
    )


def reconciliation(stack: Stack) -> Reconciliation:
    """Returns a reconciliation of the stack's tasks, as the function ReconcileTasks runs it every hour."""
    return Reconciliation(stack.table, stack.client("dynamodb"), dispatcher(stack), now=utc_now)


def longest_polling(stack: Stack) -> timedelta:
    """Returns the longest time for which a PENDING task is polled: GiveUpAfterSeconds plus POLLING_SLACK."""
    return timedelta(seconds=stack.seconds("GiveUpAfterSeconds", _DEFAULT_GIVE_UP_AFTER_SECONDS)) + POLLING_SLACK


def first_poll_after(stack: Stack) -> timedelta:
    """Returns the time between a task's registration and its first poll: FirstPollAfterSeconds."""
    return timedelta(seconds=stack.seconds("FirstPollAfterSeconds", _DEFAULT_FIRST_POLL_AFTER_SECONDS))


@contextmanager
def provider_client(stack: Stack) -> Iterator[ProviderClient]:
    """Yields a client of the providers' APIs, at the base URLs that the stack uses.

    Raises:
        CatchlightError: the stack's parameter ProviderBaseUrls is invalid.
    """
    try:
        base_urls = parse_base_urls(stack.parameters.get("ProviderBaseUrls", ""))
    except ValueError as exc:
        raise CatchlightError(f"ProviderBaseUrls of the stack: {exc}. Correct it with `sam deploy`.") from exc
    with closing(ProviderClient(base_urls)) as client:
        yield client


@contextmanager
def redrive(stack: Stack) -> Iterator[Redrive]:
    """Yields a redrive for the stack's tasks, which requests fresh image URLs from the providers."""
    secret = RotatingSecret(stack.resource("ProviderKeysSecret"), stack.client("secretsmanager"))
    table = tasks_table(stack)
    with provider_client(stack) as client:
        status_lookup = StatusLookup(client, secret.provider_keys, now=utc_now)
        yield Redrive(table, UrlRefresher(TaskImages(table), status_lookup), dispatcher(stack), now=utc_now)
