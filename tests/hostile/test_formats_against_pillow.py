"""Compares the format parsers with Pillow, on generated images and on the same images damaged.

An accepted file has the format and size that Pillow reads, if Pillow opens it. An undamaged file that Pillow verifies
and decodes is accepted, also with trailing bytes. Pillow decodes all pixels of a truncated file that is accepted.

Pillow rejects some damage that browsers ignore, such as a wrong checksum of metadata.
"""

import functools
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from PIL import Image as Pillow
from PIL import ImageFile

from catchlight.errors import ImageError
from catchlight.images.formats import ImageMetadata, read_image_metadata

SEED = 20260106
SIZES = [(1, 1), (2, 3), (16, 16), (17, 31), (64, 48), (255, 256)]
ENCODINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "quality": 95}),
    ("JPEG", "RGB", {"subsampling": 0, "optimize": True}),
    ("JPEG", "L", {"quality": 10}),
    ("JPEG", "CMYK", {"restart_marker_blocks": 1}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {"compress_level": 0}),
    ("PNG", "L", {"optimize": True}),
    ("PNG", "LA", {}),
    ("PNG", "I;16", {}),
    ("PNG", "P", {}),
    ("PNG", "1", {}),
    ("GIF", "P", {}),
    ("GIF", "L", {"interlace": 0}),
    ("GIF", "RGB", {"comment": b"a comment"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"quality": 20}),
    ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    ("AVIF", "RGB", {"speed": 10}),
    ("AVIF", "RGBA", {"speed": 10, "quality": 90}),
    ("AVIF", "L", {"speed": 10, "subsampling": "4:0:0"}),
]
ANIMATED: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("GIF", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("AVIF", {"speed": 10}),
]
FLIPS_PER_IMAGE = 12
TAILS = [b"\x00", b"\r\n", b"<html></html>", b"PK\x05\x06" + bytes(18), bytes(1000)]


class Sample(NamedTuple):
    """An image, complete or damaged."""

    name: str
    format_name: str
    data: bytes


def noise(source: random.Random, mode: str, size: tuple[int, int]) -> Pillow.Image:
    """Returns an image of random pixels, so that encoders use all features."""
    bands = len(Pillow.new(mode, (1, 1)).tobytes())
    length = len(Pillow.new(mode, size).tobytes()) if mode in ("1", "I;16") else size[0] * size[1] * bands
    return Pillow.frombytes(mode, size, source.randbytes(length))


NAMES = [f"{name} {mode} {size} {options}" for name, mode, options in ENCODINGS for size in SIZES]
NAMES += [f"{name} animated {size} {options}" for name, options in ANIMATED for size in SIZES[2:5]]


@functools.cache
def whole_images() -> dict[str, Sample]:
    """Returns the undamaged images by their names."""
    source = random.Random(SEED)
    samples = []
    for format_name, mode, options in ENCODINGS:
        for size in SIZES:
            file = BytesIO()
            noise(source, mode, size).save(file, format_name, **options)
            samples.append((format_name, file.getvalue()))
    for format_name, options in ANIMATED:
        for size in SIZES[2:5]:
            first, *others = (noise(source, "RGB", size) for _ in range(3))
            file = BytesIO()
            first.save(file, format_name, save_all=True, append_images=others, duration=50, **options)
            samples.append((format_name, file.getvalue()))
    return {name: Sample(name, *sample) for name, sample in zip(NAMES, samples, strict=True)}


def damaged_images(whole: Sample) -> Iterator[Sample]:
    """Yields the same image truncated, extended, with bits flipped, and with bytes missing, doubled and replaced."""
    source = random.Random(f"{SEED} {whole.name}")
    data = whole.data

    def damaged(damage: str, result: bytes) -> Sample:
        return Sample(f"{whole.name}, {damage}", whole.format_name, result)

    for length in {len(data) - 1, len(data) - 2, *(source.randrange(len(data)) for _ in range(3))}:
        yield damaged(f"cut off after {length}", data[:length])
    for tail in TAILS:
        yield damaged(f"followed by {tail[:8]!r}", data + tail)
    yield damaged("twice", data + data)
    for number in range(FLIPS_PER_IMAGE):
        # Half of the flips are within the first 200 bytes, which contain most of the structure.
        at = source.randrange(min(len(data), 200) if number % 2 else len(data))
        flipped = data[at] ^ 1 << source.randrange(8)
        yield damaged(f"bit flipped at {at}", data[:at] + bytes([flipped]) + data[at + 1 :])
    start, end = sorted(source.sample(range(len(data)), 2))
    yield damaged(f"without {start}..{end}", data[:start] + data[end:])
    yield damaged(f"with {start}..{end} twice", data[:end] + data[start:])
    yield damaged(f"with zeros in {start}..{end}", data[:start] + bytes(end - start) + data[end:])


def parsed(data: bytes) -> ImageMetadata | None:
    try:
        return read_image_metadata(BytesIO(data), len(data))
    except ImageError:
        return None


def pillow_opens(data: bytes) -> tuple[str | None, tuple[int, int]] | None:
    with warnings.catch_warnings(action="ignore"):
        try:
            with Pillow.open(BytesIO(data)) as image:
                return image.format, image.size
        except Exception:  # noqa: BLE001 - any error means that it does not open the image
            return None


def pillow_decodes(data: bytes) -> bool:
    try:
        with Pillow.open(BytesIO(data)) as image:
            image.verify()
        with Pillow.open(BytesIO(data)) as image:
            image.load()
    except Exception:  # noqa: BLE001 - any error means that it does not decode the image
        return False
    return True


def pillow_pixels(data: bytes) -> bytes | None:
    """Returns the pixels that Pillow decodes from a file that may be truncated."""
    with patch.object(ImageFile, "LOAD_TRUNCATED_IMAGES", new=True), warnings.catch_warnings(action="ignore"):
        try:
            with Pillow.open(BytesIO(data)) as image:
                return image.convert("RGBA").tobytes()
        except Exception:  # noqa: BLE001 - any error means that it does not decode the image
            return None


def test_there_are_many_samples_of_every_format() -> None:
    wholes = whole_images().values()
    damaged = sum(1 for whole in wholes for _ in damaged_images(whole))
    assert len(wholes) >= 140
    assert damaged >= 3000
    assert {whole.format_name for whole in wholes} == {"JPEG", "PNG", "GIF", "WEBP", "AVIF"}


@pytest.mark.parametrize("name", NAMES)
def test_images_that_pillow_decodes_are_accepted(name: str) -> None:
    whole = whole_images()[name]

    assert pillow_decodes(whole.data)

    facts = parsed(whole.data)

    assert facts is not None
    assert pillow_opens(whole.data) == (whole.format_name, (facts.width, facts.height))
    assert facts.content_type == f"image/{whole.format_name.lower()}"


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_accepted_images_have_the_format_and_size_that_pillow_reads(format_name: str) -> None:
    outcomes: Counter[str] = Counter()
    for whole in whole_images().values():
        if whole.format_name != format_name:
            continue
        for sample in damaged_images(whole):
            facts = parsed(sample.data)
            outcomes["accepted" if facts else "rejected"] += 1
            if facts:
                pillow_result = pillow_opens(sample.data)
                outcomes["opened" if pillow_result else "not opened"] += 1
                assert pillow_result == (format_name, (facts.width, facts.height)) or not pillow_result, sample.name
                if "cut off" in sample.name:
                    assert pillow_pixels(sample.data) == pillow_pixels(whole.data), sample.name
            if "followed" in sample.name:
                assert facts, sample.name
                assert facts.trailing_bytes == len(sample.data) - len(whole.data), sample.name
    assert outcomes["rejected"] > 150
    assert outcomes["not opened"] <= 0.1 * outcomes["accepted"], outcomes
