"""Makes thumbnails of images on this machine and caches them on disk, so that the browser loads few bytes.

Thumbnails need Pillow, an extra of the package (`pip install 'catchlight[gallery]'`). Without it, the page loads the
whole images.
"""

import contextlib
import hashlib
import io
import os
import re
import sys
import tempfile
import threading
from pathlib import Path

try:
    from PIL import Image, ImageOps
except ImportError:
    IS_AVAILABLE = False
else:
    IS_AVAILABLE = True

CONTENT_TYPE = "image/webp"
# A card of the page is 196 to 280 pixels wide.
_SIZE = (280, 280)
_QUALITY = 55  # 4 to 8 kB
# Images of providers have up to 16 million pixels. A file that claims to have more is not decoded.
_MAX_PIXELS = 64_000_000
# Decoding a 4K image takes a hundred megabytes.
_MAX_PARALLEL = 2


def default_folder() -> Path:
    """Returns the folder for caches of this user, as the operating system defines it."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "catchlight" / "thumbnails"


class Thumbnails:
    """A cache of thumbnails in a folder, by the SHA-256 of the image. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._decoding = threading.Semaphore(_MAX_PARALLEL)

    def find(self, sha256: str) -> bytes | None:
        """Returns the cached thumbnail of the image with this checksum; None if there is none."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            return None
        with contextlib.suppress(OSError):
            return self._path(sha256).read_bytes()
        return None

    def make(self, image: bytes) -> bytes | None:
        """Makes the thumbnail of an image and caches it; returns None if the image cannot be decoded."""
        with self._decoding:
            try:
                thumbnail = _reduced(image)
            except Exception:  # noqa: BLE001 - decoders raise many kinds for damaged files; the browser shows the image
                return None
        # The thumbnail is returned even if it cannot be cached: a full disk, a read-only home folder.
        with contextlib.suppress(OSError):
            self._keep(self._path(hashlib.sha256(image).hexdigest()), thumbnail)
        return thumbnail

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}.webp"

    def _keep(self, path: Path, thumbnail: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(thumbnail)
        Path(file.name).replace(path)


def _reduced(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError("the image has too many pixels")
        image.draft("RGB", _SIZE)  # JPEG: decodes a smaller version
        image.thumbnail(_SIZE)
        upright = ImageOps.exif_transpose(image)
        mode = "RGBA" if upright.has_transparency_data else "RGB"
        reduced = io.BytesIO()
        upright.convert(mode).save(reduced, "WEBP", quality=_QUALITY, method=4)
    return reduced.getvalue()
