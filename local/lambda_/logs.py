"""Writes the output of functions to one log file each, and all errors to a common file."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catchlight_cli.control_characters import printable
from local.state_dir import private

ErrorListener = Callable[[str, str], None]

# A log file that would become longer is renamed to `*.log.1`, in the place of an earlier one: a source's logs take at
# most twice this. A task leaves about 4 KB, half of it in the longest file.
MAX_LOG_BYTES = 10_000_000


class LogFolder:
    """Log files in one folder, of bounded length; deleted when the stack starts, so all lines are of the current run.

    Control characters of terminals are replaced.
    `errors.log` collects all errors. `on_error(source, message)` is called for each of them, for the terminal.
    """

    def __init__(self, folder: Path, on_error: ErrorListener | None = None) -> None:
        self.folder = folder
        self._on_error = on_error
        self._lock = threading.Lock()
        self._closed = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in (*folder.glob("*.log"), *folder.glob("*.log.1")):
            old.unlink()

    def write(self, source: str, line: str) -> None:
        with self._lock:
            if not self._closed:
                path = self.folder / f"{source}.log"
                text = printable(line).rstrip("\n") + "\n"
                with suppress(FileNotFoundError):
                    if path.stat().st_size + len(text) > MAX_LOG_BYTES:
                        path.replace(f"{path}.1")
                with open(path, "a", encoding="utf-8", opener=private) as file:
                    file.write(text)

    def error(self, source: str, message: str, details: str = "") -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.write("errors", f"{when} {source}: {message}" + (f"\n{details.rstrip()}" if details else ""))
        if self._on_error and not self._closed:
            self._on_error(source, message)

    def close(self) -> None:
        """Ignores all later lines: a sandbox that is killed when the stack stops is not an error."""
        with self._lock:
            self._closed = True

    def function_error(self, function: str, request_id: str, payload: bytes) -> None:
        """Logs a failed invocation; the payload is Lambda's error object."""
        try:
            error: dict[str, Any] = json.loads(payload)
        except ValueError:
            error = {"errorMessage": payload.decode(errors="replace")}
        message = f"{error.get('errorType', 'Error')}: {error.get('errorMessage', '')} (request {request_id})"
        self.error(function, message, "".join(error.get("stackTrace") or []))
