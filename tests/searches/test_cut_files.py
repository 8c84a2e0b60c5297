"""Truncates image files of every format to hundreds of lengths, more than the unit tests."""

from typing import Any

import pytest

from tests.unit.image_formats.test_jpeg import ENCODINGS, check_lacks_pixels, picture
from tests.unit.test_image_formats import BYTES, check_cut_off_on_the_way, check_written_without_its_end


def lengths(data: bytes) -> set[int]:
    return {*range(64, len(data), 37), *range(len(data) - 40, len(data))}


@pytest.mark.parametrize("name", BYTES)
def test_an_interrupted_download_is_reported_as_truncated(name: str) -> None:
    check_cut_off_on_the_way(BYTES[name], lengths(BYTES[name]))


@pytest.mark.parametrize("name", [name for name in BYTES if "animated" not in name])
def test_a_complete_download_may_lack_its_end_marker_but_no_pixels(name: str) -> None:
    check_written_without_its_end(name, BYTES[name], lengths(BYTES[name]))


@pytest.mark.parametrize("options", ENCODINGS, ids=str)
def test_a_jpeg_that_lacks_pixels_is_refused(options: dict[str, Any]) -> None:
    whole = picture(**options)
    check_lacks_pixels(whole, {*range(len(whole) - 30, len(whole) - 2), *range(31, len(whole) - 2, 29)})
