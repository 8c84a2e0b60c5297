"""Reads a file part by part: within limits, and never more of it at once than a block."""

from collections.abc import Iterator
from typing import BinaryIO

from catchlight.errors import ImageRejectedError

# A GIF of 25 MiB has 100,000 blocks, other formats have fewer parts. A file of nothing but empty ones would take 15 s.
MAX_PARTS = 200_000
FIRST_BLOCK_BYTES = 1024
BLOCK_BYTES = 256 * 1024


class DamagedError(Exception):
    """The structure is broken, or goes on after the last byte."""


class TrailingBytesError(Exception):
    """The file goes on after the image's end."""


class BoundedReader:
    """A file of known size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = MAX_PARTS
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes.

        Raises:
            DamagedError: the file ends before.
            ImageRejectedError: more than MAX_PARTS were asked for.
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
        """An unsigned big-endian number of so many bytes."""
        return int.from_bytes(self.read(offset, length), "big")

    def blocks(self, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Everything between two offsets, in blocks with their offsets: small ones first, for those who soon stop."""
        length = FIRST_BLOCK_BYTES
        while offset < end:
            block = self.read(offset, min(length, end - offset))
            yield offset, block
            offset += len(block)
            length = min(2 * length, BLOCK_BYTES)

    def expect_end(self, offset: int) -> None:
        """The image ends here, and so must the file: what follows is a second file in the first one's clothes.

        Raises:
            DamagedError, TrailingBytesError: the file is shorter or longer.
        """
        if offset > self.size:
            raise DamagedError("it ends inside its structure")
        if offset < self.size:
            raise TrailingBytesError(f"{self.size - offset} bytes follow its end")
