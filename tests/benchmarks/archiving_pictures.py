"""Generates valid pictures of a given size."""

import struct
import zlib
from functools import cache
from io import BytesIO
from random import Random

from PIL import Image as Pillow

MEGABYTE = 1024 * 1024


@cache
def picture_of(megabytes: int) -> bytes:
    """Returns a PNG slightly smaller than this many megabytes, with noise in a private chunk before its end."""
    file = BytesIO()
    Pillow.linear_gradient("L").save(file, "PNG")
    body = file.getvalue()
    end = body[-12:]  # the IEND chunk, which is empty
    noise = Random(megabytes).randbytes(megabytes * MEGABYTE - len(body) - 64)
    kind = b"noIs"
    chunk = struct.pack(">I", len(noise)) + kind + noise + struct.pack(">I", zlib.crc32(kind + noise))
    return body[:-12] + chunk + end
