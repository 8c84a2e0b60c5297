"""Parses the arguments of `catchlight` and runs the command that they name."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from catchlight import __version__
from catchlight.client.aws_errors import explained_errors
from catchlight.client.errors import CatchlightError, UsageError
from catchlight.client.local_state import DEFAULT_STATE_DIR
from catchlight.client.stack import StackChoice
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands import COMMANDS, GROUPS
from catchlight_cli.completion import SHELLS, completion_script
from catchlight_cli.control_characters import printable
from catchlight_cli.output import Output

_DESCRIPTION = (
    "Operate a Catchlight stack and use its tasks: a stack in AWS, with your AWS credentials, or a local stack."
)
_EPILOG = """\
By default, a command uses the local stack of `make up` if one runs in this folder (state in .local), else the deployed
stack that samconfig.toml names. It prints the name of the stack to stderr. If samconfig.toml or the local stack's state
cannot be read, or the local stack has ended, the command fails; it does not use another stack instead.

Exit codes: 0 success, 1 the command failed or found a problem, 2 usage error, 130 interrupted."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # The message quotes arguments, which may contain control characters if they were pasted.
        super().error(printable(message))


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> NoReturn:
        _, shell, *_ = arguments
        sys.stdout.write(completion_script(shell, parser))
        parser.exit()


def parser(commands: Iterable[Command] = COMMANDS) -> argparse.ArgumentParser:
    """Builds the argument parser with a subparser for each command."""
    main = _Parser(
        prog="catchlight",
        usage="catchlight [-h] [--version] [--completion SHELL] COMMAND ...",
        description=_DESCRIPTION + "".join(f"\n\n{title}:\n{_summaries(group)}" for title, group in GROUPS.items()),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument(
        "--version", action="version", version=f"catchlight {__version__}", help="print the version and exit"
    )
    main.add_argument(
        "--completion", action=_PrintCompletion, choices=SHELLS, help="print the completion script of a shell and exit"
    )
    # The description lists the commands, in groups.
    subparsers = main.add_subparsers(prog=main.prog, dest="command", metavar="COMMAND", help=argparse.SUPPRESS)
    main.set_defaults(chosen=None)
    for command in commands:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.description or f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        _add_common_options(subparser)
        subparser.set_defaults(chosen=command)
    return main


def _summaries(commands: Iterable[Command]) -> str:
    return "\n".join(f"  {command.name:<14}{command.summary}" for command in commands)


def _add_common_options(subparser: argparse.ArgumentParser) -> None:
    stack = subparser.add_argument_group("stack")
    location = stack.add_mutually_exclusive_group()
    location.add_argument(
        "--stack-name", metavar="NAME", help="name of a deployed stack (default: from samconfig.toml, else catchlight)"
    )
    location.add_argument("--local", action="store_true", help="use the local stack of `make up`")
    stack.add_argument(
        "--state-dir",
        metavar="FOLDER",
        help=f"use the local stack with its state in this folder (default: {DEFAULT_STATE_DIR})",
    )
    stack.add_argument("--region", help="AWS region (default: from samconfig.toml, else the environment)")
    stack.add_argument("--profile", help="AWS profile (default: from samconfig.toml, else the environment)")
    output = subparser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the result as one JSON document")


def run(arguments: Sequence[str] | None = None, commands: Iterable[Command] = COMMANDS) -> int:
    """Runs the command that the arguments name; returns the exit status.

    Raises:
        SystemExit: with status 2 for invalid arguments, 0 for --help and --version.
    """
    main = parser(commands)
    options = main.parse_args(arguments)
    if options.chosen is None:
        main.print_help()
        return ExitStatus.SUCCESS
    output = Output(as_json=options.json)
    choice = StackChoice(options.stack_name, options.local, options.state_dir, options.region, options.profile)
    command: Command = options.chosen
    session = Session(options, output, choice)
    try:
        with explained_errors():
            return command.run(session)
    except UsageError as exc:
        output.error(str(exc))
        return ExitStatus.USAGE
    except CatchlightError as exc:
        output.error(str(exc))
        return ExitStatus.FAILURE
    except KeyboardInterrupt:
        output.error("interrupted; changes made so far remain, and the command can be repeated.")
        return ExitStatus.INTERRUPTED
    finally:
        session.close()
