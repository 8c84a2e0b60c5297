"""Runs functions at scheduled times, in a few threads."""

import heapq
import itertools
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Condition.wait() does not accept an infinite timeout.
_LONGEST_WAIT_SECONDS = 3600.0


class Timeline:
    """Runs functions at times of the wall clock. Thread-safe."""

    def __init__(self, threads: int, *, on_error: Callable[[str], None]) -> None:
        """`on_error` is called with the traceback of a function that has failed; the other functions still run."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        # Functions for the same time start in the order in which they were added.
        self._arrivals = itertools.count()
        self._changed = threading.Condition()
        self._is_over = False
        self._on_error = on_error
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="timeline")
        self._thread = threading.Thread(target=self._run, daemon=True, name="timeline")

    def stop(self, *, wait: bool = True) -> None:
        """Starts no more functions and, by default, waits for running ones. A second call does nothing."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def at(self, moment: float, work: Callable[[], None]) -> None:
        """Schedules a function. The first call starts the thread."""
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._arrivals), work))
            self._changed.notify()
            if self._thread.ident is None and not self._is_over:
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_over:
                    left = self._due[0][0] - time.time() if self._due else _LONGEST_WAIT_SECONDS
                    if left <= 0:
                        break
                    self._changed.wait(min(left, _LONGEST_WAIT_SECONDS))
                if self._is_over:
                    return
                _, _, work = heapq.heappop(self._due)
            self._pool.submit(self._do, work)

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - reported
            self._on_error(traceback.format_exc())
