"""Implements `catchlight redrive`: retries tasks that failed, are incomplete or are stuck."""

import argparse
from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.aws_errors import UsageError
from catchlight.recovery.redrive import Redriven, Step
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.list import positive, tell_unreadable
from catchlight_cli.factories import tasks_table
from catchlight_cli.lookup.task_keys import find_tasks
from catchlight_cli.output import a_table
from catchlight_cli.repair.redriving import (
    ALL_KINDS,
    Kind,
    Redrive,
    RedrivenTask,
    StuckTasks,
    collect,
    give_back,
    look,
    work,
)

_DEFAULT_LIMIT = 1000
_CHOICES = (*ALL_KINDS, Kind.TIMED_OUT)
_STEPS = {
    Step.ARCHIVE: "archiving queued",
    Step.REOPEN: "given up images pending again, archiving follows",
    Step.POLL: "polling started",
    Step.REGISTER_ANEW: "pending again, polling follows",
    Step.NOTHING: "needs nothing",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `redrive` to its parser."""
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="provider#taskId, provider/taskId, or the id alone")
    parser.add_argument("--all", action="store_true", help=f"whatever is at a standstill: {', '.join(ALL_KINDS)}")
    parser.add_argument(
        "--kind",
        action="append",
        type=Kind,
        choices=_CHOICES,
        default=[],
        help="only this; repeatable",
        metavar="KIND",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, do nothing")
    parser.add_argument(
        "--limit",
        type=positive,
        default=_DEFAULT_LIMIT,
        metavar="N",
        help=f"at most so many of each kind ({_DEFAULT_LIMIT})",
    )


def run(session: Session) -> ExitStatus:
    """Collects the selected tasks and retries each one. Returns WRONG if a task could not be retried.

    Messages taken from the dead-letter queues return to them if the command fails or is interrupted.
    """
    options, screen = session.options, session.screen
    kinds = _kinds(options)
    stack = session.stack
    named = find_tasks(tasks_table(stack), options.tasks)
    found = StuckTasks()
    try:
        with screen.progress() as progress:
            bar = progress.add_task("Collecting", total=None)
            collect(
                stack,
                kinds,
                named=named,
                limit=options.limit,
                found=found,
                on_progress=lambda: progress.advance(bar),
            )
        if options.dry_run:
            result = look(stack, found)
        else:
            with screen.progress() as progress:
                bar = progress.add_task("Redriving", total=len(found.kinds))
                result = work(stack, found, on_progress=lambda: progress.advance(bar))
    except BaseException:
        give_back(stack, found)
        raise
    screen.show(result, lambda: page(result))
    tell_unreadable(screen, result.unreadable)
    return ExitStatus.WRONG if result.is_wrong else ExitStatus.FINE


def _kinds(options: argparse.Namespace) -> Sequence[Kind]:
    if sum(map(bool, (options.tasks, options.all, options.kind))) != 1:
        raise UsageError(
            f"Say what to redrive: tasks by their ids, --all, or --kind with one of {', '.join(_CHOICES)}. "
            "--dry-run shows what there is."
        )
    return ALL_KINDS if options.all else options.kind


def page(result: Redrive) -> Iterable[RenderableType]:
    """Renders the result for the terminal: each task with its outcome, and a summary."""
    if not result.tasks and not result.dead_letters.unreadable:
        yield Text(f"✓ Nothing {'else ' if result.unreadable else ''}is at a standstill.", "green")
        return
    table = a_table("Task", "Because of", "Was", "Would be done" if result.dry_run else "Done", "")
    for task in result.tasks:
        table.add_row(task.outcome.task, ", ".join(task.kinds), task.outcome.status or "", *_done(task))
    yield table
    yield ""
    yield _summary(result)
    if result.dead_letters.unreadable:
        yield Text(
            f"✗ {result.dead_letters.unreadable} dead letters name no task: look at them in the SQS console.",
            "red",
        )
    if result.more:
        yield Text("There may be more: repeat the command, or raise --limit.", "yellow")


def _done(task: RedrivenTask) -> tuple[Text, Text]:
    outcome = task.outcome
    if outcome.is_failed:
        return Text("failed", "red"), Text(outcome.remark)
    fresh = [f"{outcome.fresh_urls} fresh URLs"] if outcome.fresh_urls else []
    remarks = "; ".join(filter(None, [*fresh, outcome.remark]))
    return Text(_STEPS[outcome.step], _style(outcome)), Text(remarks, "dim")


def _style(outcome: Redriven) -> str:
    return "dim" if outcome.step is Step.NOTHING else "green"


def _summary(result: Redrive) -> str:
    failed = sum(task.outcome.is_failed for task in result.tasks)
    idle = sum(task.outcome.step is Step.NOTHING and not task.outcome.is_failed for task in result.tasks)
    helped = len(result.tasks) - failed - idle
    dead_letters = result.dead_letters
    if result.dry_run:
        return (
            f"{helped} would get another try, {idle} need nothing; {dead_letters.kept} dead letters. Nothing was done."
        )
    return (
        f"{helped} got another try, {idle} need nothing, {failed} failed; "
        f"{dead_letters.removed} dead letters removed, {dead_letters.kept} kept."
    )


COMMAND = Command(
    name="redrive",
    summary="give tasks at a standstill another try: dead letters, incomplete and stuck ones",
    add_arguments=add_arguments,
    run=run,
    description="""\
Gives tasks another try, with fresh URLs where their provider can be asked for some:
  dead-letters       archiving failed five times: it is queued again
  dispatch-failures  what follows from a change was never started: it is started
  incomplete         an image was given up: it is pending again, and tried once more
  stuck              waits for archiving for over an hour: it is queued again
  timed-out          polling gave up: it begins anew (not part of --all)
A dead letter is deleted once its tasks have been helped or need nothing; else it stays.""",
)
