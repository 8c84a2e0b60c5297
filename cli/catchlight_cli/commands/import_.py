"""Implements `catchlight import`: registers the tasks listed in a file."""

import argparse
import io
from collections.abc import Generator, Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.errors import CatchlightError, UsageError
from catchlight.models import utc_now
from catchlight.tasks.registration import Registry
from catchlight_cli.arguments import provider_id
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import format_duration
from catchlight_cli.factories import tasks_table
from catchlight_cli.output import new_table, task_path
from catchlight_cli.repair.bulk_import import ImportResult, read_file, register, unknown_tasks
from catchlight_cli.text_input import read_text

_DEFAULT_RATE = 20.0  # tasks per second
_MAX_RATE = 1000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="CSV with a header, JSON lines, or one provider#taskId per line; - reads stdin"
    )
    parser.add_argument(
        "--provider", type=provider_id, metavar="PROVIDER", help="provider of the tasks whose lines do not name one"
    )
    parser.add_argument("--yes", action="store_true", help="register the tasks (default: a dry run)")
    parser.add_argument(
        "--rate",
        type=_rate,
        default=_DEFAULT_RATE,
        metavar="N",
        help="maximum number of registrations per second; their first polls follow at the same rate "
        f"(default: {_DEFAULT_RATE:g})",
    )
    parser.add_argument("--skip-invalid", action="store_true", help="skip invalid lines instead of registering nothing")


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0
    if not 0 < rate <= _MAX_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most {_MAX_RATE:g}")
    return rate


def run(session: Session) -> ExitStatus:
    """Registers the tasks listed in a file; without --yes, only reports what would be registered.

    Returns FAILURE if the file has invalid lines. They prevent the registration, unless --skip-invalid is given.
    """
    options, output = session.options, session.output
    tasks, valid_lines, invalid = read_file(_lines(options.file), provider=options.provider)
    table = tasks_table(session.stack)
    if not output.as_json:
        for line in invalid:
            output.show_part(Text(f"✗ line {line.line}: {line.problem}", "red"))
    is_dry_run = not options.yes or bool(invalid and not options.skip_invalid)
    with output.progress() as progress:
        bar = progress.add_task("Looking up", total=len(tasks))
        new = unknown_tasks(table, tasks, on_progress=lambda more: progress.advance(bar, more))

        def registered_tasks() -> Generator[str, None, None]:
            if is_dry_run:
                yield from new
                return
            unregistered = list(new)
            progress.reset(bar, description="Registering", total=len(unregistered))
            for batch in register(Registry(table), unregistered, rate=options.rate, now=utc_now):
                progress.advance(bar, len(batch))
                yield from (task for task, is_new in batch.items() if is_new)

        outcome = "would be registered" if is_dry_run else "registered"
        registered = output.show_rows(registered_tasks(), lambda task: (task_path(task), outcome), "Task", "Outcome")
    result = ImportResult(
        dry_run=is_dry_run,
        lines=valid_lines,
        duplicates=valid_lines - len(tasks),
        # Includes tasks that a callback has created between the lookup and their registration.
        already_known=len(tasks) - len(registered),
        registered=len(registered),
        invalid=invalid,
    )
    output.show(result, lambda: render(result, options))
    return ExitStatus.FAILURE if invalid else ExitStatus.SUCCESS


def _lines(name: str) -> Iterable[str]:
    try:
        # Task ids are ASCII; other columns, such as prompts, may be in an unknown encoding.
        text = read_text(name, errors="replace")
    except FileNotFoundError:
        raise UsageError(f"There is no file {name}.") from None
    except OSError as exc:
        raise CatchlightError(f"{name} cannot be read: {exc}") from exc
    if "\0" in text:
        raise CatchlightError(f"{name} cannot be read: it is not a text file")
    return io.StringIO(text, newline="")


def render(result: ImportResult, options: argparse.Namespace) -> Iterable[RenderableType]:
    """Renders the summary for the terminal, below the tasks: counts, and how to continue after a dry run."""
    yield ""
    table = new_table("Outcome", "Tasks", right=["Tasks"])
    table.add_row("would be registered" if result.dry_run else "registered", f"{result.registered:,}")
    table.add_row("already in the table", f"{result.already_known:,}")
    if result.duplicates:
        table.add_row("duplicate lines", f"{result.duplicates:,}")
    if result.invalid:
        table.add_row(Text("invalid lines", "red"), f"{len(result.invalid):,}")
    yield table
    yield ""
    if not result.lines and not result.invalid:
        yield "The file lists no task: nothing was registered."
    elif result.invalid and not options.skip_invalid:
        yield "Nothing was registered. Correct the lines, or skip them with --skip-invalid."
    elif not result.registered:
        yield "Nothing was registered: every task is in the table already."
    elif result.dry_run:
        takes = format_duration(result.registered / options.rate)
        yield f"Nothing was registered: this was a dry run. Repeat the command with --yes; it takes about {takes}."


COMMAND = Command(
    name="import",
    summary="register the tasks listed in a file, so that the stack polls for them and archives their images",
    add_arguments=add_arguments,
    run=run,
    description="""\
Register the tasks listed in a file. The file is CSV, separated by commas, semicolons or tabs, with a column `task` or
the columns `provider` and `taskId`; or JSON lines with these members; or one provider#taskId per line. Case, spaces,
- and _ in the names of columns and members are ignored. Without --yes it is a dry run. An interrupted import can be
repeated: tasks that are in the table already are skipped.""",
)
