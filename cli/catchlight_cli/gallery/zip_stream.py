"""Writes a zip file of images as a stream, without a file on disk or whole images in memory."""

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import IO, cast


class _Buffer:
    """A file object for zipfile. It holds the bytes that were written since the last call of `take`."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, content: bytes) -> int:
        self._written += content
        return len(content)

    def flush(self) -> None:
        """Does nothing; zipfile calls it."""

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def zip_stream(
    files: Iterable[tuple[str, AbstractContextManager[Iterable[bytes]]]], *, now: datetime
) -> Iterator[bytes]:
    """Yields the bytes of a zip file with these files, given as names and contents. Images are not compressed again."""
    buffer = _Buffer()
    with zipfile.ZipFile(cast("IO[bytes]", buffer), "w", zipfile.ZIP_STORED) as archive:  # it needs write and flush
        for name, opened in files:
            info = zipfile.ZipInfo(name, date_time=now.timetuple()[:6])
            with opened as content, archive.open(info, "w", force_zip64=True) as file:
                for chunk in content:
                    file.write(chunk)
                    yield buffer.take()
    yield buffer.take()
