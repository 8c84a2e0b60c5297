"""JPEG: every kind of marker, and every rule of its segments at both sides."""

from io import BytesIO

import pytest

from catchlight.errors import ImageError, ImageRejectedError, ImageUnavailableError
from catchlight.images.formats import ImageMetadata, read_image_facts
from catchlight.images.formats.bounded_reader import BLOCK_BYTES, FIRST_BLOCK_BYTES

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
    return read_image_facts(BytesIO(data), len(data))


FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC9: "arithmetic", 0xCA: "progressive arithmetic"}
UNSHOWN_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
TABLES_AND_METADATA = {0xC4, 0xCC, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
# Quantization tables have a shape of their own; a scan, an end and fill bytes are none of these.
OTHERS = set(range(256)) - FRAMES.keys() - UNSHOWN_FRAMES - TABLES_AND_METADATA - {0xDB, 0xDA, 0xD9, 0xFF}


@pytest.mark.parametrize("components", [1, 3, 4])
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_that_browsers_show_are_read(kind: int, components: int) -> None:
    facts = read(tables(0), frame(kind, components), scan(components))

    assert facts == ImageMetadata("image/jpeg", "jpg", WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", sorted(UNSHOWN_FRAMES))
def test_other_frames_are_refused_for_good(kind: int) -> None:
    with pytest.raises(ImageRejectedError, match="lossless or hierarchical"):
        read(frame(kind), scan())


@pytest.mark.parametrize("kind", sorted(TABLES_AND_METADATA))
def test_tables_and_metadata_are_passed_over_wherever_they_stand(kind: int) -> None:
    assert read(segment(kind), segment(kind, END), frame(), segment(kind, b"x"), scan(), segment(kind)).width == WIDTH


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_markers_that_do_not_exist_are_damage(kind: int) -> None:
    with pytest.raises(ImageUnavailableError, match="a marker is none that exists"):
        read(segment(kind, b"x"), frame(), scan())


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
def test_what_an_encoder_may_write_is_read(parts: tuple[bytes, ...]) -> None:
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
        ((scan(), frame()), "a scan is of no kind that exists"),
        ((frame(), scan(3, described=2)), "a scan is of no kind that exists"),
        ((frame(), scan(3, described=4)), "a scan is of no kind that exists"),
        ((frame(),), "it has no pixels"),
        ((tables(0),), "it has no pixels"),
        ((frame(components=0), scan()), "its frame is of no kind that exists"),
        ((frame(components=2), scan()), "its frame is of no kind that exists"),
        ((frame(components=5), scan()), "its frame is of no kind that exists"),
        ((frame(described=2), scan()), "its frame is of no kind that exists"),
        ((frame(described=4), scan()), "its frame is of no kind that exists"),
        ((segment(0xC0, bytes([8, 0, 1, 0, 1])), scan()), "its frame is of no kind that exists"),
        ((tables(0x20, length=193), frame(), scan()), "its tables are of no kind that exists"),
        ((tables(0x04), frame(), scan()), "its tables are of no kind that exists"),
        ((tables(0x00, length=64), frame(), scan()), "its tables are of no kind that exists"),
        ((tables(0x10, length=128), frame(), scan()), "its tables are of no kind that exists"),
        ((tables(0x00, length=66), frame(), scan()), "its tables are of no kind that exists"),
        ((segment(0xE0, length=1), frame(), scan()), "it ends inside a segment"),
        ((segment(0xE0, length=0), frame(), scan()), "it ends inside a segment"),
        ((frame(), scan(), segment(0xFE, b"", length=5)), "it ends inside a segment"),
        ((b"\x00", frame(), scan()), "a marker is missing"),
    ],
)
def test_segments_that_do_not_hold_are_not_whole(parts: tuple[bytes, ...], reason: str) -> None:
    # What follows the signature decides whether it is taken for a JPEG at all: a marker.
    with pytest.raises(ImageUnavailableError, match=f"^the image/jpeg is not whole: {reason}$"):
        read(segment(0xFE), *parts)


def test_a_segment_may_end_where_the_file_does_and_no_byte_later() -> None:
    comment = segment(0xFE, bytes(20))
    with pytest.raises(ImageUnavailableError, match="it ends inside its structure"):
        read(frame(), scan(), comment, end=b"")
    with pytest.raises(ImageUnavailableError, match="it ends inside a segment"):
        read(frame(), scan(), comment[:-1], end=b"")


def test_a_scan_without_an_end_is_not_whole() -> None:
    with pytest.raises(ImageUnavailableError, match="the end-of-image marker is missing"):
        read(frame(), scan(data=DATA * 300), end=b"")


@pytest.mark.parametrize("bits", [0, 7, 9, 12, 16])
def test_only_frames_of_8_bits_are_taken(bits: int) -> None:
    with pytest.raises(ImageRejectedError, match=f"a JPEG of {bits} bits"):
        read(frame(bits=bits), scan())


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_a_frame_without_a_size_is_no_image(width: int, height: int) -> None:
    without = segment(0xC0, b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\1" + bytes(3))
    with pytest.raises(ImageError):
        read(without, scan(1))


def test_a_byte_after_the_end_is_too_much() -> None:
    with pytest.raises(ImageRejectedError, match="not only an image: 1 bytes follow its end"):
        read(frame(), scan(), end=END + b"\0")
