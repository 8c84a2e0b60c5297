"""Compares what is archived with what decoders show."""

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
from catchlight.images.formats import ImageMetadata, read_image_facts
from tests.differential.samples import Sample

Show = Callable[[Sequence[bytes]], list[str | None]]  # a name for the pixels of each file, None if nothing is shown
_SHOW = """async (files) => Promise.all(files.map(async (text) => {
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


def archived(data: bytes) -> ImageMetadata | None:
    """Returns the metadata of a file that would be archived if it arrived whole by its length."""
    try:
        return read_image_facts(BytesIO(data), len(data))
    except ImageError:
        return None


def pillow(files: Sequence[bytes], *, is_strict: bool = True) -> list[str | None]:
    """Shows files with Pillow; not strictly, the missing end of a file is made up for."""
    return [_pillow(data, is_strict=is_strict) for data in files]


def _pillow(data: bytes, *, is_strict: bool) -> str | None:
    with patch.object(ImageFile, "LOAD_TRUNCATED_IMAGES", new=not is_strict), warnings.catch_warnings(action="ignore"):
        try:
            with Pillow.open(BytesIO(data)) as image:
                return f"{image.size} {hashlib.sha256(image.convert('RGBA').tobytes()).hexdigest()}"
        except Exception:  # noqa: BLE001 - any error means that it does not show the image
            return None


def in_browser(evaluate: Callable[[str, list[str]], list[str | None]]) -> Show:
    """Returns a decoder that shows files with a page's `evaluate`."""

    def show(files: Sequence[bytes]) -> list[str | None]:
        texts = [base64.b64encode(data).decode() for data in files]
        return [name for at in range(0, len(texts), 100) for name in evaluate(_SHOW, texts[at : at + 100])]

    return show


def disagreements(samples: Iterable[Sample], decoders: Sequence[Show], figures: Counter[str]) -> list[str]:
    """Compares files with odd features; all decoders showing the pixels of the plain file means: shown whole."""
    samples = list(samples)
    whole = [all(pair) for pair in zip(*(_same(show, samples) for show in decoders), strict=True)]
    found = []
    for sample, is_shown in zip(samples, whole, strict=True):
        facts = archived(sample.data)
        figures["files"] += 1
        figures["shown whole by all decoders"] += is_shown
        figures["archived"] += facts is not None
        if is_shown and facts is None:
            found.append(f"shown whole, and refused: {sample.name}")
        if facts and sample.trailing_bytes not in (None, facts.trailing_bytes):
            found.append(f"{facts.trailing_bytes} trailing bytes: {sample.name}")
    return found


def _same(show: Show, samples: Sequence[Sample]) -> list[bool]:
    seen, plain = (show([getattr(sample, name) for sample in samples]) for name in ("data", "plain"))
    return [one is not None and one == other for one, other in zip(seen, plain, strict=True)]


def archived_cuts(sample: Sample, figures: Counter[str]) -> list[str]:
    """Compares every prefix of a file: one that is archived must have all pixels."""
    whole = _pillow(sample.plain, is_strict=True)
    found = []
    for length in range(len(sample.data)):
        figures["prefixes"] += 1
        if archived(sample.data[:length]):
            figures["prefixes archived"] += 1
            if _pillow(sample.data[:length], is_strict=False) != whole:
                found.append(f"cut and archived: {length} of {len(sample.data)} bytes of {sample.name}")
    return found
