"""The commands, one module each. A new one is a module here and a line below."""

from catchlight.command import Command
from catchlight.commands import replay

COMMANDS: tuple[Command, ...] = (replay.COMMAND,)
