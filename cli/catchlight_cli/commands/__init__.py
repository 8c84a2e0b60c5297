"""The commands, one module each. A new command needs a module here and an entry in `GROUPS`."""

from itertools import chain

from catchlight_cli.command import Command
from catchlight_cli.commands import (
    accept,
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

# In the order in which `catchlight --help` lists them.
GROUPS: dict[str, tuple[Command, ...]] = {
    "Set up": (keys.COMMAND, outputs.COMMAND),
    "Use": (submit.COMMAND, register.COMMAND, get.COMMAND, wait.COMMAND, list.COMMAND, download.COMMAND),
    "Inspect": (gallery.COMMAND, status.COMMAND, describe.COMMAND, doctor.COMMAND),
    "Operate": (
        redrive.COMMAND,
        accept.COMMAND,
        reconcile.COMMAND,
        replay.COMMAND,
        import_.COMMAND,
        resend_events.COMMAND,
    ),
}
COMMANDS: tuple[Command, ...] = tuple(chain.from_iterable(GROUPS.values()))
