"""Defines the structure of a command. Each module under `commands/` exports one as `COMMAND`."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from catchlight.client.stack import Stack, StackChoice
from catchlight_cli.output import Output


class ExitStatus(IntEnum):
    """Exit codes of the command line."""

    SUCCESS = 0
    FAILURE = 1  # the command failed or found a problem
    USAGE = 2  # the arguments are invalid or do not determine a stack
    INTERRUPTED = 130  # Ctrl-C; the code that shells use for SIGINT


@dataclass(frozen=True)
class Session:
    """One run of a command: its options, its output, and its stack, which is looked up at the first access."""

    options: argparse.Namespace
    output: Output
    choice: StackChoice

    @cached_property
    def stack(self) -> Stack:
        """The stack that the options select. Its name is printed to stderr when it is found.

        Raises:
            CatchlightError: the stack cannot be found.
        """
        with self.output.working("Looking up the stack"):
            stack = self.choice.find()
        self.output.info(f"Using {stack}.")
        return stack

    def close(self) -> None:
        """Closes the connections to the stack, if it was looked up."""
        if "stack" in self.__dict__:
            self.stack.close()


@dataclass(frozen=True)
class Command:
    """A subcommand of `catchlight`.

    `run` collects its result as a pydantic model, prints it, and returns the exit status. It may raise CatchlightError
    and the errors that `aws_errors.explained_errors` converts into one.
    """

    name: str
    summary: str  # one line for the list of commands
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Session], ExitStatus]
    description: str = ""  # text of --help above the options; defaults to the summary
