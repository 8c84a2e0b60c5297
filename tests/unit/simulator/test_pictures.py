"""The same seed gives the same picture, other seeds give other pictures."""

import pytest

from local.simulator.pictures import PictureFormat, draw_picture

SIGNATURES = {PictureFormat.JPEG: b"\xff\xd8\xff", PictureFormat.PNG: b"\x89PNG\r\n\x1a\n", PictureFormat.WEBP: b"RIFF"}


@pytest.mark.parametrize("picture_format", PictureFormat)
def test_the_same_seed_gives_the_same_bytes(picture_format: PictureFormat) -> None:
    first = draw_picture("task12345", "day", picture_format)
    draw_picture.cache_clear()
    again = draw_picture("task12345", "day", picture_format)
    assert first is not again
    assert first == again
    assert first.content.startswith(SIGNATURES[picture_format])


def test_other_seeds_and_variants_look_different() -> None:
    drawn = [draw_picture(scene, light, PictureFormat.PNG) for scene in ("a", "b") for light in ("day", "result 0")]
    assert len({picture.sha256 for picture in drawn}) == 4
    assert (drawn[0].width, drawn[0].height) == (drawn[1].width, drawn[1].height)
