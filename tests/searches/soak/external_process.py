"""Starts and controls the process that simulates everything outside of the stack."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from local import REPOSITORY
from tests.searches.soak.report import Soak

_ANSWER_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 60


class ExternalProcess:
    """The process that simulates services, users and unauthorised clients."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.searches.soak.external_systems"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._telling = threading.Lock()
        self.through: set[int] = set()  # tasks without outstanding requests
        hello = self._hear()
        self.base_urls: dict[str, str] = hello["base_urls"]
        self.image_host: str = hello["image_host"]
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
        self._tell(seed=soak.seed, time_scale=soak.time_scale, stack=dict(stack))

    def begin_task(self, number: int) -> None:
        self._tell(task=number)

    def set_out(self, is_out: bool) -> None:
        """Makes all services answer with errors until they are told otherwise."""
        self._tell(is_out=is_out)

    def set_back(self) -> None:
        """Ends the outages that last beyond giving up."""
        self._tell(is_back=True)

    def report(self) -> dict[str, Any]:
        """Returns everything that was sent, reported and served."""
        self._reported.clear()
        self._tell(report=True)
        if not self._reported.wait(_ANSWER_TIMEOUT_SECONDS):
            raise RuntimeError("the process of the external systems does not answer")
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

    def _tell(self, **message: Any) -> None:
        assert self._process.stdin
        with self._telling:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
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
            if "through" in message:
                self.through.add(message["through"])
            else:
                self._report = message
                self._reported.set()
