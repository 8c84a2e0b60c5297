"""Detects image formats and reads dimensions from the bytes alone, never from URL extensions or Content-Type headers.

Each module follows the structure of one format from the first byte to the end of the image. This detects truncated
files. Every image that browsers and Pillow show completely is accepted, with any bytes that follow the image's own end.
Pixels are not decoded; if the end is missing, they are counted.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from catchlight.errors import (
    ImageTruncatedError,
    ImageUnavailableError,
    NotAnImageError,
    TooManyPixelsError,
    UnknownFormatError,
)
from catchlight.images.formats import avif, gif, jpeg, png, webp
from catchlight.images.formats.bounded_reader import BoundedReader
from catchlight.images.formats.exif import AS_STORED
from catchlight.images.formats.layout import DamagedError, Layout, TruncatedError, UnsupportedError

# 4K output has 8-16 megapixels; decoding 64 megapixels takes 256 MB of memory.
MAX_PIXELS = 64_000_000
# If only the connection's end marks the end of a body, an early disconnect leaves too few bytes to detect a format.
SIGNATURE_BYTES = 12
# Enough for the longest signature: AVIF's may end at byte 132, after other brands.
HEAD_BYTES = 256
# The number of bytes that are checked for being text, to distinguish a page or script from a part of an image.
TEXT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """Content type and dimensions of an image, as read from its bytes."""

    content_type: str
    width: int  # pixels, as stored, before they are turned and mirrored according to `orientation`
    height: int
    orientation: int | None = None  # EXIF's number from 2 to 8, None if the image is shown as it is stored
    trailing_bytes: int = 0  # bytes of the file after the image's own end


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A supported image format: its signature, its names, and its parser."""

    signature: re.Pattern[bytes]
    content_type: str
    extension: str
    read_layout: Callable[[BoundedReader], Layout]


_FORMATS = (
    ImageFormat(re.compile(jpeg.SIGNATURE), "image/jpeg", "jpg", jpeg.read_layout),
    ImageFormat(re.compile(png.SIGNATURE), "image/png", "png", png.read_layout),
    ImageFormat(re.compile(webp.SIGNATURE, re.DOTALL), "image/webp", "webp", webp.read_layout),
    ImageFormat(re.compile(gif.SIGNATURE), "image/gif", "gif", gif.read_layout),
    ImageFormat(re.compile(avif.SIGNATURE, re.DOTALL), "image/avif", "avif", avif.read_layout),
)
# Formats of pictures and videos that are recognized, but not archived.
_OTHER_FORMATS = {
    "HEIC": rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)",
    "a video": rb"....ftyp|....moov|\x1a\x45\xdf\xa3|RIFF....AVI |\x00\x00\x01\xba",
    "JPEG XL": rb"\xff\x0a|\x00\x00\x00\x0cJXL ",
    "JPEG 2000": rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
    "TIFF": rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+",
    "BMP": rb"BM....\x00\x00\x00\x00",
    "ICO": rb"\x00\x00[\x01\x02]\x00",
    "PSD": rb"8BPS",
    "PNG of Apple's variant CgBI": rb"\x89PNG\r\n\x1a\n\x00\x00\x00\x04CgBI",
    "SVG": rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]",
}
_CONTROL_CHARACTERS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def image_format(head: bytes) -> ImageFormat:
    """Detects the format of a file from its first HEAD_BYTES, of which at least SIGNATURE_BYTES are needed.

    Raises:
        NotAnImageError, UnknownFormatError: the signature is not one of a supported format.
        ImageUnavailableError: there are too few bytes to detect a format.
    """
    if len(head) < SIGNATURE_BYTES:
        raise ImageUnavailableError(f"only {len(head)} bytes arrived, too few to detect an image")
    found = next((candidate for candidate in _FORMATS if candidate.signature.match(head)), None)
    if found:
        return found
    for name, signature in _OTHER_FORMATS.items():
        if re.match(signature, head, re.DOTALL):
            raise UnknownFormatError(f"not an image that is archived: it is {name}")
    raise NotAnImageError("not an image: the bytes are no JPEG, PNG, WebP, GIF or AVIF")


def read_image_metadata(file: BinaryIO, size: int, *, is_all: bool = True) -> ImageMetadata:
    """Validates a JPEG, PNG, WebP, GIF or AVIF file of `size` bytes and returns its metadata.

    Args:
        file: a seekable file.
        size: bytes that have arrived.
        is_all: False if the file may be longer at its host, because only the connection's end marked its end.

    Raises:
        NotAnImageError: the file has no image's signature, or is not an image of this format after the signature.
        UnknownFormatError: the file has a format, or a variant of a format, that is not archived.
        TooManyPixelsError: the image has more than MAX_PIXELS.
        ImageTruncatedError: the image is truncated or damaged.
        ImageUnavailableError: the file is too short to detect its format.
    """
    file.seek(0)
    found = image_format(file.read(HEAD_BYTES))
    reader = BoundedReader(file, size)
    try:
        layout = found.read_layout(reader)
    except UnsupportedError as exc:
        raise UnknownFormatError(f"the {found.content_type} is not archived: {exc}") from None
    except TruncatedError as exc:
        if is_all and exc.at is not None and not reader.has_pixels and _is_text(file, exc.at):
            raise NotAnImageError(f"not an image: it begins as {found.content_type}, but text follows") from None
        raise ImageTruncatedError(f"the {found.content_type} is not whole: {exc}") from None
    except DamagedError as exc:
        if not reader.has_pixels:
            raise NotAnImageError(f"not an image: it begins as {found.content_type}, but {exc}") from None
        raise ImageTruncatedError(f"the {found.content_type} is not whole: {exc}") from None
    if not (is_all or layout.has_end):
        raise ImageTruncatedError(f"the {found.content_type} is not whole: its end is missing")
    width, height = layout.width, layout.height
    if not width or not height:
        raise NotAnImageError(f"not an image: it has {width} x {height} pixels")
    if width * height > MAX_PIXELS or layout.canvas[0] * layout.canvas[1] > MAX_PIXELS:
        width, height = max(width, layout.canvas[0]), max(height, layout.canvas[1])
        raise TooManyPixelsError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
    orientation = layout.orientation if layout.orientation != AS_STORED else None
    return ImageMetadata(found.content_type, width, height, orientation, size - layout.end)


def _is_text(file: BinaryIO, offset: int) -> bool:
    """Returns whether the bytes from `offset` on are text. Parts of images have lengths or names with zero bytes."""
    file.seek(offset)
    text = file.read(TEXT_BYTES)
    return len(text) >= SIGNATURE_BYTES and not _CONTROL_CHARACTERS.search(text)
