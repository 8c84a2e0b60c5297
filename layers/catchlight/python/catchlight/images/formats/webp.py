"""Parses WebP files: RIFF chunks, padded to even length (WebP container, RFC 9649)."""

from collections.abc import Iterator
from dataclasses import dataclass

from catchlight.images.formats.bounded_reader import BoundedReader
from catchlight.images.formats.exif import AS_STORED, MAX_EXIF_BYTES, read_orientation
from catchlight.images.formats.layout import DamagedError, Layout, TruncatedError

SIGNATURE = rb"RIFF....WEBP"
_HAS_ANIMATION = 0x02
_FLAGS = 0x3E


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int
    length: int


def read_layout(file: BoundedReader) -> Layout:
    """Follows the chunks up to the length in the RIFF header, and checks that every frame fits into the canvas.

    Unknown chunks are ignored.

    Raises:
        DamagedError, TruncatedError: the file is damaged or truncated.
    """
    # The length in the RIFF header does not include its own first eight bytes.
    end = 8 + int.from_bytes(file.read(4, 4), "little")
    chunks = list(_chunks(file, 12, end))
    if end > file.size:
        raise TruncatedError("it ends inside its structure")
    if not chunks:
        raise DamagedError("it has no pixels")
    if chunks[0].kind != b"VP8X":
        return Layout(*_bitstream(file, chunks[0]), end)
    header = file.read(chunks[0].start, 10)
    canvas = _plus_one(header[4:7]), _plus_one(header[7:10])
    if header[0] & ~_FLAGS:
        raise DamagedError("its header is invalid")
    if header[0] & _HAS_ANIMATION:
        if not any(chunk.kind == b"ANIM" for chunk in chunks):
            raise DamagedError("its ANIM chunk is missing")
        _check_frames(file, [chunk for chunk in chunks if chunk.kind == b"ANMF"], canvas)
    elif _only_bitstream(file, chunks) != canvas:
        raise DamagedError("its image does not fill its canvas")
    return Layout(*canvas, end, orientation=_orientation(file, chunks))


def _chunks(file: BoundedReader, start: int, end: int) -> Iterator[_Chunk]:
    while start < end:
        header = file.read(start, 8)
        chunk = _Chunk(header[:4], start + 8, int.from_bytes(header[4:], "little"))
        start = chunk.start + chunk.length + chunk.length % 2
        if start > end:
            raise DamagedError("a chunk extends beyond its end")
        if chunk.start + chunk.length > file.size:
            raise TruncatedError("it ends inside a chunk", at=chunk.start - 8)
        file.has_pixels = file.has_pixels or chunk.kind in _BITSTREAMS or chunk.kind == b"ANMF"
        yield chunk


def _check_frames(file: BoundedReader, frames: list[_Chunk], canvas: tuple[int, int]) -> None:
    for frame in frames:
        header = file.read(frame.start, 16)
        left, top = 2 * int.from_bytes(header[:3], "little"), 2 * int.from_bytes(header[3:6], "little")
        size = _plus_one(header[6:9]), _plus_one(header[9:12])
        if left + size[0] > canvas[0] or top + size[1] > canvas[1]:
            raise DamagedError("a frame does not fit into its canvas")
        if _only_bitstream(file, list(_chunks(file, frame.start + 16, frame.start + frame.length))) != size:
            raise DamagedError("an image does not fill its frame")
    if not frames:
        raise DamagedError("it has no pixels")


def _only_bitstream(file: BoundedReader, chunks: list[_Chunk]) -> tuple[int, int]:
    """Returns the dimensions of the only image among these chunks.

    Raises:
        DamagedError: there is no image, or more than one.
    """
    found = [chunk for chunk in chunks if chunk.kind in _BITSTREAMS]
    if len(found) != 1:
        raise DamagedError("it has no pixels, or too many")
    return _bitstream(file, found[0])


def _bitstream(file: BoundedReader, chunk: _Chunk) -> tuple[int, int]:
    read = _BITSTREAMS.get(chunk.kind)
    if read is None:
        raise DamagedError("it has no pixels")
    return read(file, chunk)


def _lossy(file: BoundedReader, chunk: _Chunk) -> tuple[int, int]:
    # Frame tag of three bytes, start code, then width and height of 14 bits each (RFC 6386, 9.1).
    data = file.read(chunk.start, 10)
    tag = int.from_bytes(data[:3], "little")
    is_key_frame, version, is_shown, first_partition = not tag & 1, tag >> 1 & 7, tag >> 4 & 1, tag >> 5
    if not (is_key_frame and is_shown) or version > 3 or first_partition >= chunk.length or data[3:6] != b"\x9d\x01*":
        raise DamagedError("its image header is invalid")
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF


def _lossless(file: BoundedReader, chunk: _Chunk) -> tuple[int, int]:
    # Signature, width - 1 and height - 1 of 14 bits each, alpha flag, version (RFC 9649, 3.4).
    data = file.read(chunk.start, 5)
    bits = int.from_bytes(data[1:], "little")
    if data[0] != 0x2F or bits >> 29:
        raise DamagedError("its image header is invalid")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


_BITSTREAMS = {b"VP8 ": _lossy, b"VP8L": _lossless}


def _orientation(file: BoundedReader, chunks: list[_Chunk]) -> int:
    exif = next((chunk for chunk in chunks if chunk.kind == b"EXIF"), None)
    return read_orientation(file.read(exif.start, min(exif.length, MAX_EXIF_BYTES))) if exif else AS_STORED


def _plus_one(data: bytes) -> int:
    return int.from_bytes(data, "little") + 1
