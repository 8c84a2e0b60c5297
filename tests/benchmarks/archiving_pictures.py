"""Pictures of a wanted size, whole by their format."""

import struct
import zlib
from functools import cache
from io import BytesIO
from random import Random

from PIL import Image as Pillow

MEGABYTE = 1024 * 1024


@cache
def picture_of(megabytes: int) -> bytes:
    """A PNG of some bytes less than so many megabytes: noise in a private chunk, in front of its end."""
    file = BytesIO()
    Pillow.linear_gradient("L").save(file, "PNG")
    body = file.getvalue()
    end = body[-12:]  # IEND, which has no content
    noise = Random(megabytes).randbytes(megabytes * MEGABYTE - len(body) - 64)
    kind = b"noIs"
    chunk = struct.pack(">I", len(noise)) + kind + noise + struct.pack(">I", zlib.crc32(kind + noise))
    return body[:-12] + chunk + end
