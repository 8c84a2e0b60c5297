"""Parses WebP files: RIFF chunks that fill the file, padded to even length (WebP container, RFC 9649)."""

from collections.abc import Iterator
from dataclasses import dataclass

from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError

SIGNATURE = rb"RIFF....WEBP"
_HAS_ANIMATION = 0x02
_FLAGS = 0x3E


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int
    length: int


def read_dimensions(file: BoundedReader) -> tuple[int, int]:
    """Returns width and height of the canvas after checking that every frame fits into it.

    Raises:
        DamagedError, TrailingBytesError: the file is damaged or truncated, or has trailing bytes.
    """
    # RIFF counts the bytes after its first eight.
    file.expect_end(8 + int.from_bytes(file.read(4, 4), "little"))
    chunks = list(_chunks(file, 12, file.size))
    if not chunks or chunks[0].kind != b"VP8X":
        (dimensions,) = _bitstreams(file, chunks)
        if len(chunks) > 1:
            raise DamagedError("chunks follow the only one of a simple file")
        return dimensions
    header = file.read(chunks[0].start, 10)
    canvas = _plus_one(header[4:7]), _plus_one(header[7:10])
    if header[0] & ~_FLAGS:
        raise DamagedError("its header is of no kind that exists")
    if header[0] & _HAS_ANIMATION:
        if not any(chunk.kind == b"ANIM" for chunk in chunks):
            raise DamagedError("a chunk is missing")
        _check_frames(file, [chunk for chunk in chunks if chunk.kind == b"ANMF"], canvas)
    elif _bitstreams(file, chunks) != [canvas]:
        raise DamagedError("its image does not fill its canvas")
    return canvas


def _chunks(file: BoundedReader, start: int, end: int) -> Iterator[_Chunk]:
    while start < end:
        header = file.read(start, 8)
        chunk = _Chunk(header[:4], start + 8, int.from_bytes(header[4:], "little"))
        start = chunk.start + chunk.length + chunk.length % 2
        if start > end:
            raise DamagedError("a chunk goes on after the end")
        yield chunk


def _check_frames(file: BoundedReader, frames: list[_Chunk], canvas: tuple[int, int]) -> None:
    for frame in frames:
        header = file.read(frame.start, 16)
        left, top = 2 * int.from_bytes(header[:3], "little"), 2 * int.from_bytes(header[3:6], "little")
        size = _plus_one(header[6:9]), _plus_one(header[9:12])
        if left + size[0] > canvas[0] or top + size[1] > canvas[1]:
            raise DamagedError("a frame does not fit into its canvas")
        if _bitstreams(file, list(_chunks(file, frame.start + 16, frame.start + frame.length))) != [size]:
            raise DamagedError("an image does not fill its frame")
    if not frames:
        raise DamagedError("it has no pixels")


def _bitstreams(file: BoundedReader, chunks: list[_Chunk]) -> list[tuple[int, int]]:
    """Returns the dimensions of the only image among these chunks, as a list with one element.

    Raises:
        DamagedError: there is no image, or more than one.
    """
    readers = {b"VP8 ": _lossy, b"VP8L": _lossless}
    found = [readers[chunk.kind](file, chunk) for chunk in chunks if chunk.kind in readers]
    if len(found) != 1:
        raise DamagedError("it has no pixels, or too many")
    return found


def _lossy(file: BoundedReader, chunk: _Chunk) -> tuple[int, int]:
    # Frame tag of three bytes, start code, then width and height of 14 bits each (RFC 6386, 9.1).
    data = file.read(chunk.start, 10)
    tag = int.from_bytes(data[:3], "little")
    is_key_frame, version, is_shown, first_partition = not tag & 1, tag >> 1 & 7, tag >> 4 & 1, tag >> 5
    if not (is_key_frame and is_shown) or version > 3 or first_partition >= chunk.length or data[3:6] != b"\x9d\x01*":
        raise DamagedError("its image is of no kind that exists")
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF


def _lossless(file: BoundedReader, chunk: _Chunk) -> tuple[int, int]:
    # Signature, width - 1 and height - 1 of 14 bits each, alpha flag, version (RFC 9649, 3.4).
    data = file.read(chunk.start, 5)
    bits = int.from_bytes(data[1:], "little")
    if data[0] != 0x2F or bits >> 29:
        raise DamagedError("its image is of no kind that exists")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _plus_one(data: bytes) -> int:
    return int.from_bytes(data, "little") + 1
