"""Implements `catchlight register`: registers tasks that were submitted elsewhere."""

import argparse
from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.text import Text

from catchlight.api.request_models import MAX_TASKS_PER_REGISTRATION
from catchlight.api.response_models import NewTask
from catchlight.aws.batches import batches
from catchlight.client import TasksClient
from catchlight.client.errors import UsageError
from catchlight.models import Model
from catchlight_cli.arguments import add_metadata, add_provider, task_id
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.output import plural
from catchlight_cli.text_input import STANDARD_INPUT, read_text


class Registered(Model):
    """Outcome of the registration of each task id, in the order of the arguments."""

    tasks: tuple[NewTask, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_provider(parser)
    parser.add_argument(
        "task_ids",
        nargs="+",
        metavar="TASK_ID",
        help="a task id of the provider, or - to read task ids from stdin, one per line",
    )
    add_metadata(parser)


def run(session: Session) -> ExitStatus:
    """Registers the tasks in batches of `MAX_TASKS_PER_REGISTRATION`, the API's limit."""
    options = session.options
    task_ids = _read_task_ids(options.task_ids)
    with TasksClient.of(session.stack) as api:
        registered = (
            task
            for batch in batches(task_ids, MAX_TASKS_PER_REGISTRATION)
            for task in api.register(options.provider, batch, metadata=dict(options.metadata), ref=options.ref)
        )
        tracked = session.output.track(registered, "Registering", total=len(task_ids))
        tasks = session.output.show_rows(tracked, _cells, "Task", "Outcome")
    session.output.show(Registered(tasks=tasks), lambda: _summary(tasks))
    return ExitStatus.SUCCESS


def _cells(task: NewTask) -> tuple[RenderableType, ...]:
    return Text(f"{task.provider}/{task.task_id}"), task.outcome


def _summary(tasks: Sequence[NewTask]) -> Iterable[RenderableType]:
    new = sum(task.outcome == "registered" for task in tasks)
    yield ""
    yield f"{plural(new, 'task')} registered, {len(tasks) - new} already known."


def _read_task_ids(given: Sequence[str]) -> list[str]:
    is_piped = list(given) == [STANDARD_INPUT]
    lines = map(str.strip, read_text(STANDARD_INPUT, errors="replace").splitlines()) if is_piped else iter(given)
    try:
        task_ids = [task_id(line) for line in lines if line]
    except argparse.ArgumentTypeError as exc:
        raise UsageError(str(exc)) from exc
    if not task_ids:
        raise UsageError("stdin contains no task id.")
    return list(dict.fromkeys(task_ids))


COMMAND = Command(
    name="register",
    summary="register tasks that were submitted elsewhere, so that the stack polls for them",
    add_arguments=add_arguments,
    run=run,
)
