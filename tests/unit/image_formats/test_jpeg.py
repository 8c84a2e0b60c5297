"""JPEG: each kind of marker, and segments with valid and with invalid values."""

import re
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from catchlight.errors import ImageError, ImageTruncatedError, NotAnImageError, UnknownFormatError
from catchlight.images.formats import ImageMetadata, jpeg_scans, read_image_metadata
from catchlight.images.formats.bounded_reader import BLOCK_BYTES, FIRST_BLOCK_BYTES
from tests.unit.image_formats.test_exif import tiff

WIDTH, HEIGHT = 0x0161, 0x0237
START, END = b"\xff\xd8", b"\xff\xd9"
DATA = b"\x12\x34\xff\x00\x56"  # entropy-coded, with a stuffed zero


def segment(kind: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    return bytes([0xFF, kind]) + (len(data) + 2 if length is None else length).to_bytes(2, "big") + data


def frame(kind: int = 0xC0, components: int = 3, *, bits: int = 8, described: int | None = None) -> bytes:
    described = components if described is None else described
    size = HEIGHT.to_bytes(2, "big") + WIDTH.to_bytes(2, "big")
    return segment(kind, bytes([bits]) + size + bytes([components]) + bytes(3 * described))


def scan(components: int = 3, *, described: int | None = None, data: bytes = DATA) -> bytes:
    described = components if described is None else described
    return segment(0xDA, bytes([components]) + bytes(2 * described) + bytes(3)) + data


def tables(*numbers: int, length: int = 65) -> bytes:
    """Quantization tables; the high half of each number is its precision."""
    return segment(0xDB, b"".join(bytes([number]) + bytes(length - 1) for number in numbers))


def read(*parts: bytes, end: bytes = END) -> ImageMetadata:
    data = START + b"".join(parts) + end
    return read_image_metadata(BytesIO(data), len(data))


FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC9: "arithmetic", 0xCA: "progressive arithmetic"}
UNSHOWN_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
TABLES_AND_METADATA = {0xC4, 0xCC, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
# Quantization tables, scans, the end marker, fill bytes and stuffed zeros are handled separately.
OTHERS = set(range(1, 256)) - FRAMES.keys() - UNSHOWN_FRAMES - TABLES_AND_METADATA - WITHOUT_LENGTH
OTHERS -= {0xDB, 0xDA, 0xD9, 0xFF}


@pytest.mark.parametrize("components", [1, 3, 4])
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_that_browsers_show_are_read(kind: int, components: int) -> None:
    facts = read(tables(0), frame(kind, components), scan(components))

    assert facts == ImageMetadata("image/jpeg", WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", sorted(UNSHOWN_FRAMES))
def test_lossless_and_hierarchical_frames_are_refused(kind: int) -> None:
    with pytest.raises(UnknownFormatError, match="lossless or hierarchical"):
        read(frame(kind), scan())


@pytest.mark.parametrize("kind", sorted(TABLES_AND_METADATA))
def test_tables_and_metadata_are_skipped_at_any_position(kind: int) -> None:
    assert read(segment(kind), segment(kind, END), frame(), segment(kind, b"x"), scan(), segment(kind)).width == WIDTH


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_unknown_markers_are_refused(kind: int) -> None:
    with pytest.raises(NotAnImageError, match="a marker is unknown"):
        read(segment(kind, b"x"), frame(), scan())
    with pytest.raises(ImageTruncatedError):
        read(frame(), scan(), segment(kind, b"x"))


@pytest.mark.parametrize(
    "stray", [b"\0", b"\0\1\2abc", b"\xff\0", b"\xff\xff\0ab\xff", *(bytes([0xFF, kind]) for kind in WITHOUT_LENGTH)]
)
def test_stray_bytes_between_segments_are_skipped(stray: bytes) -> None:
    parts = (tables(0), frame(), scan(), segment(0xFE, b"end"))
    for place in range(1, len(parts) + 1):
        assert read(segment(0xFE), *parts[:place], stray, *parts[place:]).width == WIDTH


@pytest.mark.parametrize(
    "parts",
    [
        (frame(), scan(), scan(1), scan(2)),
        (tables(0x03), tables(0x00, 0x01, 0x02), tables(0x10, 0x13, length=129), tables(), frame(), scan()),
        (frame(), scan(data=b"")),
        (frame(), scan(data=b"".join(b"\x01\xff" + bytes([0xD0 + number]) for number in range(8)))),
        (frame(), scan(data=bytes(FIRST_BLOCK_BYTES - 1))),
        (frame(), scan(data=DATA + b"\xff\xff")),
        (frame(), b"\xff\xff\xff", scan()),
    ],
    ids=["scans", "tables", "no data", "restart markers", "data as long as a block", "fill bytes", "more fill bytes"],
)
def test_valid_files_are_read(parts: tuple[bytes, ...]) -> None:
    assert read(*parts).height == HEIGHT


@pytest.mark.parametrize("around", [FIRST_BLOCK_BYTES, 3 * FIRST_BLOCK_BYTES, 3 * BLOCK_BYTES])
@pytest.mark.parametrize("shift", [-2, -1, 0, 1])
def test_a_marker_across_two_blocks_is_found(around: int, shift: int) -> None:
    assert read(frame(), scan(data=bytes(around + shift))).width == WIDTH
    assert read(frame(), scan(data=bytes(around + shift) + b"\xff\x00" + bytes(9))).width == WIDTH


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((frame(), frame(), scan()), "it has two frames"),
        ((scan(), frame()), "a scan header is invalid"),
        ((frame(), scan(3, described=2)), "a scan header is invalid"),
        ((frame(), scan(3, described=4)), "a scan header is invalid"),
        ((frame(),), "it has no pixels"),
        ((tables(0),), "it has no pixels"),
        ((frame(components=0), scan()), "its frame header is invalid"),
        ((frame(components=2), scan()), "its frame header is invalid"),
        ((frame(components=5), scan()), "its frame header is invalid"),
        ((frame(described=2), scan()), "its frame header is invalid"),
        ((frame(described=4), scan()), "its frame header is invalid"),
        ((segment(0xC0, bytes([8, 0, 1, 0, 1])), scan()), "its frame header is invalid"),
        ((tables(0x20, length=193), frame(), scan()), "its tables are invalid"),
        ((tables(0x04), frame(), scan()), "its tables are invalid"),
        ((tables(0x00, length=64), frame(), scan()), "its tables are invalid"),
        ((tables(0x10, length=128), frame(), scan()), "its tables are invalid"),
        ((tables(0x00, length=66), frame(), scan()), "its tables are invalid"),
        ((segment(0xE0, length=1), frame(), scan()), "a segment is shorter than its length"),
        ((segment(0xE0, length=0), frame(), scan()), "a segment is shorter than its length"),
    ],
)
def test_invalid_segments_are_refused(parts: tuple[bytes, ...], reason: str) -> None:
    # A file counts as a JPEG only if a marker follows the signature: here that of a comment.
    with pytest.raises(NotAnImageError, match=f"^not an image: it begins as image/jpeg, but {reason}$"):
        read(segment(0xFE), *parts)


def test_a_file_that_ends_in_a_segment_is_truncated() -> None:
    comment = segment(0xFE, bytes(20))
    with pytest.raises(ImageTruncatedError, match="it ends inside a segment"):
        read(comment[:-1], end=b"")
    with pytest.raises(ImageTruncatedError, match="the end-of-image marker is missing"):
        read(comment, end=b"")
    with pytest.raises(NotAnImageError, match="a marker is missing"):
        read(comment, b"and no more markers", end=b"")


def test_a_scan_without_codes_or_end_is_truncated() -> None:
    with pytest.raises(ImageTruncatedError):
        read(frame(), scan(data=DATA * 300), end=b"")


@pytest.mark.parametrize("bits", [0, 7, 9, 12, 16])
def test_only_frames_of_8_bits_are_accepted(bits: int) -> None:
    with pytest.raises(UnknownFormatError, match=f"a JPEG of {bits} bits"):
        read(frame(bits=bits), scan())


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_a_frame_without_a_size_is_no_image(width: int, height: int) -> None:
    without = segment(0xC0, b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\1" + bytes(3))
    with pytest.raises(ImageError):
        read(without, scan(1))


@pytest.mark.parametrize("more", [b"\0", b"\n", START + END, bytes(100_000)], ids=["zero", "line", "image", "zeros"])
def test_bytes_after_the_end_are_counted(more: bytes) -> None:
    assert read(frame(), scan(), end=END + more).trailing_bytes == len(more)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_that_of_its_exif(order: str) -> None:
    exif = segment(0xE1, b"Exif\0\0" + tiff(8, order=order))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + tiff(3))
    assert read(xmp, exif, frame(), scan()).orientation == 8
    assert read(segment(0xE2, b"Exif\0\0" + tiff(8)), frame(), scan()).orientation is None


# ------------------------------------------------------------------------------------------------ without an end marker


def picture(mode: str = "RGB", size: tuple[int, int] = (41, 35), **options: Any) -> bytes:
    file = BytesIO()
    Pillow.frombytes("L", size, Random(7).randbytes(size[0] * size[1])).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


ENCODINGS: list[dict[str, Any]] = [
    {},
    {"subsampling": 0},
    {"subsampling": 1, "progressive": True},
    {"mode": "L"},
    {"mode": "CMYK", "progressive": True},
    {"progressive": True, "quality": 98},
    {"progressive": True, "quality": 5},
    {"restart_marker_blocks": 3},
    {"restart_marker_blocks": 2, "progressive": True},
    {"optimize": True, "size": (8, 8)},
    {"progressive": True, "size": (1, 1)},
    {"progressive": True, "size": (100, 9)},
]


@pytest.mark.parametrize("options", ENCODINGS, ids=str)
def test_pixels_are_counted_if_the_end_marker_is_missing(options: dict[str, Any]) -> None:
    whole = picture(**options)
    facts = read_image_metadata(BytesIO(whole), len(whole))

    for length in (len(whole) - 1, len(whole) - 2):
        assert read_image_metadata(BytesIO(whole[:length]), length) == facts
    junk = whole[:-2] + b"\xff\x03junk" + END
    assert read_image_metadata(BytesIO(junk), len(junk)).trailing_bytes == 8
    check_lacks_pixels(whole, {*range(len(whole) - 9, len(whole) - 2), *range(31, len(whole) - 9, len(whole) // 16)})


def check_lacks_pixels(whole: bytes, lengths: Iterable[int]) -> None:
    """Checks that a file of each of these lengths is refused. tests/searches/test_cut_files.py tries many more."""
    for length in lengths:
        with pytest.raises(ImageTruncatedError):
            read_image_metadata(BytesIO(whole[:length]), length)


@pytest.mark.parametrize("is_all", [True, False])
def test_without_a_known_length_a_file_needs_its_end_marker(is_all: bool) -> None:
    whole = picture()[:-2]
    if is_all:
        assert read_image_metadata(BytesIO(whole), len(whole), is_all=True).width == 41
    else:
        with pytest.raises(ImageTruncatedError, match="its end is missing"):
            read_image_metadata(BytesIO(whole), len(whole), is_all=False)


def test_a_scan_of_each_component_is_needed() -> None:
    whole = picture(progressive=True)
    scans = [found.start() for found in re.finditer(rb"\xff\xda", whole)]
    assert len(scans) > 5
    for place in scans[1:]:
        with pytest.raises(ImageTruncatedError, match="the end-of-image marker is missing"):
            read_image_metadata(BytesIO(whole[:place]), place)


def test_arithmetic_codes_and_very_many_bytes_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageTruncatedError):
        read(frame(0xC9), scan(), end=b"")
    whole = picture()
    monkeypatch.setattr(jpeg_scans, "MAX_CODED_BYTES", 100)
    with pytest.raises(ImageTruncatedError, match="the end-of-image marker is missing"):
        read_image_metadata(BytesIO(whole[:-2]), len(whole) - 2)


@pytest.mark.parametrize("factors", [0x01, 0x10, 0x00], ids=hex)
@pytest.mark.parametrize("component", [0, 2])
def test_invalid_sampling_factors_are_refused(component: int, factors: int) -> None:
    whole = bytearray(picture())
    at = whole.index(b"\xff\xc0") + 11 + 3 * component
    assert whole[at] in {0x22, 0x11}
    whole[at] = factors
    with pytest.raises(ImageTruncatedError, match="its frame header is invalid"):
        read_image_metadata(BytesIO(whole[:-2]), len(whole) - 2)


@pytest.mark.parametrize("header", [b"", b"\0", b"\0\0\0\0", b"\1\1\0", b"\3\1\0\0\0\0"], ids=repr)
def test_a_scan_header_must_describe_its_components(header: bytes) -> None:
    for more in (b"", END):
        with pytest.raises(NotAnImageError, match="a scan header is invalid"):
            read(frame(), segment(0xDA, header) + DATA, end=more)


def test_tables_and_blocks_take_little_memory() -> None:
    codes = segment(0xC4, b"\0" + b"\xff" * 16 + bytes(255 * 16))  # 255 codes of each length, of which one has two
    huge = segment(0xC2, b"\x08" + b"\xff" * 4 + b"\1\1\x11\0")
    tracemalloc.start()
    try:
        with pytest.raises(ImageTruncatedError, match="its tables are invalid"):
            read(codes, frame(), scan(), end=b"")
        with pytest.raises(ImageTruncatedError, match="the end-of-image marker is missing"):
            read(huge, scan(1), end=b"")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@given(data=st.data(), options=st.sampled_from(ENCODINGS))
def test_damaged_tables_and_scans_raise_only_image_errors(data: st.DataObject, options: dict[str, Any]) -> None:
    whole = bytearray(picture(**options)[:-2])
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(2, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        read_image_metadata(BytesIO(bytes(whole)), len(whole))
