"""What a command is: a module under `commands/` exports one as `COMMAND`."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from catchlight.client.stack import Stack, StackChoice
from catchlight_cli.output import Output


class ExitStatus(IntEnum):
    """What the shell is told."""

    FINE = 0
    WRONG = 1  # something is wrong with the stack, or the command failed
    USAGE = 2  # the command line makes no sense, or which stack it means cannot be determined


@dataclass(frozen=True)
class Session:
    """One run of a command: its options, its screen, and the stack it speaks to, found when it is first asked for."""

    options: argparse.Namespace
    screen: Output
    choice: StackChoice

    @cached_property
    def stack(self) -> Stack:
        """The stack; which one it is, is said once on stderr.

        Raises:
            CatchlightError: it cannot be found.
        """
        stack = self.choice.find()
        self.screen.info(f"Speaking to {stack}.")
        return stack

    def close(self) -> None:
        """Ends the connections to the stack, if it was asked for."""
        if "stack" in self.__dict__:
            self.stack.close()


@dataclass(frozen=True)
class Command:
    """One word after `catchlight`.

    `run` gathers a pydantic model, shows it, and says whether something is wrong. It may raise CatchlightError and
    whatever `errors.faults_explained` turns into one.
    """

    name: str
    summary: str  # one line for the list of commands
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Session], ExitStatus]
    description: str = ""  # what its --help says above the options
