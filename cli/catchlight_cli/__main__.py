"""Entry point of the `catchlight` command."""

import contextlib
import gc
import os
import signal
import sys

INTERRUPTED = 130  # as command.ExitStatus


def main() -> int:
    """Runs the command that the arguments name; returns the exit status. Shows no traceback for what users do."""
    for stream in (sys.stdout, sys.stderr):
        # A Windows console, or a pipe there, may have an encoding without the characters that are printed.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a test's stream may be of another type
    try:
        # Nearly nothing that the imports create becomes garbage. The collector leaves it out from now on, also when the
        # program ends: a short command takes a fifth less time.
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
        # Only writing to stdout fails here: `catchlight ... > /dev/full`.
        _discard_output()
        sys.stderr.write(f"error: The output cannot be written: {exc.strerror}.\n")
        return 1
    if status == INTERRUPTED:
        # Requests in other threads may still end. Another Ctrl-C does not wait for them, and shows no traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return status


def _discard_output() -> None:
    """Python flushes stdout again at exit, and would report the same error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
