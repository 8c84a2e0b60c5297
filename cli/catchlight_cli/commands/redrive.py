"""Implements `catchlight redrive`: retries tasks that failed, are incomplete or are stuck."""

import argparse
from collections.abc import Generator, Iterable
from contextlib import closing

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.errors import UsageError
from catchlight.models import split_task_key
from catchlight.recovery.redrive import Step
from catchlight_cli.arguments import TaskName, add_dry_run, add_limit, add_tasks
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.factories import tasks_table
from catchlight_cli.output import plural, task_path
from catchlight_cli.repair.redriving import ALL_KINDS, Kind, RedrivenTask, RedriveResult, StuckTasks
from catchlight_cli.task_lookup import NoSuchTaskError, find_task_key

_DEFAULT_LIMIT = 1000
_CHOICES = (*ALL_KINDS, Kind.TIMED_OUT, Kind.UNCONFIRMED)
_STEPS = {
    Step.ARCHIVE: "archiving queued",
    Step.REOPEN: "images set to PENDING, archiving follows",
    Step.POLL: "polling started",
    Step.RESTART: "task set to PENDING, polling follows",
    Step.NOTHING: "nothing to do",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tasks(parser, nargs="*")
    parser.add_argument("--all", action="store_true", help=f"redrive the tasks of the kinds {', '.join(ALL_KINDS)}")
    parser.add_argument(
        "--kind",
        action="append",
        type=str.lower,
        choices=list(map(str, _CHOICES)),
        default=[],
        help="redrive the tasks of this kind, see the list above; repeatable",
        metavar="KIND",
    )
    add_dry_run(parser)
    add_limit(parser, _DEFAULT_LIMIT, "tasks or messages of each kind")


def run(session: Session) -> ExitStatus:
    """Collects the selected tasks and retries each one. Returns FAILURE if a task could not be retried.

    If the command fails or is interrupted, the messages that it received return to the dead-letter queues.
    """
    options, output, stack = session.options, session.output, session.stack
    if sum(map(bool, (options.tasks, options.all, options.kind))) != 1:
        raise UsageError(
            f"Give tasks, --all, or --kind with one of {', '.join(_CHOICES)}. With --dry-run, nothing is changed."
        )
    with output.progress() as progress:
        bar = progress.add_task("Collecting", total=None)
        with StuckTasks(stack, limit=options.limit, on_progress=lambda: progress.advance(bar)) as stuck:
            if options.tasks:
                table = tasks_table(stack)
                stuck.collect_named(list(dict.fromkeys(find_task_key(table, name) for name in options.tasks)))
            else:
                stuck.collect(ALL_KINDS if options.all else [Kind(kind) for kind in options.kind])
            progress.reset(bar, description="Redriving", total=len(stuck))
            tasks: list[RedrivenTask] = []

            def existing() -> Generator[RedrivenTask, None, None]:
                with closing(stuck.plan() if options.dry_run else stuck.redrive()) as processed:
                    for task in processed:
                        progress.advance(bar)
                        tasks.append(task)
                        if not _is_missing(task):
                            yield task

            action = "Action (dry run)" if options.dry_run else "Action"
            output.show_rows(existing(), _cells, "Task", "Reason", "Status", action, "Details")
            result = stuck.result(tasks, dry_run=options.dry_run)
            malformed = stuck.malformed
    output.show(result, lambda: render(result))
    output.malformed_items(malformed)
    missing = [task.outcome.task for task in tasks if _is_missing(task)]
    for key in missing:
        output.error(str(NoSuchTaskError(TaskName(*split_task_key(key)))))
    return ExitStatus.FAILURE if result.has_failed or missing else ExitStatus.SUCCESS


def _is_missing(task: RedrivenTask) -> bool:
    """Whether the task was named on the command line and does not exist."""
    return Kind.NAMED in task.kinds and task.outcome.status is None


def render(result: RedriveResult) -> Iterable[RenderableType]:
    """Renders the summary for the terminal, below the table."""
    tasks = [task for task in result.tasks if not _is_missing(task)]
    if result.tasks and not tasks:
        return  # `run` prints an error for each missing task
    if not tasks and not result.dead_letters.unreadable:
        yield Text(f"✓ No {'other ' if result.unreadable else ''}task needs a redrive.", "green")
        return
    yield ""
    yield _summary(result)
    if unreadable := result.dead_letters.unreadable:
        yield Text(f"✗ {plural(unreadable, 'dead letter')} unreadable: inspect the queue in the SQS console.", "red")
    if result.has_more:
        yield Text("There may be more: repeat the command, or raise --limit.", "yellow")


def _cells(task: RedrivenTask) -> tuple[RenderableType, ...]:
    return task_path(task.outcome.task), ", ".join(task.kinds), task.outcome.status or "", *_action(task)


def _action(task: RedrivenTask) -> tuple[Text, Text]:
    outcome = task.outcome
    if outcome.is_failed:
        return Text("failed", "red"), Text(outcome.detail)
    fresh = [f"{outcome.fresh_urls} fresh URLs"] if outcome.fresh_urls else []
    details = "; ".join(filter(None, [*fresh, outcome.detail]))
    style = "dim" if outcome.step is Step.NOTHING else "green"
    return Text(_STEPS[outcome.step], style), Text(details, "dim")


def _summary(result: RedriveResult) -> str:
    failed = sum(task.outcome.is_failed for task in result.tasks)
    unchanged = sum(task.outcome.step is Step.NOTHING and not task.outcome.is_failed for task in result.tasks)
    retried = len(result.tasks) - failed - unchanged
    dead_letters = result.dead_letters
    if result.dry_run:
        return (
            f"Dry run. To retry: {plural(retried, 'task')}; to leave as they are: {unchanged}; dead letters: "
            f"{dead_letters.kept}."
        )
    return (
        f"{plural(retried, 'task')} retried, {unchanged} left as they are, {failed} failed; "
        f"{plural(dead_letters.deleted, 'dead letter')} deleted, {dead_letters.kept} kept."
    )


COMMAND = Command(
    name="redrive",
    summary="retry dead letters, incomplete tasks and stuck tasks",
    add_arguments=add_arguments,
    run=run,
    description="""\
Retry the given tasks, or the tasks of these kinds, with fresh image URLs if the provider's API key is configured:
  archive-dead-letters   the image URLs expired before archiving: queues the task for archiving again
  dispatch-dead-letters  a change was never dispatched: starts polling or archiving
  poll-dead-letters      polling could not be started in ten tries: starts polling
  incomplete             an image could not be archived: retries the image
  stuck-archiving        the task has waited for archiving for over an hour: queues it again
  timed-out              polling ended without a result: restarts polling (not part of --all)
  unconfirmed            the provider has not confirmed a callback: polls for the confirmation (not part of --all)
A dead letter is deleted when each of its tasks was retried or needs no retry.""",
)
