"""The commands, one module each. A new one is a module here and a line below."""

from catchlight.command import Command
from catchlight.commands import explain, replay, status

COMMANDS: tuple[Command, ...] = (status.COMMAND, explain.COMMAND, replay.COMMAND)
