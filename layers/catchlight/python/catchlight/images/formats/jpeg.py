"""Parses JPEG files: segments and scans between the SOI and EOI markers (ITU-T T.81, annex B)."""

import re

from catchlight.errors import ImageRejectedError
from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError

SIGNATURE = rb"\xff\xd8\xff"

# Baseline, extended and progressive, Huffman or arithmetic: supported by browsers and libjpeg (table B.1).
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
_TABLES_AND_METADATA = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
_END_OF_IMAGE, _START_OF_SCAN, _QUANTIZATION_TABLES = 0xD9, 0xDA, 0xDB

# In a scan, FF is followed by a stuffed zero or belongs to a restart marker; further FFs may precede a marker.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_dimensions(file: BoundedReader) -> tuple[int, int]:
    """Returns width and height after parsing all segments and scans up to the end-of-image marker, the file's end.

    Files with bytes after this marker are rejected, even harmless ones: phones append gain maps and second views
    (Multi-Picture Format), but image generators do not, and trailing bytes may be a second file (polyglot).

    Raises:
        DamagedError, TrailingBytesError: the file is damaged or truncated, or has trailing bytes.
        ImageRejectedError: a kind of JPEG that browsers do not support.
    """
    dimensions: tuple[int, int] | None = None
    has_scan = False
    offset = 2
    while True:
        offset = _skip_fill_bytes(file, offset)
        kind = file.read(offset, 1)[0]
        if kind == _END_OF_IMAGE:
            break
        length = file.number(offset + 1, 2)
        end = offset + 1 + length
        if length < 2 or end > file.size:
            raise DamagedError("it ends inside a segment")
        if kind in _START_OF_FRAME:
            if dimensions:
                raise DamagedError("it has two frames")
            dimensions = _frame(file.read(offset + 3, length - 2))
        elif kind in _OTHER_FRAMES:
            raise ImageRejectedError("a lossless or hierarchical JPEG, which hardly anything can show")
        elif kind == _START_OF_SCAN:
            if not dimensions or length != 6 + 2 * file.number(offset + 3, 1):
                raise DamagedError("a scan is of no kind that exists")
            has_scan = True
            end = _end_of_scan(file, end)
        elif kind == _QUANTIZATION_TABLES:
            _check_quantization_tables(file.read(offset + 3, length - 2))
        elif kind not in _TABLES_AND_METADATA:
            raise DamagedError("a marker is none that exists")
        offset = end
    if not dimensions or not has_scan:
        raise DamagedError("it has no pixels")
    file.expect_end(offset + 1)
    return dimensions


def _skip_fill_bytes(file: BoundedReader, offset: int) -> int:
    """Returns the offset of the code of the marker that begins at `offset`, after any fill bytes (FF)."""
    if file.read(offset, 1) != b"\xff":
        raise DamagedError("a marker is missing")
    while file.read(offset, 1) == b"\xff":
        offset += 1
    return offset


def _frame(data: bytes) -> tuple[int, int]:
    if len(data) < 6 or len(data) != 6 + 3 * data[5] or data[5] not in (1, 3, 4):
        raise DamagedError("its frame is of no kind that exists")
    if data[0] != 8:
        raise ImageRejectedError(f"a JPEG of {data[0]} bits, which hardly anything can show")
    return int.from_bytes(data[3:5], "big"), int.from_bytes(data[1:3], "big")


def _check_quantization_tables(data: bytes) -> None:
    while data:
        precision, number = divmod(data[0], 16)
        length = 1 + 64 * (precision + 1)
        if precision > 1 or number > 3 or len(data) < length:
            raise DamagedError("its tables are of no kind that exists")
        data = data[length:]


def _end_of_scan(file: BoundedReader, offset: int) -> int:
    """Returns the offset of the marker that ends the entropy-coded data starting at `offset`."""
    last = b""
    for at, block in file.blocks(offset, file.size):
        if found := _MARKER_AFTER_SCAN.search(last + block):
            return at - len(last) + found.start()
        last = block[-1:]
    raise DamagedError("the end-of-image marker is missing")
