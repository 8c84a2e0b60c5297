"""The `catchlight` command."""

import sys


def main() -> int:
    """Runs the command that the arguments name; returns the exit status."""
    return 0


if __name__ == "__main__":
    sys.exit(main())
