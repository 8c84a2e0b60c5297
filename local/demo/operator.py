"""The operator of the demo: looks at the dead letters, and gives what lies there another try."""

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from local.demo.checks import count_messages
from local.demo.runner import DemoError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

_REPOSITORY = Path(__file__).resolve().parents[2]
_MAX_SECONDS = 60


class Operator:
    """Redrives dead letters as people do it, by the command line, beside everything else."""

    def __init__(self, sqs: "SQSClient", dead_letters_url: str, state_dir: Path) -> None:
        self._sqs = sqs
        self._url = dead_letters_url
        self._command = ["redrive", "--kind", "dead-letters", "--local", "--state-dir", str(state_dir.resolve())]
        self._running: subprocess.Popen[str] | None = None
        self.redriven = 0

    def look(self) -> None:
        """Begins a redrive where there is something to redrive, and ends one that is through.

        Raises:
            DemoError: it failed.
        """
        if self._running is None:
            if count_messages(self._sqs, self._url):
                self._running = subprocess.Popen(
                    [sys.executable, "-m", "catchlight", *self._command],
                    cwd=_REPOSITORY,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
        elif self._running.poll() is not None:
            self._settle(self._running)

    def finish(self) -> None:
        """Waits for a redrive that is under way.

        Raises:
            DemoError: it failed, or does not come to an end.
        """
        deadline = time.monotonic() + _MAX_SECONDS
        while self._running is not None:
            if time.monotonic() > deadline:
                self._running.kill()
                raise DemoError("catchlight redrive does not come to an end")
            time.sleep(0.05)
            self.look()

    def _settle(self, process: subprocess.Popen[str]) -> None:
        said = process.communicate()[0]
        self._running = None
        self.redriven += 1
        if process.returncode:
            raise DemoError(f"catchlight {' '.join(self._command)} failed: {said}")
