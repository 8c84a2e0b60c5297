"""Parses the arguments of `catchlight` and runs the command that they name."""

import argparse
from collections.abc import Iterable, Sequence

from catchlight import __version__
from catchlight.client.aws_errors import CatchlightError, UsageError, faults_explained
from catchlight.client.local_state import DEFAULT_STATE_DIR
from catchlight.client.stack import StackChoice
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands import COMMANDS
from catchlight_cli.output import Output

_WHICH_STACK = """\
Without an option for the stack, a command means the local stack that runs in this folder (`make up`, its state in
.local), else the deployed one that samconfig.toml names: nothing in AWS changes by mistake while you try something on
your machine. Which stack it was is said on stderr. A file that cannot be read, or a local stack that has ended, stops
the command: it never takes another stack instead. Exit status: 0 fine, 1 something is wrong, 2 usage."""


def parser(commands: Iterable[Command] = COMMANDS) -> argparse.ArgumentParser:
    """Builds the argument parser with a subparser for each command."""
    whole = argparse.ArgumentParser(
        prog="catchlight",
        description="Operate a Catchlight stack or build on one, in AWS with your own credentials or on your machine.",
        epilog=_WHICH_STACK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument(
        "--version", action="version", version=f"catchlight {__version__}", help="print the version and exit"
    )
    words = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        word = words.add_parser(
            command.name,
            help=command.summary,
            description=command.description or f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=_WHICH_STACK,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(word)
        _add_common_options(word)
        word.set_defaults(chosen=command)
    return whole


def _add_common_options(word: argparse.ArgumentParser) -> None:
    which = word.add_argument_group("which stack")
    place = which.add_mutually_exclusive_group()
    place.add_argument("--stack-name", metavar="NAME", help="a deployed stack (samconfig.toml's, else catchlight)")
    place.add_argument("--local", action="store_true", help="the stack of `make up` on this machine")
    which.add_argument(
        "--state-dir", metavar="FOLDER", help=f"the local stack with its state in this folder ({DEFAULT_STATE_DIR})"
    )
    which.add_argument("--region", help="AWS region (samconfig.toml's, else your environment's)")
    which.add_argument("--profile", help="AWS profile (samconfig.toml's, else your environment's)")
    output = word.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="for machines: one JSON document on stdout")


def run(arguments: Sequence[str] | None = None, commands: Iterable[Command] = COMMANDS) -> int:
    """Runs the command that the arguments name; returns the exit status.

        Raises:
    <<<<<<< HEAD
            SystemExit: with status 2 for invalid arguments, 0 for --help.
    =======
            SystemExit: with status 2 for arguments that cannot be read, 0 for --help and --version.
    >>>>>>> e7
    """
    options = parser(commands).parse_args(arguments)
    screen = Output(as_json=options.json)
    choice = StackChoice(options.stack_name, options.local, options.state_dir, options.region, options.profile)
    command: Command = options.chosen
    session = Session(options, screen, choice)
    try:
        with faults_explained():
            return command.run(session)
    except UsageError as exc:
        screen.error(str(exc))
        return ExitStatus.USAGE
    except CatchlightError as exc:
        screen.error(str(exc))
        return ExitStatus.WRONG
    except KeyboardInterrupt:
        screen.error("interrupted; what was done until now stays done, and the command can be repeated.")
        return 130
    finally:
        session.close()
