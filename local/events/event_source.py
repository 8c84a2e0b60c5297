"""Defines the base class of all event sources, and parses the batch item failures in a function's response."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function
from local.lambda_.runtime_api import InvocationResult

_STOP_SECONDS = 5


class EventSource(ABC):
    """Waits in a thread for events and invokes one function with them, from `start()` to `stop()`."""

    def __init__(self, name: str, function: Function, logs: LogFolder) -> None:
        self._name = name
        self._function = function
        self._logs = logs
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)

    def start(self) -> None:
        self._thread.start()

    def begin_stop(self) -> None:
        """Makes the thread end after its current event, without waiting for its end."""
        self._stopping.set()

    def stop(self) -> None:
        self.begin_stop()
        self._thread.join(_STOP_SECONDS)

    @abstractmethod
    def _step(self) -> None:
        """Waits for the next event and delivers it. Returns after a short time without one, and when it has to stop."""

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._errors_logged():
                self._step()

    @contextmanager
    def _errors_logged(self) -> Iterator[None]:
        """Logs an error of the local stack, so that the event source continues after it."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001
            if not self._stopping.is_set():
                self._logs.error(self._name, f"{type(exc).__name__}: {exc}")


def failed_identifiers(outcome: InvocationResult, identifiers: Sequence[str], reports_item_failures: bool) -> set[str]:
    """Returns the identifiers of a batch that failed: all if the function failed or its response is malformed.

    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
    """
    everything = set(identifiers)
    if outcome.function_error:
        return everything
    if not reports_item_failures:
        return set()
    try:
        response: Any = json.loads(outcome.payload or b"null")
    except ValueError:
        return everything
    if not response:
        return set()
    if not isinstance(response, dict):
        return everything
    failures = response.get("batchItemFailures") or []
    failed = {str(item.get("itemIdentifier")) if isinstance(item, dict) else "" for item in failures}
    # An identifier that is missing, empty or not part of this batch makes the whole batch fail.
    return failed if failed <= everything else everything
