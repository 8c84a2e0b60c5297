"""Entry point of the `catchlight` command."""

import os
import sys

from catchlight_cli.command_line import run


def main() -> int:
    """Runs the command that the arguments name; returns the exit status."""
    try:
        status = run()
        sys.stdout.flush()
    except BrokenPipeError:  # `catchlight ... | head`
        # Python flushes stdout again at exit, and would report the broken pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
