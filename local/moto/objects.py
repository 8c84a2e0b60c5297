"""Stores the content of S3 objects in files, because moto's memory would grow with each image that a stack stores."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from moto.s3 import models

from local.state_dir import private


class ObjectFile:
    """The content of one object, with those methods of a file object that moto calls.

    The file is open only during a call, because the number of file descriptors per process is limited.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / uuid.uuid4().hex
        self._position = 0

    def seek(self, position: int) -> None:
        self._position = position

    def truncate(self) -> None:
        """Removes all bytes after the current position."""
        with open(self._path, "ab", opener=private) as file:
            file.truncate(self._position)

    def write(self, content: bytes) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._position)
            file.write(content)
        self._position += len(content)

    def read(self, size: int = -1) -> bytes:
        """Reads bytes from the current position.

        Raises:
            ValueError: the object was deleted; a closed file object raises the same.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                content = file.read(size)
        except FileNotFoundError as exc:
            raise ValueError("the object was deleted") from exc
        self._position += len(content)
        return content

    def close(self) -> None:
        """Deletes the file: moto closes the content of deleted objects, and of all objects at the end."""
        self._path.unlink(missing_ok=True)


@contextmanager
def objects_in_files(folder: Path) -> Iterator[None]:
    """Makes moto store the content of objects in files of the folder, until the end of the block."""
    files = SimpleNamespace(SpooledTemporaryFile=lambda *_, **__: ObjectFile(folder))
    with mock.patch.object(models, "tempfile", files):
        yield
