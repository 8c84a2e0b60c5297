"""Ends a running command on Ctrl-C, or when the program that reads its stdout closes it."""

import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_PAUSE_SECONDS = 0.5


def wait_for_interruption() -> NoReturn:
    """Waits until a signal handler raises an exception in the main thread; by default Ctrl-C raises KeyboardInterrupt.

    The system may deliver a signal to another thread. Python runs the signal handler in the main thread as soon as that
    executes Python code again, so each sleep is short.
    """
    while True:
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def ended_by_closed_stdout() -> Iterator[None]:
    """Raises BrokenPipeError in the block, in the main thread, as soon as the program that reads stdout has closed it.

    Without it, `catchlight list --all | head` would request one more page before it fails to print. The exception can
    interrupt the block at any point, also during a request, so the block must not change anything. It is never raised
    on Windows, which has neither `select.poll` nor signals between threads, or if stdout has no file descriptor.
    """
    stdout = _descriptor_to_watch()
    if stdout is None:
        yield
        return
    ended, lock = threading.Event(), threading.Lock()
    before = signal.signal(signal.SIGUSR1, _raise_stdout_closed)
    try:
        threading.Thread(target=_interrupt_when_closed, args=(stdout, ended, lock), daemon=True).start()
        try:
            yield
        finally:
            with lock:
                ended.set()
    except _StdoutClosed:
        raise BrokenPipeError from None
    finally:
        signal.signal(signal.SIGUSR1, before)


def _descriptor_to_watch() -> int | None:
    """Returns the file descriptor of stdout; None if the platform has no `select.poll` or the stream no descriptor."""
    if not hasattr(select, "poll"):
        return None
    try:
        return sys.stdout.fileno()
    except OSError:
        return None


def _interrupt_when_closed(stdout: int, ended: threading.Event, lock: threading.Lock) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread
    poll = select.poll()
    poll.register(stdout, 0)  # without events to wait for, poll reports only that the reader has closed it
    while not ended.is_set():
        if poll.poll(_PAUSE_SECONDS * 1000):
            with lock:  # no signal after the end of the block, which restores the former handler
                if not ended.is_set():
                    signal.pthread_kill(main_thread, signal.SIGUSR1)
            return


class _StdoutClosed(BaseException):
    """The program that reads stdout has closed it.

    This is not an OSError, which an HTTP client would treat as a connection error and retry the request.
    """


def _raise_stdout_closed(_: int, __: FrameType | None) -> NoReturn:
    raise _StdoutClosed
