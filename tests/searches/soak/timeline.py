"""Runs work at scheduled times, in a few threads."""

import heapq
import itertools
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Timeline:
    """Work scheduled at moments of the wall clock. Thread-safe."""

    def __init__(self, threads: int) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        # Work for the same moment runs in the order in which it was added.
        self._arrivals = itertools.count()
        self._changed = threading.Condition()
        self._is_over = False
        self.errors: list[str] = []  # tracebacks of failed work
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="timeline")
        self._thread = threading.Thread(target=self._run, daemon=True, name="timeline")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Starts nothing more, and waits for running work."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def at(self, moment: float, work: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._arrivals), work))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_over:
                    left = self._due[0][0] - time.time() if self._due else None
                    if left is not None and left <= 0:
                        break
                    self._changed.wait(left)
                if self._is_over:
                    return
                _, _, work = heapq.heappop(self._due)
            self._pool.submit(self._do, work)

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - other work continues; `errors` reports it
            self.errors.append(traceback.format_exc())
