"""The whole stack on one machine: the real template, the real handlers, no AWS and no Docker.

`python -m local up` starts it; `local.stack.LocalStack` is the same as a context manager.
"""


class LocalStackError(Exception):
    """Why the stack cannot start or go on. The message says what to do next."""
