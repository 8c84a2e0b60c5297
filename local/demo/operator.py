"""Plays the operator in the demo: redrives messages of the dead-letter queue."""

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from local import REPOSITORY
from local.demo.checks import count_messages
from local.demo.runner import DemoError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

_MAX_SECONDS = 60


class Operator:
    """Redrives dead letters with the `catchlight` command, in a process of its own while the demo runs."""

    def __init__(self, sqs: "SQSClient", dead_letters_url: str, state_dir: Path) -> None:
        self._sqs = sqs
        self._url = dead_letters_url
        self._command = [
            "redrive",
            "--kind",
            "archive-dead-letters",
            "--local",
            "--state-dir",
            str(state_dir.resolve()),
        ]
        self._running: subprocess.Popen[str] | None = None
        self.redriven = 0

    def redrive_dead_letters(self) -> None:
        """Starts a redrive if the queue has messages, and checks the result of a finished one. Does not block.

        Raises:
            DemoError: the redrive failed.
        """
        if self._running is None:
            if count_messages(self._sqs, self._url):
                self._running = subprocess.Popen(
                    [sys.executable, "-m", "catchlight_cli", *self._command],
                    cwd=REPOSITORY,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
        elif self._running.poll() is not None:
            self._finish_redrive(self._running)

    def finish(self) -> None:
        """Waits for a running redrive.

        Raises:
            DemoError: the redrive failed, or takes longer than `_MAX_SECONDS`.
        """
        deadline = time.monotonic() + _MAX_SECONDS
        while self._running is not None:
            if time.monotonic() > deadline:
                self._running.kill()
                raise DemoError(f"catchlight redrive did not end within {_MAX_SECONDS} s")
            time.sleep(0.05)
            self.redrive_dead_letters()

    def _finish_redrive(self, process: subprocess.Popen[str]) -> None:
        output = process.communicate()[0]
        self._running = None
        self.redriven += 1
        if process.returncode:
            raise DemoError(f"catchlight {' '.join(self._command)} failed: {output}")
