"""Manages the state folder of a running stack: one stack at a time owns it, and only the owner changes stack.json."""

import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from catchlight.client.local_state import LOCK_FILE, STATE_FILE
from local import LocalStackError

# Name prefixes of the folders that a running stack creates for its functions' runtime and for the objects of its
# bucket.
RUNTIME_PREFIX = "lambda-runtime-"
OBJECTS_PREFIX = "objects-"
# Locking is tried again for a second: a command that checks whether a stack is running holds the lock for a moment.
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.05


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Locks a state folder for one stack and removes stack.json and temporary folders that a killed stack left behind.

    The operating system releases the lock when the process ends, also after SIGKILL. The lock file stays.

    Raises:
        LocalStackError: another stack owns the folder, or it cannot be written.
    """
    try:
        make_private(folder)
        file = open(folder / LOCK_FILE, "a+", encoding="utf-8", opener=private)  # noqa: SIM115
    except OSError as exc:
        raise _unusable(folder, exc) from exc
    with file:
        _lock(folder, file)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        (folder / STATE_FILE).unlink(missing_ok=True)
        for prefix in (RUNTIME_PREFIX, OBJECTS_PREFIX):
            for leftover in folder.glob(f"{prefix}*"):
                shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextmanager
def temporary_folder(folder: Path, prefix: str) -> Iterator[Path]:
    """Creates a folder in the state folder, and deletes it at the end.

    Each stack has a folder of its own, because another running stack may use another version of the runtime. Errors of
    the deletion are ignored, because a sandbox may still write bytecode.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.resolve(), ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextmanager
def published(folder: Path, info: Mapping[str, Any]) -> Iterator[None]:
    """Writes stack.json atomically, and removes it at the end."""
    path, text = folder / STATE_FILE, json.dumps(info, indent=2) + "\n"
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8", opener=private) as file:
        file.write(text)
    temporary.replace(path)
    try:
        yield
    finally:
        # If the folder was deleted and created again by another stack, the file belongs to that stack.
        written = None
        with suppress(OSError):
            written = path.read_text(encoding="utf-8")
        if written == text:
            path.unlink()


def make_private(folder: Path) -> None:
    """Creates a folder that only this user can read, because it will contain the callback token and the logs.

    The mode of an existing folder with other files, such as those of a project, is not changed: the stack's own files
    in it are private in any case.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    # A folder with the sticky bit is shared on purpose, like /tmp.
    is_changeable = found.st_uid == os.getuid() and not found.st_mode & stat.S_ISVTX
    # An older version created the folder readable for all users.
    if is_changeable and all(_is_stack_file(path.name) for path in folder.iterdir()):
        folder.chmod(0o700)


def _is_stack_file(name: str) -> bool:
    return name in (
        LOCK_FILE,
        STATE_FILE,
        "logs",
        "demo",
        "images",
        "rehearsal",
        "thumbnails",
        "gallery.png",
    ) or name.startswith((RUNTIME_PREFIX, OBJECTS_PREFIX))


def private(path: str, flags: int) -> int:
    """Opens a file for which only this user has permissions, also if an older version created it readable for all."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _lock(folder: Path, file: IO[str]) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < _ATTEMPTS - 1:
                time.sleep(_PAUSE_SECONDS)
        except OSError as exc:
            raise _unusable(folder, exc) from exc
        else:
            return
    file.seek(0)
    raise LocalStackError(
        f"A local stack is running with the state folder {folder}: process {file.read().strip() or 'unknown'}, "
        f"{_addresses(folder)}. Use that one, stop it (Ctrl-C where it runs, or `kill` with the process's number), or "
        "choose another folder with --state-dir and another port with --port."
    )


def _addresses(folder: Path) -> str:
    try:
        info = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        return f"API {info['api_url']}, AWS endpoint {info['aws_endpoint_url']}"
    except (OSError, ValueError, KeyError, TypeError):  # the file is written only when the stack has started
        return "which is still starting"


def _unusable(folder: Path, exc: OSError) -> LocalStackError:
    return LocalStackError(
        f"The state folder {folder} cannot be used: {exc.strerror}. Choose another with --state-dir."
    )
