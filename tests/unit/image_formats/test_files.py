"""Files as programs and phones write them, one of each common kind."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from catchlight.errors import ImageTruncatedError, UnknownFormatError
from catchlight.images.formats import ImageMetadata, read_image_metadata

FILES = Path(__file__).parent / "files"
AVIF = ImageMetadata("image/avif", 64, 48)
GIF = ImageMetadata("image/gif", 64, 48)
JPEG = ImageMetadata("image/jpeg", 64, 48)
PNG = ImageMetadata("image/png", 64, 48)
WEBP = ImageMetadata("image/webp", 64, 48)

ARCHIVED = {
    "avif-cut-av1.avif": AVIF,  # zeros instead of pixels: only decoding would find this
    "avif-mdat-size-0.avif": AVIF,
    "avif-two-ipma.avif": AVIF,
    "gif-image-outside-screen.gif": GIF,
    "jpeg-mpf-gainmap.jpg": replace(JPEG, trailing_bytes=393),
    "jpeg-samsung-sef.jpg": replace(JPEG, trailing_bytes=71),
    "jpeg-trailing-newline.jpg": replace(JPEG, trailing_bytes=1),
    "png-ancillary-crc.png": PNG,
    "png-double-iend.png": replace(PNG, trailing_bytes=12),
    "webp-simple-with-info-chunk.webp": WEBP,
}
REFUSED = {
    "avif-mdat-size-0-cut.avif": ImageTruncatedError,
    "jpeg-cut.jpg": ImageTruncatedError,
    "png-cgbi.png": UnknownFormatError,
}


def test_every_file_has_a_row() -> None:
    assert {path.name for path in FILES.iterdir()} == ARCHIVED.keys() | REFUSED.keys()


@pytest.mark.parametrize("is_all", [True, False])
@pytest.mark.parametrize("name", ARCHIVED)
def test_files_that_browsers_show_completely_are_accepted(name: str, is_all: bool) -> None:
    data = (FILES / name).read_bytes()

    assert read_image_metadata(BytesIO(data), len(data), is_all=is_all) == ARCHIVED[name]


@pytest.mark.parametrize("is_all", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_files_that_browsers_do_not_show_completely_are_refused(name: str, is_all: bool) -> None:
    data = (FILES / name).read_bytes()

    with pytest.raises(REFUSED[name]):
        read_image_metadata(BytesIO(data), len(data), is_all=is_all)
