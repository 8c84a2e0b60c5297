"""GIF: every block at both sides of each of its rules."""

import struct
from io import BytesIO

import pytest

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.formats import ImageMetadata, read_image_facts

WIDTH, HEIGHT = 61, 37
TRAILER = b"\x3b"


def screen(*, flags: int = 0, table: int = 0) -> bytes:
    return struct.pack("<HHBBB", WIDTH, HEIGHT, flags, 0, 0) + bytes(table)


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


def read(*blocks: bytes, signature: bytes = b"GIF89a") -> ImageMetadata:
    data = signature + b"".join(blocks)
    return read_image_facts(BytesIO(data), len(data))


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
def test_what_an_encoder_may_write_is_read(blocks: tuple[bytes, ...], signature: bytes) -> None:
    assert read(*blocks, TRAILER, signature=signature) == ImageMetadata("image/gif", "gif", WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ((screen(),), "it has no pixels"),
        ((screen(), extension()), "it has no pixels"),
        ((screen(), image(1, 0)), "an image does not fit into its screen"),
        ((screen(), image(0, 1)), "an image does not fit into its screen"),
        ((screen(), image(width=WIDTH + 1)), "an image does not fit into its screen"),
        ((screen(), image(height=HEIGHT + 1)), "an image does not fit into its screen"),
        ((screen(), image(width=0)), "an image does not fit into its screen"),
        ((screen(), image(height=0)), "an image does not fit into its screen"),
        ((screen(), image(), image(left=256, width=1)), "an image does not fit into its screen"),
        ((screen(), image(code_bits=0)), "its codes are of no length that exists"),
        ((screen(), image(code_bits=9)), "its codes are of no length that exists"),
        ((screen(), b"\0", image()), "a block is missing"),
        ((screen(flags=0x80, table=5), image()), "a block is missing"),
        ((screen(flags=0x80, table=7), image()), "a block is missing"),
    ],
)
def test_blocks_that_do_not_hold_are_not_whole(blocks: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(ImageUnavailableError, match=f"^the image/gif is not whole: {reason}$"):
        read(*blocks, TRAILER)


@pytest.mark.parametrize(
    "blocks",
    [(screen(), image()), (screen(), image(data=b"\x05ab")), (screen(), extension()[:-1]), (screen()[:-1],)],
    ids=["no trailer", "half a sub-block", "no end of an extension", "half a screen"],
)
def test_what_ends_before_its_trailer_is_not_whole(blocks: tuple[bytes, ...]) -> None:
    with pytest.raises(ImageUnavailableError, match="it ends inside its structure"):
        read(*blocks)


def test_a_byte_after_the_trailer_is_too_much() -> None:
    with pytest.raises(ImageRejectedError, match="not only an image: 1 bytes follow its end"):
        read(screen(), image(), TRAILER, b"\0")
