"""Reads the state folder of a local stack: stack.json with its addresses, and its lock file, locked while it runs."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from catchlight.client.errors import UsageError

DEFAULT_STATE_DIR = ".local"
STATE_FILE = "stack.json"
LOCK_FILE = "stack.lock"
# On loopback the kernel accepts connections even for a busy process, unless its backlog is full.
_CONNECT_TIMEOUT_SECONDS = 10.0


class LocalState(BaseModel):
    """The fields of stack.json that the client and the command line read."""

    api_url: str
    # A local stack listens on this address only. The pattern prevents requests to other hosts if the file is damaged.
    aws_endpoint_url: str = Field(pattern=r"^http://127\.0\.0\.1:[0-9]{1,5}$")
    region: str
    tasks_api_url: str | None = None
    simulator_url: str | None = None
    resources: dict[str, str] = {}
    parameters: dict[str, str] = {}


def read_local_state(folder: Path) -> LocalState | None:
    """Reads the state of the local stack that runs with this folder. Returns None if the folder has no state.

    Raises:
        UsageError: the state cannot be read, or its stack is starting, stopping or no longer running.
    """
    path = folder / STATE_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        if path.is_symlink():  # a broken link: the state file exists but cannot be read
            raise _unreadable(path, exc) from exc
        if is_locked(folder):
            raise UsageError(
                f"The local stack of {folder} is starting or stopping. Repeat the command in a moment, or select a "
                "deployed stack with --stack-name."
            ) from None
        return None
    except (OSError, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    try:
        state = LocalState.model_validate_json(text)
    except ValidationError as exc:
        raise _unreadable(path, exc) from exc
    if is_locked(folder) is False or not _accepts_connections(state.aws_endpoint_url):
        raise UsageError(
            f"{path} exists, but the local stack of {folder} is not running. Start it with `make up`, or select a "
            "deployed stack with --stack-name. If you delete the file, commands use the deployed stack by default."
        )
    return state


def is_locked(folder: Path) -> bool | None:
    """Returns whether a local stack holds the lock of this folder; None without a lock file or support for locks."""
    try:
        import fcntl  # not available on Windows, where no local stack runs either
    except ImportError:
        return None
    try:
        with (folder / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        return None
    return False


def _accepts_connections(endpoint_url: str) -> bool:
    address = urlsplit(endpoint_url)
    try:
        with socket.create_connection((address.hostname, address.port), _CONNECT_TIMEOUT_SECONDS):
            return True
    except (OSError, ValueError):  # nothing listens; a port above 65535
        return False


def _unreadable(path: Path, exc: Exception) -> UsageError:
    match exc:
        case OSError():
            reason = str(exc.strerror)
        case ValidationError():
            reason = "; ".join(
                f"{'.'.join(map(str, error['loc'])) or 'document'}: {error['msg']}"
                for error in exc.errors(include_url=False, include_input=False)
            )
        case _:
            reason = str(exc)
    return UsageError(
        f"{path} cannot be read: {reason}. Restart the local stack with `make up`, or select a deployed stack with "
        "--stack-name."
    )
