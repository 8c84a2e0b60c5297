"""Runs the whole stack on one machine: the real template and the real handlers, without AWS and without Docker.

`python -m local up` starts it; `local.stack.LocalStack` does the same as a context manager.
"""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class LocalStackError(Exception):
    """The stack cannot start or continue. The message states the reason and the next step for the user."""


class UnsupportedError(LocalStackError):
    """The local stack does not implement a feature of AWS. The message names the file to add it to."""

    def __init__(self, feature: str, file: str) -> None:
        super().__init__(f"{feature} is not supported by the local stack. Add it to {file}.")
