"""BoundedReader: reads exactly the requested bytes of a file, and a limited number of parts."""

import re
from io import BytesIO

import pytest

from catchlight.images.formats.bounded_reader import BLOCK_BYTES, FIRST_BLOCK_BYTES, MAX_PARTS, BoundedReader
from catchlight.images.formats.layout import TruncatedError, UnsupportedError


def test_the_number_of_parts_is_limited() -> None:
    parts = BoundedReader(BytesIO(b"abc"), 3)
    for _ in range(MAX_PARTS):
        assert parts.read(1, 1) == b"b"
    with pytest.raises(UnsupportedError, match="more than 200000 parts"):
        parts.read(1, 1)


@pytest.mark.parametrize(("offset", "length"), [(0, 5), (4, 1), (5, 1), (9, 1)])
def test_a_read_beyond_the_end_is_an_error(offset: int, length: int) -> None:
    with pytest.raises(TruncatedError):
        BoundedReader(BytesIO(b"abcd"), 4).read(offset, length)


def test_blocks_cover_the_range_and_grow() -> None:
    data = bytes(range(256)) * 4096
    end = len(data) - 3

    blocks = list(BoundedReader(BytesIO(data), len(data)).blocks(5, end))

    assert b"".join(block for _, block in blocks) == data[5:end]
    assert [at for at, _ in blocks] == [5 + sum(len(block) for _, block in blocks[:n]) for n in range(len(blocks))]
    sizes = [len(block) for _, block in blocks]
    assert sizes[:9] == [min(FIRST_BLOCK_BYTES << n, BLOCK_BYTES) for n in range(9)]
    assert max(sizes) == BLOCK_BYTES == 256 * 1024


def test_an_empty_range_has_no_blocks() -> None:
    assert list(BoundedReader(BytesIO(b"abcd"), 4).blocks(2, 2)) == []


@pytest.mark.parametrize("place", [0, FIRST_BLOCK_BYTES - 2, FIRST_BLOCK_BYTES - 1, FIRST_BLOCK_BYTES, 5000])
def test_a_pattern_is_found_across_blocks(place: int) -> None:
    data = b"-" * place + b"\xff\xd9" + b"-" * 300
    parts = BoundedReader(BytesIO(data), len(data))

    assert parts.find(re.compile(rb"\xff\xd9"), 0) == place
    assert parts.find(re.compile(rb"\xff\xd9"), place) == place
    assert parts.find(re.compile(rb"\xff\xd9"), place + 1) is None
