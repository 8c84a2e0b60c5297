"""Waits for Ctrl-C."""

import threading
from typing import NoReturn

_PAUSE_SECONDS = 0.5


def wait_for_interruption() -> NoReturn:
    """Waits until a signal handler raises an exception in the main thread; by default Ctrl-C raises KeyboardInterrupt.

    The system may deliver a signal to another thread. Python runs its handler in the main thread, when that wakes up:
    a wait without a timeout would never end.
    """
    never = threading.Event()
    while True:
        never.wait(_PAUSE_SECONDS)
