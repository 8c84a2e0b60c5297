"""Parses PNG files: chunks of length, type, data and CRC, from IHDR to IEND (PNG specification, section 5)."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from catchlight.images.formats.bounded_reader import BLOCK_BYTES, BoundedReader
from catchlight.images.formats.exif import AS_STORED, MAX_EXIF_BYTES, read_orientation
from catchlight.images.formats.layout import DamagedError, Layout, TruncatedError

SIGNATURE = rb"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
# Bits per sample that each color type may have (table 11.1), and the number of its samples.
_BIT_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The passes of interlaced images: first column, first row, distance of columns, distance of rows (section 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_MAX_CHUNK_BYTES = 2**31 - 1
# The pixels of the largest image that is accepted, at 8 bytes each. Inflating them takes a second or two.
MAX_INFLATED_BYTES = 512_000_000


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int  # of the data
    length: int
    is_intact: bool  # False if the CRC is wrong; True if it is cut off


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    bits_per_pixel: int
    is_interlaced: bool

    def inflated_bytes(self) -> int:
        """Returns the size of the decompressed pixels: a filter byte and the samples of each row."""
        passes = _ADAM7 if self.is_interlaced else ((0, 0, 1, 1),)
        sides = (
            (-(-(self.width - left) // across), -(-(self.height - top) // down)) for left, top, across, down in passes
        )
        return sum(height * (1 + -(-width * self.bits_per_pixel // 8)) for width, height in sides if width > 0 < height)


def read_layout(file: BoundedReader) -> Layout:
    """Follows the chunks up to IEND and verifies their CRCs.

    A wrong CRC of an ancillary chunk is ignored, as by browsers. If the CRC of pixels is wrong or IEND is not reached,
    the pixels are decompressed to find out whether they are complete.

    Raises:
        DamagedError, TruncatedError: the file is not a PNG, is damaged, or ends before its pixels do.
    """
    header: _Header | None = None
    pixels: list[_Chunk] = []
    orientation, end, has_end, is_animated = AS_STORED, 8, False, False
    broken: DamagedError | TruncatedError | None = None
    try:
        for chunk in _chunks(file):
            end = chunk.start + chunk.length + 4
            if header is None:
                header = _header(file, chunk)
            match chunk.kind:
                case b"IDAT":
                    pixels.append(chunk)
                    file.has_pixels = True
                case b"acTL":
                    is_animated = True
                case b"eXIf":
                    orientation = read_orientation(file.read(chunk.start, min(chunk.length, MAX_EXIF_BYTES)))
                case b"IEND":
                    has_end = True
                    break
    except (DamagedError, TruncatedError) as exc:
        broken = exc
    if broken and (header is None or not pixels):
        raise broken
    if header is None or not pixels:
        raise DamagedError("it has no pixels")
    if not (has_end and all(chunk.is_intact for chunk in pixels)):
        if is_animated and broken:
            raise broken  # only the first frame could be checked
        _check_pixels(file, header, pixels)
    if isinstance(broken, TruncatedError):
        end = file.size
    return Layout(header.width, header.height, end, has_end, orientation)


def _chunks(file: BoundedReader) -> Iterator[_Chunk]:
    """Yields the complete chunks, and a last one that is cut off if it contains pixels.

    Raises:
        DamagedError: a chunk's header is invalid, or the CRC of a critical chunk is wrong.
        TruncatedError: the file ends inside a chunk, or without IEND.
    """
    offset = 8
    while True:
        header = file.read(offset, 8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        start, checksum_at = offset + 8, offset + 8 + length
        if (kind == b"IHDR") != (offset == 8) or length > _MAX_CHUNK_BYTES:
            raise DamagedError("a chunk header is invalid")
        if checksum_at + 4 > file.size and kind.isalpha():
            if kind == b"IDAT":
                yield _Chunk(kind, start, min(length, file.size - start), is_intact=True)
            raise TruncatedError("it ends inside a chunk", at=offset)
        is_intact = checksum_at + 4 <= file.size and (
            _checksum(file, offset + 4, checksum_at) == file.number(checksum_at, 4)
        )
        if not is_intact and not kind.isalpha():
            raise DamagedError("a chunk header is invalid")
        if not is_intact and kind[:1].isupper() and kind not in (b"IDAT", b"IEND"):
            raise DamagedError(f"the checksum of {kind.decode()} is wrong")
        yield _Chunk(kind, start, length, is_intact)
        offset = checksum_at + 4


def _checksum(file: BoundedReader, start: int, end: int) -> int:
    checksum = 0
    for _, block in file.blocks(start, end):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _header(file: BoundedReader, chunk: _Chunk) -> _Header:
    data = file.read(chunk.start, 13)
    bit_depth, color_type, compression, filtering, interlacing = data[8:]
    if bit_depth not in _BIT_DEPTHS.get(color_type, ()) or compression or filtering or interlacing > 1:
        raise DamagedError("its header is invalid")
    width, height = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    return _Header(width, height, bit_depth * _SAMPLES[color_type], bool(interlacing))


def _check_pixels(file: BoundedReader, header: _Header, chunks: list[_Chunk]) -> None:
    """Decompresses the pixels without keeping them.

    Raises:
        DamagedError: the pixels cannot be decompressed, or neither the CRCs nor the compressed data's own checksum
            confirm them.
        TruncatedError: the pixels are fewer than the header declares, or too many to decompress.
    """
    left = header.inflated_bytes()
    if left > MAX_INFLATED_BYTES:
        raise TruncatedError("the end is missing, and it is too large to count its pixels")
    stream = zlib.decompressobj()
    for chunk in chunks:
        for _, block in file.blocks(chunk.start, chunk.start + chunk.length):
            data = block
            while data and left >= 0 and not stream.eof:
                try:
                    left -= len(stream.decompress(data, BLOCK_BYTES))
                except zlib.error:
                    raise DamagedError("its pixels are damaged") from None
                data = stream.unconsumed_tail
    if left > 0:
        raise TruncatedError("its pixels are not complete")
    if not stream.eof and not all(chunk.is_intact for chunk in chunks):
        raise DamagedError("the checksum of IDAT is wrong")
