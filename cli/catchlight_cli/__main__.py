"""Entry point of the `catchlight` command."""

import contextlib
import gc
import os
import signal
import sys

INTERRUPTED = 130  # as command.ExitStatus


def main() -> int:
    """Runs the command that the arguments name, and returns the exit status.

    Prints no traceback for Ctrl-C, a closed pipe or a full disk.
    """
    for stream in (sys.stdout, sys.stderr):
        # The encoding of a console or pipe on Windows may lack characters that the commands print.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a test's stream may be of another type
    try:
        # The objects that the imports create are used until the end. `freeze` excludes them from garbage collection,
        # also at exit: a short command takes a fifth less time.
        gc.disable()
        # Imported here: Ctrl-C during the imports, which take most of a second, shows no traceback either.
        from catchlight_cli.command_line import run

        gc.freeze()
        gc.enable()
        try:
            status = run()
        finally:  # also after --help, which ends with SystemExit
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # `catchlight ... | head`
        _discard_output()
        return 1
    except OSError as exc:
        # Only an error of writing to stdout gets here: `catchlight ... > /dev/full`.
        _discard_output()
        sys.stderr.write(f"error: The output cannot be written: {exc.strerror}.\n")
        return 1
    if status == INTERRUPTED:
        # Python waits at exit for requests in other threads. A second Ctrl-C ends the process at once, without a
        # traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return status


def _discard_output() -> None:
    """Redirects stdout to the null device: Python flushes it again at exit, which would raise the same error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
