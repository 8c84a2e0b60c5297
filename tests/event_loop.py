"""Runs coroutines in a thread: Playwright keeps an event loop running in the main thread of its worker."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

Result = TypeVar("Result")


class EventLoopThread:
    """An event loop in a thread of its own, from the entry to the exit of its `with` block."""

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.submit(self._runner.close).result()
        self._pool.shutdown()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine to its end, and returns its result or raises its error."""
        return self._pool.submit(self._runner.run, coroutine).result()


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Runs one coroutine in an event loop of its own, as `asyncio.run` does."""
    with EventLoopThread() as loop:
        return loop.run(coroutine)
