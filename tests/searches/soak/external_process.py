"""Starts and controls the process that simulates providers, users and unauthorised clients."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from local import REPOSITORY
from tests.searches.soak.report import Soak

_REPORT_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 60


class ExternalProcess:
    """A child process that runs `external_systems` and exchanges JSON lines with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.searches.soak.external_systems"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send_lock = threading.Lock()
        self.completed: set[int] = set()  # numbers of the tasks without outstanding requests
        addresses = self._receive()
        self.base_urls: dict[str, str] = addresses["base_urls"]
        self.image_host: str = addresses["image_host"]
        self._reported = threading.Event()
        self._report: dict[str, Any] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def begin(self, soak: Soak, stack: Mapping[str, Any]) -> None:
        self._listener.start()
        self._send(seed=soak.seed, time_scale=soak.time_scale, stack=dict(stack))

    def begin_task(self, number: int) -> None:
        self._send(task=number)

    def set_out(self, is_out: bool) -> None:
        """Starts or ends an outage of all providers."""
        self._send(is_out=is_out)

    def end_long_outages(self) -> None:
        """Ends the outages that the plans of single tasks contain, which last longer than polling takes."""
        self._send(is_outage_over=True)

    def report(self) -> dict[str, Any]:
        """Returns the records of all sent callbacks, provider reports, polls and image requests."""
        self._reported.clear()
        self._send(report=True)
        if not self._reported.wait(_REPORT_TIMEOUT_SECONDS):
            raise RuntimeError("the process of the external systems does not respond")
        return self._report

    def stop(self) -> None:
        """Closes the process's stdin, which ends it."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._listener.is_alive():
            self._listener.join()
        assert self._process.stdout
        self._process.stdout.close()

    def _send(self, **message: Any) -> None:
        assert self._process.stdin
        with self._send_lock:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the external systems has ended")
        message: dict[str, Any] = json.loads(line)
        return message

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            if "completed" in message:
                self.completed.add(message["completed"])
            else:
                self._report = message
                self._reported.set()
