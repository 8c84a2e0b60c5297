"""Implements `catchlight accept`: archives the images of callbacks that their providers have not confirmed."""

import argparse
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.models import Model, utc_now
from catchlight.recovery.acceptance import Acceptance, Accepted
from catchlight_cli.arguments import add_dry_run, add_tasks
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.factories import tasks_table
from catchlight_cli.output import plural, task_path
from catchlight_cli.task_lookup import find_task_key


class AcceptResult(Model):
    """The outcome for each named task."""

    dry_run: bool
    tasks: tuple[Accepted, ...]  # with a reason if the task was not accepted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tasks(parser, nargs="+")
    add_dry_run(parser)


def run(session: Session) -> ExitStatus:
    """Accepts the named tasks. Returns FAILURE if one was not accepted."""
    options = session.options
    table = tasks_table(session.stack)
    acceptance = Acceptance(table, now=utc_now)
    keys = dict.fromkeys(find_task_key(table, name) for name in options.tasks)
    accept = acceptance.plan if options.dry_run else acceptance.accept
    action = "Action (dry run)" if options.dry_run else "Action"
    tracked = session.output.track(map(accept, keys), "Accepting", total=len(keys))
    tasks = session.output.show_rows(tracked, _cells, "Task", "Status", action, "Details")
    result = AcceptResult(dry_run=options.dry_run, tasks=tasks)
    session.output.show(result, lambda: render(result))
    return ExitStatus.FAILURE if any(task.reason for task in tasks) else ExitStatus.SUCCESS


def render(result: AcceptResult) -> Iterable[RenderableType]:
    """Renders the summary for the terminal, below the table."""
    yield ""
    accepted = sum(task.reason is None for task in result.tasks)
    refused = len(result.tasks) - accepted
    if result.dry_run:
        yield f"Dry run. To accept: {plural(accepted, 'task')}; to refuse: {refused}."
    else:
        yield f"{plural(accepted, 'task')} accepted, {refused} refused."


def _cells(task: Accepted) -> tuple[RenderableType, ...]:
    return task_path(task.task), task.status or "", *_action(task)


def _action(task: Accepted) -> tuple[Text, Text]:
    if task.reason:
        return Text("refused", "red"), Text(task.reason)
    missing = f", {plural(task.missing_images, 'image')} to be downloaded" if task.missing_images else ""
    return Text("accepted, archiving follows", "green"), Text(f"{plural(task.images, 'image')} in quarantine{missing}")


COMMAND = Command(
    name="accept",
    summary="archive the images of callbacks that the provider has not confirmed",
    add_arguments=add_arguments,
    run=run,
    description="""\
Accept the results of UNCONFIRMED tasks: a callback reported images, and the provider has not confirmed it. The images
are validated and copied from the quarantine to `images/` in the bucket.
Anyone who knows the callback token may have sent the callback: look at the images first, with
`catchlight download --quarantined TASK`.""",
)
