"""Compares the files that the archiver accepts with the files that decoders can decode."""

import base64
import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from unittest.mock import patch

from PIL import Image as Pillow
from PIL import ImageFile

from catchlight.errors import ImageError
from catchlight.images.formats import ImageMetadata, read_image_metadata
from tests.differential.samples import Sample

# Returns a digest of the pixels of each file, or None if the file cannot be decoded.
Decoder = Callable[[Sequence[bytes]], list[str | None]]
_DECODE = """async (files) => Promise.all(files.map(async (text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes]));
  try {
    const image = new Image();
    image.style.imageOrientation = "none";
    image.src = url;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
    canvas.drawImage(image, 0, 0);
    const pixels = canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", pixels));
    return `${image.naturalWidth} ${image.naturalHeight} ${digest}`;
  } catch { return null; } finally { URL.revokeObjectURL(url); }
}))"""


def accepted(data: bytes) -> ImageMetadata | None:
    """Returns the metadata of a file if the archiver would accept it as a complete body."""
    try:
        return read_image_metadata(BytesIO(data), len(data))
    except ImageError:
        return None


def pillow(files: Sequence[bytes], *, is_strict: bool = True) -> list[str | None]:
    """Decodes files with Pillow; unless strict, it fills in the missing end of truncated files."""
    return [_pillow(data, is_strict=is_strict) for data in files]


def _pillow(data: bytes, *, is_strict: bool) -> str | None:
    with patch.object(ImageFile, "LOAD_TRUNCATED_IMAGES", new=not is_strict), warnings.catch_warnings(action="ignore"):
        try:
            with Pillow.open(BytesIO(data)) as image:
                return f"{image.size} {hashlib.sha256(image.convert('RGBA').tobytes()).hexdigest()}"
        except Exception:  # noqa: BLE001 - any error means that it does not decode the image
            return None


def in_browser(evaluate: Callable[[str, list[str]], list[str | None]]) -> Decoder:
    """Returns a decoder that runs in a browser page, through the page's `evaluate`."""

    def decode(files: Sequence[bytes]) -> list[str | None]:
        texts = [base64.b64encode(data).decode() for data in files]
        return [digest for at in range(0, len(texts), 100) for digest in evaluate(_DECODE, texts[at : at + 100])]

    return decode


def disagreements(samples: Iterable[Sample], decoders: Sequence[Decoder], figures: Counter[str]) -> list[str]:
    """Returns descriptions of the files that the archiver handles wrongly, and counts all files in `figures`.

    These are rejected files that all decoders decode to the pixels of the plain file, and accepted files with a wrong
    number of trailing bytes.
    """
    samples = list(samples)
    is_decoded = [all(pair) for pair in zip(*(_same(decode, samples) for decode in decoders), strict=True)]
    found = []
    for sample, is_complete in zip(samples, is_decoded, strict=True):
        facts = accepted(sample.data)
        figures["files"] += 1
        figures["decoded completely by all decoders"] += is_complete
        figures["accepted"] += facts is not None
        if is_complete and facts is None:
            found.append(f"decoded completely by all decoders, but rejected: {sample.name}")
        if facts and sample.trailing_bytes not in (None, facts.trailing_bytes):
            found.append(f"{facts.trailing_bytes} trailing bytes instead of {sample.trailing_bytes}: {sample.name}")
    return found


def _same(decode: Decoder, samples: Sequence[Sample]) -> list[bool]:
    decoded, plain = (decode([getattr(sample, name) for sample in samples]) for name in ("data", "plain"))
    return [one is not None and one == other for one, other in zip(decoded, plain, strict=True)]


def accepted_prefixes(sample: Sample, figures: Counter[str]) -> list[str]:
    """Returns descriptions of the prefixes of a file that the archiver accepts although they lack pixels."""
    pixels = _pillow(sample.plain, is_strict=True)
    found = []
    for length in range(len(sample.data)):
        figures["prefixes"] += 1
        if accepted(sample.data[:length]):
            figures["prefixes accepted"] += 1
            if _pillow(sample.data[:length], is_strict=False) != pixels:
                found.append(f"without all pixels, but accepted: {length} of {len(sample.data)} bytes of {sample.name}")
    return found
