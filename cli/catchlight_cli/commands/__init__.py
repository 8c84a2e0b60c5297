"""The commands, one module each. A new command needs a module here and an entry in `COMMANDS`."""

from catchlight_cli.command import Command
from catchlight_cli.commands import (
    describe,
    doctor,
    download,
    gallery,
    get,
    import_,
    keys,
    list,  # noqa: A004 - the name of the command
    outputs,
    reconcile,
    redrive,
    register,
    replay,
    resend_events,
    status,
    submit,
    wait,
)

COMMANDS: tuple[Command, ...] = (
    *(keys.COMMAND, outputs.COMMAND),
    *(submit.COMMAND, register.COMMAND, get.COMMAND, wait.COMMAND, list.COMMAND, download.COMMAND, gallery.COMMAND),
    *(status.COMMAND, describe.COMMAND, doctor.COMMAND),
    *(redrive.COMMAND, reconcile.COMMAND, replay.COMMAND, import_.COMMAND, resend_events.COMMAND),
)
