"""What an image is, from its bytes alone: never from a URL's extension or a server's word.

Each module follows one format's own structure from its first byte to its last, so a truncated file is told from a whole
one, and a file that is an image and something else from one that is only an image. None of them decodes pixels.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.formats import avif, gif, jpeg, png, webp
from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError, TrailingBytesError

# 4K output has 8-16 megapixels; a viewer that unpacks 64 needs 256 MB.
MAX_PIXELS = 64_000_000
# Where a connection's end is all that ends a body, one that broke at once leaves a beginning that could be anything.
SIGNATURE_BYTES = 12


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What the bytes say."""

    content_type: str
    extension: str
    width: int  # pixels
    height: int


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """One of those that are archived."""

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
    """What a file is that begins like this; all of it, or its first SIGNATURE_BYTES and more.

    Raises:
        ImageRejectedError: it is no image.
        ImageUnavailableError: it is too short to tell.
    """
    if len(head) < SIGNATURE_BYTES:
        raise ImageUnavailableError(f"only {len(head)} bytes came, too few to tell an image by")
    found = next((candidate for candidate in _FORMATS if candidate.signature.match(head)), None)
    if found is None:
        raise ImageRejectedError("not an image: the bytes are no JPEG, PNG, WebP, GIF or AVIF")
    return found


def read_image_facts(file: BinaryIO, size: int) -> ImageMetadata:
    """Type and dimensions of a whole JPEG, PNG, WebP, GIF or AVIF file of `size` bytes.

    Raises:
        ImageRejectedError: it is none of these or not only one of these, has more than MAX_PIXELS, or too many parts.
        ImageUnavailableError: it begins as one and is cut off or damaged, or is too short to tell.
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
