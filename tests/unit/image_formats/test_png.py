"""PNG: every combination of color type and bit depth, and chunks with valid and with invalid values."""

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest

from catchlight.errors import ImageTruncatedError, NotAnImageError
from catchlight.images.formats import ImageMetadata, read_image_metadata
from tests.unit.image_formats.test_exif import tiff

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Table 11.1 of the specification: color type, then the bits per sample that it may have.
BIT_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def chunk(kind: bytes, data: bytes = b"", *, length: int | None = None, checksum: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data) if length is None else length)
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data) if checksum is None else checksum)
    )


def header(
    width: int = 61, height: int = 37, depth: int = 8, color: int = 2, *, rest: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, *rest))


PIXELS, END = chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND")


def read(*chunks: bytes) -> ImageMetadata:
    data = SIGNATURE + b"".join(chunks)
    return read_image_metadata(BytesIO(data), len(data))


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 32])
@pytest.mark.parametrize("color", range(8))
def test_color_types_have_the_bit_depths_of_the_specification(color: int, depth: int) -> None:
    if depth in BIT_DEPTHS.get(color, ()):
        assert read(header(depth=depth, color=color), PIXELS, END) == ImageMetadata("image/png", 61, 37)
    else:
        with pytest.raises(NotAnImageError, match="its header is invalid"):
            read(header(depth=depth, color=color), PIXELS, END)


@pytest.mark.parametrize(
    ("rest", "exists"),
    [((0, 0, 0), True), ((0, 0, 1), True), ((1, 0, 0), False), ((0, 1, 0), False), ((0, 0, 2), False)],
    ids=["not interlaced", "interlaced", "compression 1", "filter 1", "interlacing 2"],
)
def test_methods_are_those_of_the_specification(rest: tuple[int, int, int], exists: bool) -> None:
    if exists:
        assert read(header(rest=rest), PIXELS, END).width == 61
    else:
        with pytest.raises(NotAnImageError, match="its header is invalid"):
            read(header(rest=rest), PIXELS, END)


@pytest.mark.parametrize(
    "chunks",
    [
        (chunk(b"PLTE", bytes(3)), PIXELS, PIXELS, chunk(b"tEXt", b"words")),
        (chunk(b"tEXt"), PIXELS),
        (PIXELS, chunk(b"aaAA", bytes(300_000))),
    ],
    ids=["several", "an empty one", "a long one"],
)
def test_other_chunks_are_skipped(chunks: tuple[bytes, ...]) -> None:
    assert read(header(), *chunks, END).height == 37


# Two rows of a filter byte and three pixels of one byte each.
ROWS = zlib.compress(bytes(4 * 2))
SMALL, DATA = header(3, 2, color=0), chunk(b"IDAT", ROWS)


@pytest.mark.parametrize(
    "chunks",
    [
        (DATA, chunk(b"tEXt", b"words", checksum=0), END),
        (chunk(b"gAMA", bytes(4), checksum=0), DATA, END),
        (chunk(b"ab1d", b"an invalid name"), DATA, END),
        (chunk(b"IDAT", ROWS, checksum=0), END),
        (chunk(b"IDAT", ROWS[:5]), chunk(b"IDAT"), chunk(b"IDAT", ROWS[5:], checksum=0), END),
        (DATA, chunk(b"IEND", checksum=0)),
        (DATA, chunk(b"IEND", b"x")),
        (DATA,),
        (DATA, END[:-1]),
        (DATA, END[:3]),
        (DATA[:-1],),
        (DATA[:-6],),  # without the CRC, and with half of the checksum inside
        (DATA, chunk(b"tEXt", b"words")[:-7]),
        (chunk(b"IDAT", ROWS + b"more"),),
    ],
)
def test_files_that_browsers_show_completely_are_accepted(chunks: tuple[bytes, ...]) -> None:
    assert read(SMALL, *chunks) == ImageMetadata("image/png", 3, 2)


@pytest.mark.parametrize("junk", [b"\0", bytes(9), b"<html></html>"])
def test_pixels_are_counted_if_something_else_follows_them(junk: bytes) -> None:
    facts = read(SMALL, DATA, junk, END)

    assert facts.trailing_bytes == len(junk) + len(END)


@pytest.mark.parametrize(
    ("rest", "data"),
    [((0, 0, 0), 37 * (1 + 61 * 3)), ((0, 0, 1), 5 * 25 + 5 * 25 + 5 * 49 + 10 * 46 + 9 * 94 + 19 * 91 + 18 * 184)],
    ids=["not interlaced", "interlaced"],
)
def test_all_rows_are_needed(rest: tuple[int, int, int], data: int) -> None:
    assert read(header(rest=rest), chunk(b"IDAT", zlib.compress(bytes(data)))).width == 61
    with pytest.raises(ImageTruncatedError, match="its pixels are not complete"):
        read(header(rest=rest), chunk(b"IDAT", zlib.compress(bytes(data - 1))))


def test_a_decompression_bomb_is_inflated_to_the_size_of_the_image_only() -> None:
    bomb = chunk(b"IDAT", zlib.compress(bytes(50_000_000)))
    tracemalloc.start()
    try:
        assert read(SMALL, bomb).width == 3
        with pytest.raises(ImageTruncatedError, match="too large to count"):
            read(header(2**31 - 1, 2**31 - 1), bomb)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_an_animation_without_iend_is_truncated() -> None:
    animation = chunk(b"acTL", bytes(8))
    assert read(SMALL, animation, DATA, END).width == 3
    with pytest.raises(ImageTruncatedError):
        read(SMALL, animation, DATA)


@pytest.mark.parametrize(
    ("chunks", "error", "reason"),
    [
        ((header(), header(), PIXELS, END), NotAnImageError, "a chunk header is invalid"),
        ((header(), chunk(b"ID4T", checksum=0), PIXELS, END), NotAnImageError, "a chunk header is invalid"),
        ((header(), chunk(b"    ", length=2**20), PIXELS, END), NotAnImageError, "a chunk header is invalid"),
        ((header(), chunk(b"IDAT", length=2**31), END), NotAnImageError, "a chunk header is invalid"),
        ((header(), chunk(b"PLTE", bytes(3), checksum=0), PIXELS, END), NotAnImageError, "checksum of PLTE"),
        ((header(), END), NotAnImageError, "it has no pixels"),
        ((header(), PIXELS), ImageTruncatedError, "its pixels are not complete"),
        ((header(), chunk(b"tEXt", b"abcd", length=21)), ImageTruncatedError, "it ends inside a chunk"),
        ((header(), chunk(b"IDAT", b"abcd", length=21)[:-4], END), ImageTruncatedError, "its pixels are damaged"),
        ((header(), chunk(b"IDAT", b"abcd", checksum=0), END), ImageTruncatedError, "its pixels are damaged"),
        ((SMALL, chunk(b"IDAT", ROWS[:-1], checksum=0), END), ImageTruncatedError, "the checksum of IDAT is wrong"),
        ((SMALL, chunk(b"IDAT", ROWS[:-1] + b"x", checksum=0), END), ImageTruncatedError, "its pixels are damaged"),
    ],
)  # fmt: skip
def test_invalid_chunks_are_refused(chunks: tuple[bytes, ...], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=f"image/png.* {reason}"):
        read(*chunks)


def test_bytes_after_the_last_chunk_are_counted() -> None:
    assert read(header(), PIXELS, END).trailing_bytes == 0
    assert read(header(), PIXELS, END, b"\0").trailing_bytes == 1
    assert read(header(), PIXELS, END, END).trailing_bytes == 12


@pytest.mark.parametrize("before", [True, False])
def test_the_orientation_is_that_of_its_exif(before: bool) -> None:
    exif = chunk(b"eXIf", tiff(6))
    chunks = (exif, PIXELS) if before else (PIXELS, exif)

    assert read(header(), *chunks, END).orientation == 6


@pytest.mark.parametrize("first", [chunk(b"IDAT", bytes(13)), chunk(b"IHDR", bytes(12)), chunk(b"IHDR", bytes(14))])
def test_a_file_without_a_header_of_13_bytes_is_refused(first: bytes) -> None:
    with pytest.raises(NotAnImageError, match="not an image"):
        read(first, PIXELS, END)
