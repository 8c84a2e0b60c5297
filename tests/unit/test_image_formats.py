"""Detection of images from their bytes: complete files of every format, and the same files damaged."""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from catchlight.errors import (
    ImageError,
    ImageTruncatedError,
    ImageUnavailableError,
    NotAnImageError,
    TooManyPixelsError,
    UnknownFormatError,
)
from catchlight.images.formats import MAX_PIXELS, ImageMetadata, image_format, read_image_metadata

WIDTH, HEIGHT = 61, 37


def draw(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Pillow.Image:
    """Returns noise, which encoders cannot reduce to a few bytes."""
    return Pillow.effect_noise(size, 60).convert(mode)


def encode(format_name: str, mode: str = "RGB", **options: Any) -> bytes:
    file = BytesIO()
    draw(mode).save(file, format_name, **options)
    return file.getvalue()


def animate(format_name: str, **options: Any) -> bytes:
    return encode(format_name, save_all=True, append_images=[draw(), draw()], duration=40, **options)


def exif() -> bytes:
    metadata = Pillow.Exif()
    metadata[0x010E] = "with a thumbnail's worth of description " * 40
    return metadata.tobytes()


JPEG, PNG, WEBP, GIF, AVIF = (
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
    ("image/webp", "webp"),
    ("image/gif", "gif"),
    ("image/avif", "avif"),
)

FILES: dict[str, tuple[tuple[str, str], Callable[[], bytes]]] = {
    "JPEG": (JPEG, lambda: encode("JPEG")),
    "JPEG progressive": (JPEG, lambda: encode("JPEG", progressive=True)),
    "JPEG grey": (JPEG, lambda: encode("JPEG", "L")),
    "JPEG CMYK": (JPEG, lambda: encode("JPEG", "CMYK")),
    "JPEG with restart markers": (JPEG, lambda: encode("JPEG", restart_marker_blocks=2)),
    "JPEG with metadata": (JPEG, lambda: encode("JPEG", exif=exif(), comment=b"\xff\xd9" * 20)),
    "PNG": (PNG, lambda: encode("PNG")),
    "PNG with alpha": (PNG, lambda: encode("PNG", "RGBA")),
    "PNG of 1 bit": (PNG, lambda: encode("PNG", "1")),
    "PNG palette": (PNG, lambda: encode("PNG", "P")),
    "PNG animated": (PNG, lambda: animate("PNG")),
    "WebP": (WEBP, lambda: encode("WEBP")),
    "WebP lossless": (WEBP, lambda: encode("WEBP", lossless=True)),
    "WebP with alpha": (WEBP, lambda: encode("WEBP", "RGBA")),
    "WebP lossless with alpha": (WEBP, lambda: encode("WEBP", "RGBA", lossless=True)),
    "WebP with metadata": (WEBP, lambda: encode("WEBP", exif=exif())),
    "WebP animated": (WEBP, lambda: animate("WEBP")),
    "GIF": (GIF, lambda: encode("GIF", "P")),
    "GIF animated": (GIF, lambda: animate("GIF")),
    "AVIF": (AVIF, lambda: encode("AVIF")),
    "AVIF with alpha": (AVIF, lambda: encode("AVIF", "RGBA")),
    "AVIF animated": (AVIF, lambda: animate("AVIF")),
    "AVIF with metadata": (AVIF, lambda: encode("AVIF", exif=exif())),
}
JPEG_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
JPEG_HEAD = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00"
BYTES = {name: make() for name, (_, make) in FILES.items()}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def read(data: bytes, *, is_all: bool = True) -> ImageMetadata:
    return read_image_metadata(BytesIO(data), len(data), is_all=is_all)


# ------------------------------------------------------------------------------------------------ complete files


@pytest.mark.parametrize("name", FILES)
def test_type_and_dimensions_are_read(name: str) -> None:
    content_type, extension = FILES[name][0]

    assert image_format(BYTES[name]).extension == extension
    assert read(BYTES[name]) == ImageMetadata(content_type, WIDTH, HEIGHT)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (255, 256), (257, 3)])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_all_dimensions_are_read(format_name: str, size: tuple[int, int]) -> None:
    file = BytesIO()
    draw(size=size).save(file, format_name)

    facts = read(file.getvalue())

    assert (facts.width, facts.height) == size


def test_fill_bytes_before_jpeg_markers_are_skipped() -> None:
    data = BYTES["JPEG"]

    assert read(data[:2] + b"\xff\xff\xff" + data[2:]).width == WIDTH


# ------------------------------------------------------------------------------------------------ damaged files


# The numbers of bytes that may be missing at the end of a file with all pixels. In a PNG these are IEND, the CRC of the
# last chunk of pixels, the checksum in it, and an end code of up to 15 bits. WebP and AVIF have no end marker.
END_MARKER_BYTES = {"JPEG": range(1, 3), "PNG": range(1, 12 + 4 + 4 + 3), "GIF": range(1, 2)}


def cuts(data: bytes) -> Iterator[int]:
    """Yields lengths of cut files: about sixteen in the whole file, and each length within its last 25 bytes.

    tests/searches/test_cut_files.py tries many more of them.
    """
    yield from range(64, len(data) - 25, max(1, len(data) // 16))
    yield from range(len(data) - 25, len(data))


def check_cut_off_on_the_way(data: bytes, lengths: Iterable[int]) -> None:
    """Checks that a download that stops at each of these lengths is reported as incomplete."""
    for length in lengths:
        with pytest.raises(ImageError) as problem:
            read(data[:length], is_all=False)
        # From its first bytes alone, a file may not be recognized as an image yet.
        if length >= 32:
            assert isinstance(problem.value, ImageTruncatedError), f"cut off after {length} of {len(data)} bytes"


def check_written_without_its_end(name: str, data: bytes, lengths: Iterable[int]) -> None:
    """Checks that a completely received file of each of these lengths is accepted exactly if it has all pixels."""
    end_marker = END_MARKER_BYTES.get(name.split()[0], range(0))
    for length in lengths:
        if len(data) - length in end_marker[: 12 + 4 + 4]:
            assert read(data[:length]) == read(data)
        elif len(data) - length not in end_marker:
            with pytest.raises(ImageTruncatedError):
                read(data[:length])


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_download_may_be_complete_at_the_next_try(name: str) -> None:
    check_cut_off_on_the_way(BYTES[name], {*range(64), *cuts(BYTES[name])})


@pytest.mark.parametrize("name", [name for name in FILES if "animated" not in name])
def test_a_completely_received_file_may_lack_its_end_marker_but_no_pixels(name: str) -> None:
    check_written_without_its_end(name, BYTES[name], cuts(BYTES[name]))


@pytest.mark.parametrize("name", [name for name in FILES if "animated" in name])
def test_an_animation_without_its_end_is_truncated(name: str) -> None:
    for missing in range(1, 40):
        with pytest.raises(ImageTruncatedError):
            read(BYTES[name][:-missing])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "more",
    [b"\x00", b"\r\n", b"<html>", bytes(100), BYTES["JPEG"], b"PK\5\6" + bytes(18), bytes(1_000_000)],
    ids=["zero", "line", "text", "zeros", "another image", "archive", "many zeros"],
)
@pytest.mark.parametrize("is_all", [True, False])
def test_bytes_after_the_end_are_counted(name: str, more: bytes, is_all: bool) -> None:
    assert read(BYTES[name] + more, is_all=is_all) == replace(read(BYTES[name]), trailing_bytes=len(more))


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_damaged_files_raise_only_image_errors(name: str, data: st.DataObject) -> None:
    whole = bytearray(BYTES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, min(len(whole) - 1, 400)))] = data.draw(st.integers(0, 255))
    try:
        facts = read(bytes(whole))
    except ImageError:
        return
    assert 0 < facts.width * facts.height <= MAX_PIXELS


@given(st.sampled_from(["JPEG", "PNG", "WebP", "GIF", "AVIF"]), st.binary(max_size=300))
def test_arbitrary_bytes_after_a_signature_raise_only_image_errors(name: str, rest: bytes) -> None:
    try:
        facts = read(BYTES[name][:16] + rest)
    except ImageError:
        return
    assert 0 < facts.width * facts.height <= MAX_PIXELS


NOT_AN_IMAGE, TRUNCATED, UNKNOWN = NotAnImageError, ImageTruncatedError, UnknownFormatError


@pytest.mark.parametrize(
    ("name", "damage", "error", "message"),
    [
        ("PNG", lambda data: data.replace(b"IDAT", b"IDAt"), NOT_AN_IMAGE, "checksum of IDAt"),
        ("PNG", lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], TRUNCATED, "pixels are damaged"),
        ("PNG", lambda data: data[:33] + data[8:], NOT_AN_IMAGE, "a chunk header is invalid"),  # a second IHDR
        ("PNG", lambda data: data[:33] + chunk(b"IEND", b""), NOT_AN_IMAGE, "no pixels"),
        ("PNG", lambda data: data[:8] + chunk(b"IHDR", bytes(8) + b"\3" + bytes(4)) + data[33:], NOT_AN_IMAGE, "its"),
        ("JPEG", lambda data: data[:20] + JPEG_HEAD[2:] + data[20:], NOT_AN_IMAGE, "two frames"),
        ("JPEG", lambda data: JPEG_HEAD + b"\xff\xd9", NOT_AN_IMAGE, "no pixels"),
        ("JPEG", lambda data: data.replace(b"\xff\xc0", b"\xff\xc3"), UNKNOWN, "lossless or hierarchical"),
        ("JPEG", lambda data: data.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\0\x11\x0c"), UNKNOWN, "of 12"),
        ("GIF", lambda data: data[:13 + 768] + b";", NOT_AN_IMAGE, "no pixels"),
        ("WebP with metadata", lambda data: data[:24] + bytes(6) + data[30:], TRUNCATED, "not fill its canvas"),
        ("WebP animated", lambda data: data[:24] + bytes(6) + data[30:], TRUNCATED, "not fit into"),
        ("AVIF", lambda data: data.replace(b"ispe", b"free"), TRUNCATED, "its size is missing"),
        ("AVIF", lambda data: data.replace(b"pitm", b"free"), NOT_AN_IMAGE, "a box is missing"),
        ("AVIF", lambda data: data.replace(b"av01", b"hvc1"), UNKNOWN, "not encoded as AV1"),
    ],
)  # fmt: skip
def test_damaged_files_with_a_valid_signature_are_refused(
    name: str, damage: Callable[[bytes], bytes], error: type[ImageError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(damage(BYTES[name]))


PAGE = b"<html><script>alert(document.domain)</script></html>" * 10


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff" + PAGE,
        b"\xff\xd8\xff\xe0" + PAGE,  # its first characters are a length that extends beyond the end
        BYTES["JPEG"][:20] + PAGE,
        BYTES["PNG"][:33] + PAGE,
        b"GIF89a" + PAGE,
        b"GIF89a=1;" + PAGE,
        b"GIF89a" + PAGE[:7] + b"!" + PAGE,  # an extension of sub-blocks that go on after the end
        b"RIFF\x00\x02\x00\x00WEBP" + PAGE[:500],
        BYTES["AVIF"][:32] + PAGE,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_an_html_page_with_the_signature_of_an_image_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImageError, match="not an image: it begins as image/"):
        read(data)


def test_a_file_that_is_cut_in_a_text_chunk_is_truncated() -> None:
    # The text is inside a part whose length and name are not text.
    comment = BYTES["PNG"][:33] + chunk(b"tEXt", b"a long comment " * 100)
    with pytest.raises(ImageTruncatedError):
        read(comment[:-200])


# ------------------------------------------------------------------------------------------------ no images


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 64,
        b"<!DOCTYPE html><html><body>Not found</body></html>",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b'{"error": "expired"}',
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        b"PK\x03\x04" + b"\x00" * 60,
        b"RIFF\x24\x00\x00\x00WAVEfmt " + b"\x00" * 60,
        b"GIF88a" + b"\x00" * 60 + b"\x3b",
        b" " + BYTES["PNG"],
    ],
    ids=lambda data: repr(data[:12]),
)
@pytest.mark.parametrize("is_all", [True, False])
def test_other_files_are_rejected(data: bytes, is_all: bool) -> None:
    with pytest.raises(NotAnImageError, match="not an image: the bytes are no JPEG, PNG, WebP, GIF or AVIF"):
        read(data, is_all=is_all)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'),
        ("SVG", b'<?xml version="1.0"?>\n<!-- by a program -->\n<svg width="1"/>'),
        ("BMP", b"BM" + bytes(60)),
        ("TIFF", b"II*\x00" + bytes(60)),
        ("ICO", b"\x00\x00\x01\x00" + bytes(60)),
        ("PSD", b"8BPS\x00\x01" + bytes(60)),
        ("JPEG 2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60)),
        ("JPEG XL", b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(60)),
        ("JPEG XL", b"\xff\x0a" + bytes(60)),
        ("a video", b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(60)),
        ("a video", b"\x1a\x45\xdf\xa3" + bytes(60)),
        ("HEIC", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(60)),
        ("PNG of Apple's variant CgBI", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x04CgBI" + bytes(60)),
    ],
)
def test_the_error_names_other_image_formats(name: str, data: bytes) -> None:
    with pytest.raises(UnknownFormatError, match=f"not an image that is archived: it is {name}$"):
        read(data)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x89PNG", b"RIFF\x10\x00\x00", b"<html>"], ids=repr)
def test_a_file_that_is_too_short_to_be_recognized_is_a_temporary_error(data: bytes) -> None:
    with pytest.raises(ImageUnavailableError, match=f"only {len(data)} bytes"):
        read(data)


# ------------------------------------------------------------------------------------------------ too many pixels


def png_of(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_the_maximum_number_of_pixels_is_accepted() -> None:
    assert read(png_of(8000, MAX_PIXELS // 8000)).height == MAX_PIXELS // 8000


@pytest.mark.parametrize(("width", "height"), [(8000, MAX_PIXELS // 8000 + 1), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1)])
def test_more_pixels_are_rejected(width: int, height: int) -> None:
    with pytest.raises(TooManyPixelsError, match=f"{width} x {height} pixels"):
        read(png_of(width, height))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_a_file_without_pixels_is_not_an_image(width: int, height: int) -> None:
    with pytest.raises(NotAnImageError, match=f"{width} x {height} pixels"):
        read(png_of(width, height))


# ------------------------------------------------------------------------------------------------ too many parts


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 500_000, id="JPEG of empty segments"),
        pytest.param(JPEG_HEAD + JPEG_SCAN * 500_000, id="JPEG of empty scans"),
        pytest.param(BYTES["PNG"][:33] + chunk(b"tEXt", b"") * 500_000, id="PNG of empty chunks"),
        pytest.param(BYTES["GIF"][:13] + bytes(768) + b"\x21\xfe" + b"\x01\x00" * 500_000, id="GIF of tiny blocks"),
        pytest.param(BYTES["AVIF"][:32] + b"\x00\x00\x00\x08free" * 500_000, id="AVIF of empty boxes"),
    ],
)
def test_a_file_with_too_many_parts_is_rejected(data: bytes) -> None:
    with pytest.raises(UnknownFormatError, match="parts"):
        read(data)
