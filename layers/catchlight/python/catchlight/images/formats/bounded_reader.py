"""Reads parts of a file, with limits on the number of reads and on the size of a block."""

from collections.abc import Iterator
from typing import BinaryIO

from catchlight.errors import ImageRejectedError

# A GIF of 25 MiB has 100,000 blocks; other formats have fewer parts. A file of empty parts only would take 15 s to
# parse without this limit.
MAX_PARTS = 200_000
FIRST_BLOCK_BYTES = 1024
BLOCK_BYTES = 256 * 1024


class DamagedError(Exception):
    """The structure is broken, or the file ends before its structure does."""


class TrailingBytesError(Exception):
    """The file has further bytes after the image's end."""


class BoundedReader:
    """Reads a file of known size, at most MAX_PARTS times."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = MAX_PARTS
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Returns exactly `length` bytes at `offset`.

        Raises:
            DamagedError: the file ends before that.
            ImageRejectedError: there were more than MAX_PARTS reads.
        """
        self._left -= 1
        if self._left < 0:
            raise ImageRejectedError(f"it has more than {MAX_PARTS} parts")
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise DamagedError("it ends inside its structure")
        return data

    def number(self, offset: int, length: int) -> int:
        """Returns the unsigned big-endian number of `length` bytes at `offset`."""
        return int.from_bytes(self.read(offset, length), "big")

    def blocks(self, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yields the bytes between two offsets as (offset, block).

        The first blocks are small, for callers that stop early.
        """
        length = FIRST_BLOCK_BYTES
        while offset < end:
            block = self.read(offset, min(length, end - offset))
            yield offset, block
            offset += len(block)
            length = min(2 * length, BLOCK_BYTES)

    def expect_end(self, offset: int) -> None:
        """Checks that the file ends at `offset`, where the image ends. Trailing bytes may be a second file (polyglot).

        Raises:
            DamagedError: the file is shorter.
            TrailingBytesError: the file is longer.
        """
        if offset > self.size:
            raise DamagedError("it ends inside its structure")
        if offset < self.size:
            raise TrailingBytesError(f"{self.size - offset} bytes follow its end")
