"""Implements `catchlight import`: registers the tasks listed in a file."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.aws_errors import CatchlightError, UsageError
from catchlight.models import utc_now
from catchlight.providers import PROVIDERS
from catchlight.tasks.registration import Registry
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.durations import in_words
from catchlight_cli.factories import tasks_table
from catchlight_cli.output import a_table
from catchlight_cli.repair.bulk_import import Adoption, read_file, register, unknown_tasks

_DEFAULT_PER_SECOND = 20.0
# A longer list would push the summary off the screen; --json has all lines.
_MAX_SHOWN_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `import` to its parser."""
    parser.add_argument(
        "file", metavar="FILE", help="CSV with a header, JSON lines, or provider#taskId lines; - for stdin"
    )
    parser.add_argument("--provider", choices=PROVIDERS, help="whose the ids are where the file does not say it")
    parser.add_argument("--yes", action="store_true", help="register them; without, it is only said what would happen")
    parser.add_argument(
        "--per-second",
        type=_rate,
        default=_DEFAULT_PER_SECOND,
        metavar="N",
        help=f"registrations a second ({_DEFAULT_PER_SECOND:g}); a minute later the providers are asked as fast",
    )
    parser.add_argument("--skip-invalid", action="store_true", help="go on without the lines that name no task")


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError("must be above 0, and 1000 at most")
    return rate


def run(session: Session) -> ExitStatus:
    """Registers the tasks listed in a file; without --yes, only reports what would be registered.

    Returns WRONG if the file has lines that name no task. Such lines prevent the registration, unless --skip-invalid.
    """
    options, screen = session.options, session.screen
    with _opened(options.file) as lines:
        tasks, named, invalid = read_file(lines, provider=options.provider)
    stack = session.stack
    with screen.progress() as progress:
        bar = progress.add_task("Looking up", total=len(tasks))
        new = list(unknown_tasks(tasks_table(stack), tasks, on_progress=lambda more: progress.advance(bar, more)))
    is_done = bool(options.yes and (options.skip_invalid or not invalid))
    registered = len(new)
    if is_done:
        registry = Registry(tasks_table(stack))
        registered = 0
        with screen.progress() as progress:
            bar = progress.add_task("Registering", total=len(new))
            for batch in register(registry, new, per_second=options.per_second, now=utc_now):
                registered += sum(batch)
                progress.advance(bar, len(batch))
    adoption = Adoption(
        dry_run=not is_done,
        lines=named,
        repeated=named - len(tasks),
        # A callback may have created a task between the lookup and its registration.
        already_known=len(tasks) - (registered if is_done else len(new)),
        registered=registered,
        invalid=invalid,
    )
    screen.show(adoption, lambda: page(adoption, options))
    return ExitStatus.WRONG if invalid else ExitStatus.FINE


@contextmanager
def _opened(name: str) -> Iterator[Iterable[str]]:
    if name == "-":
        yield sys.stdin
        return
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as file:
            yield file
    except FileNotFoundError:
        raise UsageError(f"There is no file {name}.") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise CatchlightError(f"{name} cannot be read: {exc}") from exc


def page(adoption: Adoption, options: argparse.Namespace) -> Iterable[RenderableType]:
    """Renders the result for the terminal: counts, the first invalid lines, and how to continue after a dry run."""
    table = a_table("", "Tasks")
    table.columns[1].justify = "right"
    table.add_row("would be registered" if adoption.dry_run else "registered", f"{adoption.registered:,}")
    table.add_row("known already", f"{adoption.already_known:,}")
    if adoption.repeated:
        table.add_row("named by several lines", f"{adoption.repeated:,}")
    if adoption.invalid:
        table.add_row(Text("lines that name no task", "red"), f"{len(adoption.invalid):,}")
    yield table
    for line in adoption.invalid[:_MAX_SHOWN_LINES]:
        yield Text(f"✗ line {line.line}: {line.problem}", "red")
    if len(adoption.invalid) > _MAX_SHOWN_LINES:
        yield Text(f"✗ and {len(adoption.invalid) - _MAX_SHOWN_LINES} more; --json has them all", "red")
    if not adoption.dry_run:
        return
    yield ""
    if adoption.invalid and not options.skip_invalid:
        yield "Nothing was registered. Repair the lines, or go on without them with --skip-invalid."
    elif adoption.registered:
        takes = in_words(adoption.registered / options.per_second)
        yield f"Nothing was registered yet: repeat the command with --yes. It would take {takes}."


COMMAND = Command(
    name="import",
    summary="register tasks of another day in bulk, so that they are polled for and archived",
    add_arguments=add_arguments,
    run=run,
    description="""\
Registers the tasks that a file names: CSV whose header has task, or provider and taskId; JSON lines with the same
names; or one provider#taskId a line. Without --yes it only says what would happen. Cut off, it can be repeated: what
is known is left alone.""",
)
