"""ImageStream: an image can be read like a file while it is downloaded."""

import errno
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchlight.errors import (
    ImageRejectedError,
    ImageTruncatedError,
    ImageUnavailableError,
    NotAnImageError,
    UnknownFormatError,
)
from catchlight.images import stream
from catchlight.images.stream import BLOCK_BYTES, ImageStream
from tests.image_server import large_picture

IMAGE = large_picture(1)
S3_MIN_CHUNK_BYTES = 8 * 1024  # S3 refuses smaller chunks with InvalidChunkSizeError, except the last one

reads = st.tuples(st.just("read"), st.sampled_from([1, 100, 16_384, BLOCK_BYTES, 100_000, 1_048_576, -1]))
seeks = st.tuples(st.just("seek"), st.integers(0, len(IMAGE)))


def in_pieces(sizes: list[int]) -> Iterator[bytes]:
    file, number = io.BytesIO(IMAGE), 0
    while piece := file.read(sizes[number % len(sizes)]):
        yield piece
        number += 1


@given(
    sizes=st.lists(st.sampled_from([500, 16_384, 65_536, 65_537, 300_000]), min_size=1, max_size=5),
    steps=st.lists(st.one_of(reads, seeks), max_size=12),
    is_known=st.booleans(),
)
def test_reads_and_seeks_work_as_in_a_file(sizes: list[int], steps: list[tuple[str, int]], is_known: bool) -> None:
    file = io.BytesIO(IMAGE)
    with ImageStream(in_pieces(sizes), len(IMAGE) if is_known else None, "images.example") as image:
        for operation, number in steps:
            if operation == "seek":
                assert image.seek(number) == file.seek(number)
                continue
            piece = image.read(number)
            # A read may return less than requested, but not nothing before the end.
            assert piece == file.read(len(piece))
            assert number == -1 or len(piece) <= number
            assert piece or file.tell() == len(IMAGE)
            assert image.tell() == file.tell()
        assert image.seek(0, io.SEEK_END) == len(IMAGE) == image.size
        assert image.complete().width == 400


@given(
    sizes=st.lists(st.sampled_from([500, 5000, 16_384, 65_536, 70_000, 90_000]), min_size=1, max_size=6),
    read_before=st.lists(st.integers(1, 150_000), max_size=4),
)
def test_only_the_last_piece_is_smaller_than_the_minimum_of_s3(sizes: list[int], read_before: list[int]) -> None:
    with ImageStream(in_pieces(sizes), len(IMAGE), "images.example") as image:
        for size in read_before:
            image.read(size)
        image.seek(0)
        pieces = list(iter(lambda: image.read(1024 * 1024), b""))

    assert b"".join(pieces) == IMAGE
    assert all(len(piece) >= S3_MIN_CHUNK_BYTES for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("pieces", "size", "error"),
    [
        ([b"<html>" * 100_000], 600_000, NotAnImageError),
        ([b"<html>" * 100_000], None, NotAnImageError),
        ([b"\xff\xd8\xff<html>" * 1000], None, NotAnImageError),
        ([b"BM" + bytes(70_000)], 70_002, UnknownFormatError),
        ([IMAGE[:-200]], None, ImageTruncatedError),
        ([b"\x89PNG"], 4, ImageUnavailableError),
        ([], None, ImageUnavailableError),
    ],
    ids=[
        "a page",
        "a page without length",
        "a JPEG of text",
        "a BMP",
        "a cut image",
        "too short to recognize",
        "nothing",
    ],
)
def test_an_error_is_raised_by_every_method_each_time(
    pieces: list[bytes], size: int | None, error: type[Exception]
) -> None:
    with ImageStream(iter(pieces), size, "images.example") as image:
        for _ in range(2):
            with pytest.raises(error):
                _ = image.format
            with pytest.raises(error):
                image.complete()
            with pytest.raises(error):
                image.read()


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("more", [1, BLOCK_BYTES, 5_000_000])
def test_trailing_bytes_are_read_with_the_image(more: int, is_known: bool) -> None:
    data = IMAGE + bytes(more)
    pieces = (data[at : at + 70_000] for at in range(0, len(data), 70_000))
    with ImageStream(pieces, len(data) if is_known else None, "images.example") as image:
        assert image.format.extension == "png"
        assert image.read() == data
        assert image.complete().trailing_bytes == more
        assert image.sha256() == hashlib.sha256(data).digest()


def test_the_last_block_of_a_cut_image_with_trailing_bytes_is_not_returned() -> None:
    data = IMAGE[:100_000] + bytes(3_000_000)
    pieces = (data[at : at + 70_000] for at in range(0, len(data), 70_000))
    with ImageStream(pieces, len(data), "images.example") as image:
        with pytest.raises(ImageTruncatedError):
            list(iter(lambda: image.read(BLOCK_BYTES), b""))
        assert len(data) - 70_000 <= image.tell() < len(data)


def test_a_missing_end_marker_is_an_error_if_the_body_has_no_length() -> None:
    data = IMAGE[:-12]
    with ImageStream(iter([data]), None, "images.example") as image:
        assert image.complete().width == 400
    image = ImageStream(iter([data]), None, "images.example", is_delimited=False)
    with image, pytest.raises(ImageTruncatedError, match="its end is missing"):
        image.complete()


def test_a_damaged_image_raises_its_error_each_time() -> None:
    with _downloading(IMAGE[:-100] + bytes(100)) as image:
        for _ in range(2):
            with pytest.raises(ImageUnavailableError, match="not whole"):
                image.read()
            with pytest.raises(ImageUnavailableError, match="not whole"):
                image.complete()


@pytest.mark.parametrize("size", [BLOCK_BYTES, len(IMAGE), 10 * len(IMAGE)])
@pytest.mark.parametrize("start", [0, 10, BLOCK_BYTES])
def test_the_last_block_of_a_damaged_image_is_not_returned_after_a_seek(start: int, size: int) -> None:
    damaged = IMAGE[:-100] + bytes(100)
    with _downloading(damaged) as image:
        with pytest.raises(ImageUnavailableError):
            image.complete()
        image.seek(start)
        returned = image.read(size)
        while start + len(returned) < len(damaged):
            try:
                returned += image.read(size)
            except ImageUnavailableError:
                break

        assert damaged[start:].startswith(returned)
        assert start + len(returned) == 70_000 * (len(damaged) // 70_000)


def test_a_read_returns_at_most_the_requested_bytes() -> None:
    with _downloading(IMAGE) as image:
        assert image.read(100) == IMAGE[:100]
        assert image.read(100) == IMAGE[100:200]
        image.seek(0)
        assert image.read(70_000) == IMAGE[:70_000]
        image.seek(10)
        assert image.read(20) == IMAGE[10:30]
        assert image.tell() == 30
        assert image.read(0) == b""


@pytest.mark.parametrize(
    ("offset", "whence", "position"), [(5, io.SEEK_SET, 5), (5, io.SEEK_CUR, 105), (-5, io.SEEK_END, len(IMAGE) - 5)]
)
def test_a_reader_can_seek_to_any_position(offset: int, whence: int, position: int) -> None:
    with _downloading(IMAGE) as image:
        image.read(100)

        assert image.seek(offset, whence) == image.tell() == position
        assert image.read() == IMAGE[position:]


@pytest.mark.parametrize(("size", "fits"), [(stream.MAX_IMAGE_BYTES, True), (stream.MAX_IMAGE_BYTES + 1, False)])
def test_a_known_size_is_checked_against_the_limit_before_the_download(size: int, fits: bool) -> None:
    if fits:
        with ImageStream(iter([IMAGE]), size, "images.example") as image:
            assert image.size == size
    else:
        with pytest.raises(ImageRejectedError, match="larger than 26214400 bytes"):
            ImageStream(iter([IMAGE]), size, "images.example")


def test_the_first_block_is_small_and_the_others_are_large() -> None:
    """The upload can start while the rest is downloaded, and has few chunks."""
    sizes = []
    with ImageStream(in_pieces([1000]), len(IMAGE), "images.example") as image:
        while image._next_block():
            sizes.append(len(image._block))

    first = stream.MIN_BLOCK_BYTES
    assert len(IMAGE) - sum(sizes) in range(first, first + 1000)
    assert all(BLOCK_BYTES <= size < BLOCK_BYTES + 1000 for size in sizes[:-1])


def _downloading(content: bytes) -> ImageStream:
    return ImageStream((content[at : at + 70_000] for at in range(0, len(content), 70_000)), len(content), "a.example")


def test_a_full_disk_raises_its_error_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with _downloading(IMAGE) as image:
        assert image.read(BLOCK_BYTES)

        def refuse(_: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(image._file, "write", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                image.read()


def test_a_large_image_is_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SPOOL_BYTES", 100_000)
    with _downloading(IMAGE) as image:
        image.complete()
        file: Any = image._file
        assert file._rolled
        assert len(image._block) <= 2 * BLOCK_BYTES
        assert image.read() == IMAGE


# ------------------------------------------------------------------------------------------------ as received


def test_a_body_that_is_not_an_image_can_be_read_unchanged() -> None:
    body = b"<html>" * 30_000
    with ImageStream(iter([body[:9000], body[9000:]]), len(body), "images.example") as image:
        with pytest.raises(NotAnImageError):
            _ = image.format
        assert image.receive()
        assert image.received is not None
        assert (image.received.file.read(), image.received.size) == (body, len(body))


def test_the_received_part_of_an_interrupted_body_can_be_read() -> None:
    def broken() -> Iterator[bytes]:
        yield IMAGE[:9000]
        raise ImageUnavailableError("cut")

    with ImageStream(broken(), len(IMAGE), "images.example") as image:
        assert not image.receive()
        assert image.received is not None
        assert image.received.file.read() == IMAGE[:9000]


def test_nothing_was_received_of_an_empty_body() -> None:
    with ImageStream(iter([]), None, "images.example") as image:
        image.receive()
        assert image.received is None


@pytest.mark.parametrize("more", [0, 1])
def test_no_more_than_the_limit_is_received(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(stream, "MAX_IMAGE_BYTES", 9000 - more)
    with ImageStream(iter([b"x" * 9000]), None, "images.example") as image:
        assert image.receive() != more
        assert (image.received is None) == bool(more)
