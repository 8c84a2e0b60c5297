"""Interruptions of a running command: Ctrl-C, and the end of the program that reads stdout."""

import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
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


@contextmanager
def ended_by_closed_stdout() -> Iterator[None]:
    """Raises BrokenPipeError in the block, in the main thread, as soon as the program that reads stdout has closed it.

    `catchlight list --all | head` would otherwise wait for the next page, only to learn that it cannot be printed. The
    block can end at any point, also during a request: it must not change anything. Without effect on Windows, which has
    neither `select.poll` nor signals between threads, and where stdout is no file.
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
    """Returns the file descriptor of stdout, None if this platform or this stream cannot be watched."""
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
    poll.register(stdout, 0)  # reports only that the reader has closed it
    while not ended.is_set():
        if poll.poll(_PAUSE_SECONDS * 1000):
            with lock:  # no signal after the end of the block, when the former handler is back
                if not ended.is_set():
                    signal.pthread_kill(main_thread, signal.SIGUSR1)
            return


class _StdoutClosed(BaseException):
    """Another program has closed stdout.

    This is not an OSError: an HTTP client would take one for an error of its connection, and repeat the request.
    """


def _raise_stdout_closed(_: int, __: FrameType | None) -> NoReturn:
    raise _StdoutClosed
