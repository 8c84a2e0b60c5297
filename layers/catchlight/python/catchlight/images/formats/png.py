"""Parses PNG files: chunks of length, type, data and CRC, from IHDR to IEND (PNG specification, section 5)."""

import zlib

from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError

SIGNATURE = rb"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
# Bits per sample that each color type may have (table 11.1).
_BIT_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}


def read_dimensions(file: BoundedReader) -> tuple[int, int]:
    """Returns width and height after verifying the CRC of every chunk.

    Raises:
        DamagedError, TrailingBytesError: the file is damaged or truncated, or has trailing bytes.
    """
    kinds = set()
    offset, kind = 8, b""
    while kind != b"IEND":
        header = file.read(offset, 8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if not kind.isalpha() or (kind == b"IHDR") != (offset == 8) or (kind == b"IEND" and length):
            raise DamagedError("a chunk is missing")
        checksum_at = offset + 8 + length
        if checksum_at + 4 > file.size:
            raise DamagedError("it ends inside a chunk")
        if _checksum(file, offset + 4, checksum_at) != file.number(checksum_at, 4):
            raise DamagedError(f"the checksum of {kind.decode()} is wrong")
        kinds.add(kind)
        offset = checksum_at + 4
    if b"IDAT" not in kinds:
        raise DamagedError("it has no pixels")
    file.expect_end(offset)
    return _header(file.read(16, 13))


def _checksum(file: BoundedReader, start: int, end: int) -> int:
    checksum = 0
    for _, block in file.blocks(start, end):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _header(data: bytes) -> tuple[int, int]:
    bit_depth, color_type, compression, filtering, interlacing = data[8:]
    if bit_depth not in _BIT_DEPTHS.get(color_type, ()) or compression or filtering or interlacing > 1:
        raise DamagedError("its header is of no kind that exists")
    return int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
