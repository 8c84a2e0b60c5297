"""Reads parts of a file, with a limit on the number of reads."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from catchlight.images.formats.layout import TruncatedError, UnsupportedError

# A GIF of 25 MiB has 100,000 blocks; other formats have fewer parts. Without this limit, a file of empty parts would
# take 15 s to parse.
MAX_PARTS = 200_000
FIRST_BLOCK_BYTES = 1024
BLOCK_BYTES = 256 * 1024


class BoundedReader:
    """Reads a file of known size, at most MAX_PARTS times."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = MAX_PARTS
        self.size = size
        # Set by a parser at the first encoded pixels. If the structure is damaged before, the file is not an image.
        self.has_pixels = False

    def read(self, offset: int, length: int) -> bytes:
        """Returns exactly `length` bytes at `offset`.

        Raises:
            TruncatedError: the file ends earlier.
            UnsupportedError: there were more than MAX_PARTS reads.
        """
        self._left -= 1
        if self._left < 0:
            raise UnsupportedError(f"it has more than {MAX_PARTS} parts")
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise TruncatedError("it ends inside its structure", at=offset)
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

    def find(self, pattern: re.Pattern[bytes], offset: int) -> int | None:
        """Returns the offset of the first match, from `offset` on, of a pattern of two bytes; None without a match."""
        last = b""
        for at, block in self.blocks(offset, self.size):
            if found := pattern.search(last + block):
                return at - len(last) + found.start()
            last = block[-1:]
        return None
