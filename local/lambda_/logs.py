"""Writes the output of each function to its own log file, and all errors to one common file."""

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

# Maximum size of a log file. If a line would exceed it, the file is renamed to `*.log.1` and replaces an earlier one,
# so the logs of one source have at most twice this size. One task writes about 4 KB, half of it to the largest file.
MAX_LOG_BYTES = 10_000_000


class LogFolder:
    """Writes log files of limited size to one folder, and all errors to `errors.log`.

    Existing log files are deleted at construction, so all lines are from the current run. Control characters are
    replaced, because a terminal would interpret them. `on_error(source, message)` is called for each error.
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
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.write("errors", f"{now} {source}: {message}" + (f"\n{details.rstrip()}" if details else ""))
        if self._on_error and not self._closed:
            self._on_error(source, message)

    def close(self) -> None:
        """Discards all later lines: a sandbox that is killed when the stack stops is not an error."""
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
