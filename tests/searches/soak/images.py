"""Generates small valid images with unique content, and their expected metadata."""

import hashlib
import io
import random
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

from PIL import Image

from tests.searches.soak.plans import ImagePlan, TaskPlan

SIZES = ((12, 8), (24, 24), (40, 30))
# An HTML page, which a provider may send instead of an image.
PAGE = b"<!doctype html><html><title>Sign in</title></html>\n"
PAGE_SHA256 = hashlib.sha256(PAGE).hexdigest()
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True, slots=True)
class ExpectedImage:
    """The expected object key, SHA-256 and metadata of an archived image."""

    key: str
    kind: str
    sha256: str
    bytes: int
    width: int
    height: int
    content_type: str


def expected_images(plans: Iterable[TaskPlan]) -> dict[str, ExpectedImage]:
    """Returns the expected metadata of all images of the plans, by the paths of their URLs."""
    return {image.path: _expected_image(plan, image) for plan in plans for image in plan.images}


def _expected_image(plan: TaskPlan, image: ImagePlan) -> ExpectedImage:
    content = image_bytes(image)
    width, height = SIZES[_size(image)]
    return ExpectedImage(
        f"images/{plan.provider}/{plan.task_id}/{image.kind}-{image.index}.{_EXTENSIONS[image.format]}",
        image.kind,
        hashlib.sha256(content).hexdigest(),
        len(content),
        width,
        height,
        f"image/{image.format.lower()}",
    )


def image_bytes(plan: ImagePlan) -> bytes:
    """Returns the image at a plan's path: one of nine pictures, made unique by a comment in its metadata."""
    comment = plan.path.encode()
    picture = _picture(plan.format, _size(plan))
    return {"JPEG": _commented_jpeg, "PNG": _commented_png, "WEBP": _commented_webp}[plan.format](picture, comment)


def _size(plan: ImagePlan) -> int:
    return blake2b(plan.path.encode(), digest_size=1).digest()[0] % len(SIZES)


@cache
def _picture(format_name: str, size: int) -> bytes:
    file = io.BytesIO()
    width, height = SIZES[size]
    pixels = random.Random(size).randbytes(width * height * 3)
    Image.frombytes("RGB", (width, height), pixels).save(file, format_name, quality=70)
    return file.getvalue()


def _commented_jpeg(picture: bytes, comment: bytes) -> bytes:
    """Adds a COM segment after the start of the image."""
    return picture[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + picture[2:]


def _commented_png(picture: bytes, comment: bytes) -> bytes:
    """Adds a tEXt chunk after IHDR."""
    body = b"tEXtComment\0" + comment
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    after_header = 8 + 25
    return picture[:after_header] + chunk + picture[after_header:]


def _commented_webp(picture: bytes, comment: bytes) -> bytes:
    """Converts to the extended format, with its one bitstream and an EXIF chunk."""
    (width, height) = Image.open(io.BytesIO(picture)).size
    has_exif = 0x08
    head = bytes((has_exif, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = _riff_chunk(b"VP8X", head) + picture[12:] + _riff_chunk(b"EXIF", comment)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
