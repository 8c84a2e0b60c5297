"""GIF: each kind of block with valid and with invalid values."""

import struct
from io import BytesIO

import pytest

from catchlight.errors import ImageTruncatedError, NotAnImageError, TooManyPixelsError
from catchlight.images.formats import MAX_PIXELS, ImageMetadata, read_image_metadata

WIDTH, HEIGHT = 61, 37
TRAILER = b"\x3b"


def screen(width: int = WIDTH, height: int = HEIGHT, *, flags: int = 0, table: int = 0) -> bytes:
    return struct.pack("<HHBBB", width, height, flags, 0, 0) + bytes(table)


def image(
    left: int = 0,
    top: int = 0,
    width: int = WIDTH,
    height: int = HEIGHT,
    *,
    flags: int = 0,
    table: int = 0,
    code_bits: int = 8,
    data: bytes = b"\x02ab\x00",
) -> bytes:
    descriptor = b"\x2c" + struct.pack("<HHHHB", left, top, width, height, flags)
    return descriptor + bytes(table) + bytes([code_bits]) + data


def extension(kind: bytes = b"\xf9", data: bytes = b"\x04abcd\x00") -> bytes:
    return b"\x21" + kind + data


LOOP = extension(b"\xff", b"\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")


def read(*blocks: bytes, signature: bytes = b"GIF89a") -> ImageMetadata:
    data = signature + b"".join(blocks)
    return read_image_metadata(BytesIO(data), len(data))


@pytest.mark.parametrize(
    "blocks",
    [
        (screen(), image()),
        (screen(flags=0x80, table=6), image()),
        (screen(flags=0x87, table=768), image()),
        (screen(flags=0x83, table=48), image(flags=0x80, table=6)),
        (screen(flags=0x7F), image(flags=0x7F)),  # without the highest bit there is no table
        (screen(), image(flags=0x87, table=768)),
        (screen(), image(flags=0xC2, table=24)),
        (screen(), extension(), image(), extension(b"\xfe", b"\x00")),
        (screen(), extension(b"\xff", b"\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"), image(), image()),
        (screen(), image(data=b"\x01a" * 300 + b"\x00")),
        (screen(), image(data=b"\xff" + bytes(255) + b"\x00")),
        (screen(), image(data=b"\x00")),
        (screen(), image(1, 2, WIDTH - 1, HEIGHT - 2)),
        (screen(), image(WIDTH - 1, HEIGHT - 1, 1, 1)),
        *((screen(), image(code_bits=bits)) for bits in range(1, 9)),
    ],
)
@pytest.mark.parametrize("signature", [b"GIF87a", b"GIF89a"])
def test_valid_files_are_read(blocks: tuple[bytes, ...], signature: bytes) -> None:
    assert read(*blocks, TRAILER, signature=signature) == ImageMetadata("image/gif", WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("blocks", "size"),
    [
        ((screen(), image(1, 0)), (WIDTH + 1, HEIGHT)),
        ((screen(), image(0, 1)), (WIDTH, HEIGHT + 1)),
        ((screen(), image(width=WIDTH + 9)), (WIDTH + 9, HEIGHT)),
        ((screen(), image(height=HEIGHT + 9)), (WIDTH, HEIGHT + 9)),
        ((screen(0, 0), image()), (WIDTH, HEIGHT)),
        ((screen(), image(), image(left=256)), (WIDTH, HEIGHT)),
    ],
)
def test_the_first_image_enlarges_the_screen(blocks: tuple[bytes, ...], size: tuple[int, int]) -> None:
    facts = read(*blocks, TRAILER)

    assert (facts.width, facts.height) == size


@pytest.mark.parametrize("blocks", [(image(9000, 9000),), (image(), image(9000, 0), image(0, 9000))])
def test_the_pixels_of_all_images_together_are_limited(blocks: tuple[bytes, ...]) -> None:
    with pytest.raises(TooManyPixelsError, match=f"{WIDTH + 9000} x {HEIGHT + 9000} pixels are more than {MAX_PIXELS}"):
        read(screen(), *blocks, TRAILER)


@pytest.mark.parametrize(
    ("blocks", "error", "reason"),
    [
        ((screen(),), NotAnImageError, "it has no pixels"),
        ((screen(), extension()), NotAnImageError, "it has no pixels"),
        ((screen(), image(width=0)), NotAnImageError, "an image descriptor is invalid"),
        ((screen(), image(height=0)), NotAnImageError, "an image descriptor is invalid"),
        ((screen(), image(), image(height=0)), ImageTruncatedError, "an image descriptor is invalid"),
        ((screen(), image(code_bits=0)), NotAnImageError, "an image descriptor is invalid"),
        ((screen(), image(code_bits=9)), NotAnImageError, "an image descriptor is invalid"),
        ((screen(), b"\0", image()), NotAnImageError, "a block is missing"),
        ((screen(flags=0x80, table=5), image()), NotAnImageError, "a block is missing"),
        ((screen(flags=0x80, table=7), image()), NotAnImageError, "a block is missing"),
        ((screen(), image(), image(), b"junk"), ImageTruncatedError, "a block is missing"),
        ((screen(), LOOP, image(), b"junk"), ImageTruncatedError, "a block is missing"),
    ],
)
def test_invalid_blocks_are_refused(blocks: tuple[bytes, ...], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=f"image/gif.*{reason}$"):
        read(*blocks, TRAILER)


@pytest.mark.parametrize(
    "blocks",
    [
        (screen(), image(data=b"\x05ab")),
        (screen(), image(), extension()[:-1]),
        (screen(), extension()[:-1]),
        (screen()[:-1],),
        (screen(), image(), image()),
        (screen(), image(), image()[:5]),
        (screen(), LOOP, image()),
        (screen(), extension(data=b"\x04\0\1\0\0\0"), image()),
    ],
    ids=[
        "half a sub-block",
        "no end of an extension",
        "no end of the first extension",
        "half a screen",
        "two images",
        "half of the second image",
        "one image of a loop",
        "one image with a delay",
    ],
)
def test_files_that_may_lack_pixels_are_refused(blocks: tuple[bytes, ...]) -> None:
    with pytest.raises(ImageTruncatedError):
        read(*blocks)


@pytest.mark.parametrize("before", [b"", extension(data=b"\x04\1\0\0\0\0"), extension(b"\xff", b"\x0bXMP DataXMP\0")])
@pytest.mark.parametrize(("junk", "trailing"), [(b"", 0), (b"\0\0", 2), (b"junk;", 5)])
def test_a_still_image_without_trailer_is_complete(before: bytes, junk: bytes, trailing: int) -> None:
    assert read(screen(), before, image(), junk) == ImageMetadata("image/gif", WIDTH, HEIGHT, trailing_bytes=trailing)


def test_zeros_between_blocks_are_skipped() -> None:
    assert read(screen(), LOOP, image(), b"\0", image(), bytes(9), TRAILER).width == WIDTH


def test_bytes_after_the_trailer_are_counted() -> None:
    assert read(screen(), image(), TRAILER, b"\0;").trailing_bytes == 2
