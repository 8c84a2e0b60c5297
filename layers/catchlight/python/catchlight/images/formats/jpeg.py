"""Parses JPEG files: segments and scans between the SOI and EOI markers (ITU-T T.81, annex B)."""

import re
from collections.abc import Iterator

from catchlight.images.formats.bounded_reader import BoundedReader
from catchlight.images.formats.exif import AS_STORED, read_orientation
from catchlight.images.formats.jpeg_scans import (
    HUFFMAN_TABLES,
    RESTART_INTERVAL,
    START_OF_SCAN,
    Segment,
    check_scans,
)
from catchlight.images.formats.layout import DamagedError, Layout, TruncatedError, UnsupportedError

SIGNATURE = rb"\xff\xd8\xff"

# Baseline, extended and progressive, Huffman or arithmetic: supported by browsers and libjpeg (table B.1).
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
_END_OF_IMAGE, _QUANTIZATION_TABLES, _APP1 = 0xD9, 0xDB, 0xE1
_OTHER_SEGMENTS = {HUFFMAN_TABLES, 0xCC, START_OF_SCAN, _QUANTIZATION_TABLES, 0xDC, RESTART_INTERVAL}
_METADATA = {*range(0xE0, 0xF0), 0xFE}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}

# Decoders skip other bytes before a marker. Further FFs may precede it.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# In a scan, FF is followed by a stuffed zero or belongs to a restart marker.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_layout(file: BoundedReader) -> Layout:
    """Follows all segments and scans up to the end-of-image marker.

    Phones append gain maps, second views (Multi-Picture Format) and proprietary data after this marker. If it is not
    reached, the encoded blocks are counted to find out whether the pixels are complete.

    Raises:
        DamagedError, TruncatedError: the file is damaged, or ends before its pixels do.
        UnsupportedError: the file is a variant of JPEG that browsers do not show.
    """
    dimensions: tuple[int, int] | None = None
    orientation, end = AS_STORED, 0
    coding: list[Segment] = []  # the segments that are needed to decode the pixels
    broken: DamagedError | TruncatedError | None = None
    try:
        for segment in _segments(file):
            end = segment.coded_end
            if segment.kind in _START_OF_FRAME:
                if dimensions:
                    raise DamagedError("it has two frames")
                dimensions = _dimensions(segment.data)
            elif segment.kind == START_OF_SCAN:
                described = segment.data[0] if segment.data else 0
                if not dimensions or not described or len(segment.data) != 4 + 2 * described:
                    raise DamagedError("a scan header is invalid")
                file.has_pixels = True
            elif segment.kind == _QUANTIZATION_TABLES:
                _check_quantization_tables(segment.data)
            elif segment.kind == _APP1 and orientation == AS_STORED:
                orientation = _exif_orientation(segment.data)
            if segment.kind not in _METADATA:
                coding.append(segment)
    except (DamagedError, TruncatedError) as exc:
        broken = exc
    if not dimensions or not file.has_pixels:
        raise broken or DamagedError("it has no pixels")
    if broken:
        check_scans(file, coding)
        end = file.size if isinstance(broken, TruncatedError) else end
    return Layout(*dimensions, end, has_end=not broken, orientation=orientation)


def _segments(file: BoundedReader) -> Iterator[Segment]:
    """Yields the segments up to the end-of-image marker.

    Raises:
        DamagedError: a marker or length is invalid.
        TruncatedError: the end-of-image marker is missing.
        UnsupportedError: the file is a variant of JPEG that browsers do not show.
    """
    offset, kind = 2, 0
    while kind != _END_OF_IMAGE:
        marker = _next_marker(file, offset)
        kind, offset = file.number(marker + 1, 1), marker + 2
        if kind == _END_OF_IMAGE:
            yield Segment(kind, b"", offset, offset)
        elif kind in _OTHER_FRAMES:
            raise UnsupportedError("a lossless or hierarchical JPEG")
        elif kind in _START_OF_FRAME | _OTHER_SEGMENTS | _METADATA:
            length = file.number(offset, 2)
            start, end = offset + 2, offset + length
            if length < 2:
                raise DamagedError("a segment is shorter than its length")
            if end > file.size:
                raise TruncatedError("it ends inside a segment", at=offset)
            offset = _end_of_scan(file, end) if kind == START_OF_SCAN else end
            yield Segment(kind, file.read(start, length - 2), end, offset)
        elif kind not in _WITHOUT_LENGTH:
            raise DamagedError("a marker is unknown")


def _next_marker(file: BoundedReader, offset: int) -> int:
    marker = file.find(_MARKER, offset)
    if marker is not None:
        return marker
    if offset < file.size and file.read(offset, 1) != b"\xff":
        raise DamagedError("a marker is missing")
    raise TruncatedError("the end-of-image marker is missing")


def _end_of_scan(file: BoundedReader, offset: int) -> int:
    """Returns the offset of the marker that ends the coded data from `offset` on, or of the end of the file."""
    marker = file.find(_MARKER_AFTER_SCAN, offset)
    return file.size if marker is None else marker


def _dimensions(frame: bytes) -> tuple[int, int]:
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5] or frame[5] not in (1, 3, 4):
        raise DamagedError("its frame header is invalid")
    if frame[0] != 8:
        raise UnsupportedError(f"a JPEG of {frame[0]} bits")
    return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")


def _check_quantization_tables(data: bytes) -> None:
    while data:
        precision, number = divmod(data[0], 16)
        length = 1 + 64 * (precision + 1)
        if precision > 1 or number > 3 or len(data) < length:
            raise DamagedError("its tables are invalid")
        data = data[length:]


def _exif_orientation(data: bytes) -> int:
    # Segments of this kind also contain XMP, with another identifier.
    return read_orientation(data) if data.startswith(b"Exif\0") else AS_STORED
