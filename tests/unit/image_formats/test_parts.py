"""Reading a file part by part: exactly these bytes, and no more parts than any image has."""

from io import BytesIO

import pytest

from catchlight.errors import ImageRejectedError
from catchlight.images.formats.bounded_reader import (
    BLOCK_BYTES,
    FIRST_BLOCK_BYTES,
    MAX_PARTS,
    BoundedReader,
    DamagedError,
    TrailingBytesError,
)


def test_a_file_has_as_many_parts_as_are_allowed_and_not_one_more() -> None:
    parts = BoundedReader(BytesIO(b"abc"), 3)
    for _ in range(MAX_PARTS):
        assert parts.read(1, 1) == b"b"
    with pytest.raises(ImageRejectedError, match="more than 200000 parts"):
        parts.read(1, 1)


@pytest.mark.parametrize(("offset", "length"), [(0, 5), (4, 1), (5, 1), (9, 1)])
def test_bytes_that_are_not_there_are_not_read(offset: int, length: int) -> None:
    with pytest.raises(DamagedError):
        BoundedReader(BytesIO(b"abcd"), 4).read(offset, length)


def test_blocks_are_everything_between_two_offsets_and_grow() -> None:
    data = bytes(range(256)) * 4096
    end = len(data) - 3

    blocks = list(BoundedReader(BytesIO(data), len(data)).blocks(5, end))

    assert b"".join(block for _, block in blocks) == data[5:end]
    assert [at for at, _ in blocks] == [5 + sum(len(block) for _, block in blocks[:n]) for n in range(len(blocks))]
    sizes = [len(block) for _, block in blocks]
    assert sizes[:9] == [min(FIRST_BLOCK_BYTES << n, BLOCK_BYTES) for n in range(9)]
    assert max(sizes) == BLOCK_BYTES == 256 * 1024


def test_no_blocks_lie_between_an_offset_and_itself() -> None:
    assert list(BoundedReader(BytesIO(b"abcd"), 4).blocks(2, 2)) == []


def test_an_image_ends_where_its_file_does() -> None:
    parts = BoundedReader(BytesIO(b"abcd"), 4)
    parts.expect_end(4)
    with pytest.raises(DamagedError):
        parts.expect_end(5)
    with pytest.raises(TrailingBytesError, match="1 bytes follow"):
        parts.expect_end(3)
