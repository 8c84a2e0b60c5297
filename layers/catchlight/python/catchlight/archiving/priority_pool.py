"""A thread pool that runs the work with the earliest due time first, regardless of submission order."""

import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from queue import PriorityQueue
from typing import Any, TypeVar

T = TypeVar("T")


class PriorityThreadPool:
    """Runs submitted work in the order of its due times. Thread-safe."""

    def __init__(self, max_workers: int, *, thread_name_prefix: str = "") -> None:
        self._threads = ThreadPoolExecutor(max_workers, thread_name_prefix)
        self._waiting: PriorityQueue[tuple[datetime, int, Future[Any], Callable[[], Any]]] = PriorityQueue()
        # Work with the same due time runs in the order of submission.
        self._arrivals = itertools.count()

    def submit(self, due: datetime, work: Callable[[], T]) -> Future[T]:
        """Runs the work as soon as a thread is free and no waiting work is due earlier. Returns its future."""
        future: Future[T] = Future()
        self._waiting.put((due, next(self._arrivals), future, work))
        # One call per piece of work. It runs the work that is due first at that time, which may be another one.
        self._threads.submit(self._run_next)
        return future

    def shutdown(self) -> None:
        """Waits until all work is done."""
        self._threads.shutdown()

    def _run_next(self) -> None:
        _, _, future, work = self._waiting.get_nowait()
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 - raised again by `future.result()`
            future.set_exception(exc)
        else:
            future.set_result(result)
