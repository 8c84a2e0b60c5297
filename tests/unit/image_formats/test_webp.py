"""WebP: simple files, extended ones and animations, with valid and with invalid chunks."""

from io import BytesIO

import pytest

from catchlight.errors import ImageTruncatedError, NotAnImageError
from catchlight.images.formats import ImageMetadata, read_image_metadata
from tests.unit.image_formats.test_exif import tiff

WIDTH, HEIGHT = 301, 517
ALPHA, EXIF, XMP, ICC, ANIMATION = 0x10, 0x08, 0x04, 0x20, 0x02
LOSSY_TAG = 0x000010  # a key frame, shown, of version 0


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)


def lossy(
    width: int = WIDTH, height: int = HEIGHT, *, tag: int = LOSSY_TAG, start: bytes = b"\x9d\x01*", scale: int = 0
) -> bytes:
    sides = b"".join((side | scale << 14).to_bytes(2, "little") for side in (width, height))
    return chunk(b"VP8 ", tag.to_bytes(3, "little") + start + sides + bytes(11))


def lossless(width: int = WIDTH, height: int = HEIGHT, *, more: int = 0, signature: int = 0x2F) -> bytes:
    bits = width - 1 | height - 1 << 14 | more << 28
    return chunk(b"VP8L", bytes([signature]) + bits.to_bytes(4, "little") + bytes(8))


def extended(flags: int = 0, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + _three(width - 1) + _three(height - 1))


def frame(*bitstreams: bytes, left: int = 0, top: int = 0, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    places = (left // 2, top // 2, width - 1, height - 1)
    return chunk(b"ANMF", b"".join(map(_three, places)) + bytes(4) + b"".join(bitstreams or (lossy(width, height),)))


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")


ANIM = chunk(b"ANIM", bytes(6))


def read(*chunks: bytes, length: int | None = None, more: bytes = b"") -> ImageMetadata:
    content = b"WEBP" + b"".join(chunks)
    data = b"RIFF" + (len(content) if length is None else length).to_bytes(4, "little") + content + more
    return read_image_metadata(BytesIO(data), len(data))


@pytest.mark.parametrize(
    "chunks",
    [
        (lossy(),),
        (lossless(),),
        (lossless(more=1),),  # with alpha
        *((lossy(tag=LOSSY_TAG | version << 1),) for version in range(4)),
        (lossy(tag=LOSSY_TAG | 20 << 5),),  # a first partition that ends with the chunk's last byte but one
        (lossy(scale=3),),
        (extended(), lossy()),
        (extended(ALPHA), chunk(b"ALPH", bytes(3)), lossy()),
        (extended(ALPHA | EXIF | XMP | ICC), chunk(b"ICCP", bytes(5)), lossless(), chunk(b"EXIF", b"x")),
        (extended(), lossy(), chunk(b"abcd", b"")),
        (lossy(), chunk(b"INFO", b"abc")),
        (lossless(), chunk(b"EXIF", b""), chunk(b"abcd", bytes(5))),
        (lossy(), lossy()),  # decoders show the first one
        (extended(ANIMATION), ANIM, frame()),
        (extended(ANIMATION), ANIM, frame(), frame(lossless()), frame(chunk(b"ALPH", b"x"), lossy())),
        (extended(ANIMATION), ANIM, frame(left=2, top=4, width=WIDTH - 2, height=HEIGHT - 4)),
        (extended(ANIMATION | ALPHA), ANIM, frame(left=WIDTH - 1, top=HEIGHT - 1, width=1, height=1)),
    ],
)
def test_valid_files_are_read(chunks: tuple[bytes, ...]) -> None:
    assert read(*chunks) == ImageMetadata("image/webp", WIDTH, HEIGHT)


@pytest.mark.parametrize("make", [lossy, lossless])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (16_383, 1), (1, 16_383), (4096, 256), (257, 8191)])
def test_sides_have_14_bits(make: type, width: int, height: int) -> None:
    facts = read(make(width, height))

    assert (facts.width, facts.height) == (width, height)


@pytest.mark.parametrize(("width", "height"), [(WIDTH + 0x10000, HEIGHT), (WIDTH, HEIGHT + 0x10000)])
def test_a_canvas_has_24_bits(width: int, height: int) -> None:
    with pytest.raises(ImageTruncatedError, match="its image does not fill its canvas"):
        read(extended(0, width, height), lossy())


INVALID_HEADER = "its image header is invalid"
DAMAGED = {
    "a chunk before a simple image": ((chunk(b"EXIF", b""), lossy()), "it has no pixels"),
    "no chunk": ((), "it has no pixels"),
    "no image": ((chunk(b"EXIF", bytes(20)),), "it has no pixels"),
    "an extended file without an image": ((extended(EXIF), chunk(b"EXIF", bytes(9))), r"it has no pixels, or too many"),
    "an extended file with two": ((extended(), lossy(), lossless()), r"it has no pixels, or too many"),
    "not a key frame": ((lossy(tag=LOSSY_TAG | 1),), INVALID_HEADER),
    "a frame that is not shown": ((lossy(tag=0),), INVALID_HEADER),
    "version 4": ((lossy(tag=LOSSY_TAG | 4 << 1),), INVALID_HEADER),
    "a first partition as long as the chunk": ((lossy(tag=LOSSY_TAG | 21 << 5),), INVALID_HEADER),
    "a first partition that is longer": ((lossy(tag=LOSSY_TAG | 1 << 23),), INVALID_HEADER),
    "another start code": ((lossy(start=b"\x9d\x01+"),), INVALID_HEADER),
    "another start code, first byte": ((lossy(start=b"\x9c\x01*"),), INVALID_HEADER),
    "another signature": ((lossless(signature=0x2E),), INVALID_HEADER),
    "lossless version 1": ((lossless(more=2),), INVALID_HEADER),
    "lossless version 4": ((lossless(more=8),), INVALID_HEADER),
    "the lowest reserved flag": ((extended(0x01), lossy()), "its header is invalid"),
    "the next reserved flag": ((extended(0x40), lossy()), "its header is invalid"),
    "the highest reserved flag": ((extended(0x80), lossy()), "its header is invalid"),
    "a narrower image": ((extended(), lossy(WIDTH - 1)), "its image does not fill its canvas"),
    "a lower image": ((extended(), lossless(height=HEIGHT - 1)), "its image does not fill its canvas"),
    "no ANIM": ((extended(ANIMATION), frame()), "its ANIM chunk is missing"),
    "no frame": ((extended(ANIMATION), ANIM), "it has no pixels"),
    "a still image in an animation": ((extended(ANIMATION), ANIM, lossy()), "it has no pixels"),
    "a frame too far right": ((extended(ANIMATION), ANIM, frame(left=2)), "a frame does not fit into its canvas"),
    "a frame too far down": ((extended(ANIMATION), ANIM, frame(top=2)), "a frame does not fit into its canvas"),
    "a frame that is too wide": (
        (extended(ANIMATION), ANIM, frame(width=WIDTH + 1)), "a frame does not fit into its canvas"
    ),
    "a frame that is too high": (
        (extended(ANIMATION), ANIM, frame(height=HEIGHT + 1)), "a frame does not fit into its canvas"
    ),
    "an image that is narrower than its frame": (
        (extended(ANIMATION), ANIM, frame(), frame(lossy(WIDTH - 1))), "an image does not fill its frame"
    ),
    "an image that is higher than its frame": (
        (extended(ANIMATION), ANIM, frame(lossless(WIDTH, HEIGHT + 1))), "an image does not fill its frame"
    ),
    "a frame without an image": ((extended(ANIMATION), ANIM, frame(chunk(b"ALPH", b"x"))), r"it has no pixels, or"),
    "a frame whose chunk is longer": (
        (extended(ANIMATION), ANIM, frame(lossy()[:-2]), chunk(b"abcd", bytes(20))), "a chunk extends beyond its end"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_invalid_chunks_are_refused(name: str) -> None:
    chunks, reason = DAMAGED[name]
    has_pixels = any(kind in chunk for chunk in chunks for kind in (b"VP8 ", b"VP8L", b"ANMF"))
    error = ImageTruncatedError if has_pixels else NotAnImageError
    with pytest.raises(error, match=f"^(the image/webp is not whole:|not an image: .* but) {reason}"):
        read(*chunks)


def test_the_riff_length_marks_the_end_of_the_image() -> None:
    assert read(lossy(), more=b"\0\0").trailing_bytes == 2
    with pytest.raises(ImageTruncatedError, match="it ends inside its structure"):
        read(lossy(), length=4 + len(lossy()) + 1)
    with pytest.raises(ImageTruncatedError, match="it ends inside a chunk"):
        read(lossy()[:-2], length=4 + len(lossy()))
    with pytest.raises(NotAnImageError, match="a chunk extends beyond its end"):
        read(lossy(), length=4 + len(lossy()) - 1)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_the_orientation_is_that_of_its_exif(prefix: bytes) -> None:
    exif = chunk(b"EXIF", prefix + tiff(5))
    assert read(extended(EXIF), lossy(), exif).orientation == 5
    assert read(extended(ANIMATION), ANIM, frame(), exif).orientation == 5
    assert read(lossy(), exif).orientation is None  # ignored without VP8X, as all other chunks


def test_a_chunk_ends_within_the_file_with_its_padding() -> None:
    odd = b"EXIF" + (3).to_bytes(4, "little") + b"abc"
    assert read(extended(EXIF), lossy(), odd + b"\0").width == WIDTH
    with pytest.raises(ImageTruncatedError, match="a chunk extends beyond its end"):
        read(extended(EXIF), lossy(), odd)
