"""Detects image formats and reads dimensions from the bytes alone, never from URL extensions or Content-Type headers.

Each module parses the structure of one format from the first byte to the last. This detects truncated files and files
with trailing bytes, which may be a second file (polyglot). Pixels are not decoded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.formats import avif, gif, jpeg, png, webp
from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError, TrailingBytesError

# 4K output has 8-16 megapixels; decoding 64 megapixels takes 256 MB of memory.
MAX_PIXELS = 64_000_000
# If only the connection's end marks the end of a body, an early disconnect leaves too few bytes to detect a format.
SIGNATURE_BYTES = 12


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """Content type, file extension and dimensions of an image, as read from its bytes."""

    content_type: str
    extension: str
    width: int  # pixels
    height: int


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A supported image format: its signature, its names, and its parser."""

    signature: re.Pattern[bytes]
    content_type: str
    extension: str
    read_dimensions: Callable[[BoundedReader], tuple[int, int]]


_FORMATS = (
    ImageFormat(re.compile(jpeg.SIGNATURE), "image/jpeg", "jpg", jpeg.read_dimensions),
    ImageFormat(re.compile(png.SIGNATURE), "image/png", "png", png.read_dimensions),
    ImageFormat(re.compile(webp.SIGNATURE, re.DOTALL), "image/webp", "webp", webp.read_dimensions),
    ImageFormat(re.compile(gif.SIGNATURE), "image/gif", "gif", gif.read_dimensions),
    ImageFormat(re.compile(avif.SIGNATURE, re.DOTALL), "image/avif", "avif", avif.read_dimensions),
)


def image_format(head: bytes) -> ImageFormat:
    """Returns the format of a file by its first bytes, of which at least SIGNATURE_BYTES are needed.

    Raises:
        ImageRejectedError: the signature is not one of a supported format.
        ImageUnavailableError: there are too few bytes to detect a format.
    """
    if len(head) < SIGNATURE_BYTES:
        raise ImageUnavailableError(f"only {len(head)} bytes came, too few to tell an image by")
    found = next((candidate for candidate in _FORMATS if candidate.signature.match(head)), None)
    if found is None:
        raise ImageRejectedError("not an image: the bytes are no JPEG, PNG, WebP, GIF or AVIF")
    return found


def read_image_facts(file: BinaryIO, size: int) -> ImageMetadata:
    """Validates a JPEG, PNG, WebP, GIF or AVIF file of `size` bytes and returns its type and dimensions.

    Raises:
        ImageRejectedError: the file has another format, trailing bytes, more than MAX_PIXELS, or too many parts.
        ImageUnavailableError: the file is truncated, damaged, or too short to detect its format.
    """
    file.seek(0)
    found = image_format(file.read(32))
    try:
        width, height = found.read_dimensions(BoundedReader(file, size))
    except DamagedError as exc:
        raise ImageUnavailableError(f"the {found.content_type} is not whole: {exc}") from None
    except TrailingBytesError as exc:
        raise ImageRejectedError(f"the {found.content_type} is not only an image: {exc}") from None
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise ImageRejectedError(f"{width} x {height} pixels are not between 1 and {MAX_PIXELS}")
    return ImageMetadata(found.content_type, found.extension, width, height)
