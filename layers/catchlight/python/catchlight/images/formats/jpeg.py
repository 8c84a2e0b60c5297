"""JPEG: segments and scans between two markers (ITU-T T.81, annex B)."""

import re

from catchlight.errors import ImageRejectedError
from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError

SIGNATURE = rb"\xff\xd8\xff"

# Baseline, extended and progressive, Huffman or arithmetic: what browsers and libjpeg show (table B.1).
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
_TABLES_AND_METADATA = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
_END_OF_IMAGE, _START_OF_SCAN, _QUANTIZATION_TABLES = 0xD9, 0xDA, 0xDB

# Within a scan FF is followed by a stuffed zero, or by a restart marker; before a marker there may be more FFs.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_dimensions(file: BoundedReader) -> tuple[int, int]:
    """Width and height, once every scan has been followed to the first end-of-image marker, which must be the last.

    Files that go on after it are not taken, harmless ones neither: phones append gain maps and second views
    (Multi-Picture Format), but no image generator does, and what follows an image is where polyglots hide.
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
    """Where the code of the marker that begins here stands."""
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
    """Offset of the marker that ends the entropy-coded data which begins here."""
    last = b""
    for at, block in file.blocks(offset, file.size):
        if found := _MARKER_AFTER_SCAN.search(last + block):
            return at - len(last) + found.start()
        last = block[-1:]
    raise DamagedError("the end-of-image marker is missing")
