"""What an image is, from its bytes alone: never from a URL's extension or a server's word.

Each reader follows the format's own structure from its first byte to its last, so a truncated file is told from a whole
one. None of them decodes pixels.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from image_tasks.errors import ImageRejectedError, ImageUnavailableError

# 4K output has 8-16 megapixels; a viewer that unpacks 64 needs 256 MB.
MAX_PIXELS = 64_000_000
# A GIF of 25 MiB has 100,000 blocks, other formats have fewer. A file of nothing but empty ones would take 15 s.
MAX_PARTS = 200_000


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the bytes say."""

    content_type: str
    extension: str
    width: int  # pixels
    height: int


class TruncatedError(Exception):
    """The structure goes on after the last byte, or ends before it."""


def read_image_facts(file: BinaryIO, size: int) -> ImageFacts:
    """Type and dimensions of a whole JPEG, PNG, WebP, GIF or AVIF file of `size` bytes.

    Raises:
        ImageRejectedError: it is none of these, or has more than MAX_PIXELS or MAX_PARTS.
        ImageUnavailableError: it begins as one and is cut off, or goes on after its end.
    """
    file.seek(0)
    head = file.read(32)
    found = next((candidate for candidate in _FORMATS if candidate.signature.match(head)), None)
    if found is None:
        raise ImageRejectedError("not an image: the bytes are no JPEG, PNG, WebP, GIF or AVIF")
    try:
        width, height = found.read_dimensions(_Parts(file), size)
    except TruncatedError as exc:
        raise ImageUnavailableError(f"the {found.content_type} is not whole: {exc}") from None
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise ImageRejectedError(f"{width} x {height} pixels are not between 1 and {MAX_PIXELS}")
    return ImageFacts(found.content_type, found.extension, width, height)


class _Parts:
    """Reads a file part by part, within limits."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_PARTS

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes."""
        self._left -= 1
        if self._left < 0:
            raise ImageRejectedError(f"it has more than {MAX_PARTS} parts")
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise TruncatedError("it ends inside its structure")
        return data


def _expect_end(offset: int, size: int) -> None:
    if offset != size:
        raise TruncatedError(f"its structure ends at byte {offset} of {size}")


def _png(file: _Parts, size: int) -> tuple[int, int]:
    # Signature, then chunks of length, type, data, CRC; IHDR comes first and IEND last (PNG, section 5).
    dimensions = (0, 0)
    offset = 8
    while True:
        header = file.read(offset, 8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if offset == 8:
            data = file.read(offset + 8, 8)
            dimensions = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:], "big")
        offset += 12 + length
        if kind == b"IEND":
            _expect_end(offset, size)
            return dimensions
        if offset > size:
            raise TruncatedError("it ends inside a chunk")


# Start-of-frame markers carry the dimensions; C4, C8 and CC in their range mean other things (JPEG, table B.1).
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}


def _jpeg(file: _Parts, size: int) -> tuple[int, int]:
    dimensions = (0, 0)
    offset = 2
    while True:
        marker = file.read(offset, 2)
        if marker[0] != 0xFF:
            raise TruncatedError("a marker is missing")
        kind = marker[1]
        if kind == 0xFF:  # fill byte
            offset += 1
            continue
        if kind in _WITHOUT_LENGTH:
            offset += 2
            continue
        if kind in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        length = int.from_bytes(file.read(offset + 2, 2), "big")
        if kind in _START_OF_FRAME:
            frame = file.read(offset + 5, 4)
            dimensions = int.from_bytes(frame[2:], "big"), int.from_bytes(frame[:2], "big")
        offset += 2 + max(length, 2)
    # Entropy-coded data has no length of its own: after it, the file must end with the end-of-image marker.
    if file.read(max(size - 2, 0), 2) != b"\xff\xd9":
        raise TruncatedError("the end-of-image marker is missing")
    return dimensions


def _gif(file: _Parts, size: int) -> tuple[int, int]:
    # A screen, then images and extensions, each ending in sub-blocks, up to the trailer (GIF89a, appendix B).
    screen = file.read(6, 7)
    offset = 13 + _gif_color_table(screen[4])
    while (kind := file.read(offset, 1)) != b"\x3b":
        match kind:
            case b"\x2c":
                descriptor = file.read(offset + 1, 9)
                offset += 11 + _gif_color_table(descriptor[8])  # with the byte before the sub-blocks
            case b"\x21":
                offset += 2
            case _:
                raise TruncatedError("a block is missing")
        while length := file.read(offset, 1)[0]:
            offset += 1 + length
        offset += 1
    _expect_end(offset + 1, size)
    return int.from_bytes(screen[:2], "little"), int.from_bytes(screen[2:4], "little")


def _gif_color_table(flags: int) -> int:
    """Bytes of the color table that follows these flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp(file: _Parts, size: int) -> tuple[int, int]:
    # RIFF counts the bytes after its first eight; chunks are padded to even length (WebP container specification).
    head = file.read(0, 30)
    _expect_end(8 + int.from_bytes(head[4:8], "little"), size)
    match head[12:16]:
        case b"VP8 ":
            return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case _:
            raise TruncatedError("its first chunk is none of WebP's")


def _avif(file: _Parts, size: int) -> tuple[int, int]:
    # Boxes of size and type up to the end; dimensions in meta/iprp/ipco/ispe (ISO/IEC 23008-12, 6.5.3).
    boxes = dict(_boxes(file, 0, size))
    if not {b"meta", b"mdat"} <= boxes.keys():
        raise TruncatedError("a box is missing")
    start, end = boxes[b"meta"]
    start += 4  # version and flags
    for name in (b"iprp", b"ipco"):
        start, end = dict(_boxes(file, start, end)).get(name, (0, 0))
    sizes = [file.read(at + 4, 8) for name, (at, _) in _boxes(file, start, end) if name == b"ispe"]
    # A grid has one of these per tile and one for the whole.
    return max(((int.from_bytes(s[:4], "big"), int.from_bytes(s[4:], "big")) for s in sizes), default=(0, 0))


def _boxes(file: _Parts, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Type and extent of the content of each box between two offsets, which they must fill."""
    while start < end:
        header = file.read(start, 8)
        length, content = int.from_bytes(header[:4], "big"), start + 8
        if length == 1:
            length, content = int.from_bytes(file.read(content, 8), "big"), content + 8
        elif length == 0 and header[4:] == b"mdat":  # up to the end; zeros without a type are a hole in the file
            length = end - start
        if length < content - start or start + length > end:
            raise TruncatedError("a box goes on after the end")
        yield header[4:], (content, start + length)
        start += length


@dataclass(frozen=True, slots=True)
class _Format:
    signature: re.Pattern[bytes]
    content_type: str
    extension: str
    read_dimensions: Callable[[_Parts, int], tuple[int, int]]


_AVIF_BRANDS = rb"....ftyp(?:avif|avis)|....ftyp(?:mif1|msf1)....avif"
_FORMATS = (
    _Format(re.compile(rb"\xff\xd8\xff"), "image/jpeg", "jpg", _jpeg),
    _Format(re.compile(rb"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "image/png", "png", _png),
    _Format(re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp", "webp", _webp),
    _Format(re.compile(rb"GIF8[79]a"), "image/gif", "gif", _gif),
    _Format(re.compile(_AVIF_BRANDS, re.DOTALL), "image/avif", "avif", _avif),
)
