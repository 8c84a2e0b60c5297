"""Threads that take what is due first, whoever asked for it and when."""

import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from queue import PriorityQueue
from typing import Any, TypeVar

T = TypeVar("T")


class PriorityThreadPool:
    """A thread pool in which waiting work overtakes what is due later. Thread-safe."""

    def __init__(self, max_workers: int, *, thread_name_prefix: str = "") -> None:
        self._threads = ThreadPoolExecutor(max_workers, thread_name_prefix)
        self._waiting: PriorityQueue[tuple[datetime, int, Future[Any], Callable[[], Any]]] = PriorityQueue()
        # Work that is due at the same moment goes in the order in which it came.
        self._arrivals = itertools.count()

    def submit(self, due: datetime, work: Callable[[], T]) -> Future[T]:
        """Runs the work as soon as a thread is free and nothing that waits is due before it."""
        future: Future[T] = Future()
        self._waiting.put((due, next(self._arrivals), future, work))
        # One turn for each piece of work; whose turn it is shows when a thread is free.
        self._threads.submit(self._take_turn)
        return future

    def shutdown(self) -> None:
        """Waits until all work is done."""
        self._threads.shutdown()

    def _take_turn(self) -> None:
        _, _, future, work = self._waiting.get_nowait()
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 - it belongs to whoever waits for the future
            future.set_exception(exc)
        else:
            future.set_result(result)
