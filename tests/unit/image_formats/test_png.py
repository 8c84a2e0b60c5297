"""PNG: every combination of color type and bit depth, and every rule of its chunks at both sides."""

import struct
import zlib
from io import BytesIO

import pytest

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.formats import ImageMetadata, read_image_facts

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
    return read_image_facts(BytesIO(data), len(data))


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 32])
@pytest.mark.parametrize("color", range(8))
def test_color_types_have_the_bit_depths_of_the_specification(color: int, depth: int) -> None:
    if depth in BIT_DEPTHS.get(color, ()):
        assert read(header(depth=depth, color=color), PIXELS, END) == ImageMetadata("image/png", "png", 61, 37)
    else:
        with pytest.raises(ImageUnavailableError, match="its header is of no kind that exists"):
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
        with pytest.raises(ImageUnavailableError, match="its header is of no kind that exists"):
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
def test_other_chunks_are_passed_over(chunks: tuple[bytes, ...]) -> None:
    assert read(header(), *chunks, END).height == 37


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ((header(), header(), PIXELS, END), "a chunk is missing"),
        ((header(), PIXELS, chunk(b"IEND", b"x")), "a chunk is missing"),
        ((header(), chunk(b"ID4T"), PIXELS, END), "a chunk is missing"),
        ((header(), chunk(b"    "), PIXELS, END), "a chunk is missing"),
        ((header(), END), "it has no pixels"),
        ((header(), PIXELS), "it ends inside its structure"),
        ((header(), PIXELS, END[:-1]), "it ends inside a chunk"),
        ((header(), chunk(b"IDAT", b"abcd", length=21)[:-4], END), "it ends inside a chunk"),
        ((header(), chunk(b"IDAT", b"abcd", checksum=0), END), "the checksum of IDAT is wrong"),
        ((header(), chunk(b"IDAT", bytes(300_000) + b"x", checksum=zlib.crc32(b"IDAT" + bytes(300_001))), END), "IDAT"),
        ((header(), PIXELS, chunk(b"IEND", checksum=0)), "the checksum of IEND is wrong"),
    ],
)
def test_chunks_that_do_not_hold_are_not_whole(chunks: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(ImageUnavailableError, match=f"the image/png is not whole: .*{reason}"):
        read(*chunks)


def test_a_file_that_ends_with_its_last_chunk_is_whole_and_a_byte_more_is_too_much() -> None:
    assert read(header(), PIXELS, END).width == 61
    with pytest.raises(ImageRejectedError, match="not only an image: 1 bytes follow its end"):
        read(header(), PIXELS, END, b"\0")


@pytest.mark.parametrize("first", [chunk(b"IDAT", bytes(13)), chunk(b"IHDR", bytes(12)), chunk(b"IHDR", bytes(14))])
def test_what_does_not_begin_with_a_header_of_13_bytes_is_no_image(first: bytes) -> None:
    with pytest.raises(ImageRejectedError, match="not an image"):
        read(first, PIXELS, END)
