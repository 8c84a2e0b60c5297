"""The commands, one module each. A new one is a module here and a line below."""

from catchlight.command import Command
from catchlight.commands import download, explain, gallery, get, list, register, replay, status, submit, wait

COMMANDS: tuple[Command, ...] = (
    *(submit.COMMAND, register.COMMAND, get.COMMAND, wait.COMMAND, list.COMMAND, download.COMMAND, gallery.COMMAND),
    *(status.COMMAND, explain.COMMAND, replay.COMMAND),
)
