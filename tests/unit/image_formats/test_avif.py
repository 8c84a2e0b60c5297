"""AVIF: every choice that the format leaves to an encoder is read, and every invalid box is refused."""

from io import BytesIO
from typing import Any

import pytest
from PIL import Image as Pillow

from catchlight.errors import ImageTruncatedError, NotAnImageError, UnknownFormatError
from catchlight.images.formats import ImageMetadata, read_image_metadata
from tests.unit.image_formats.avif_files import HEIGHT, PIXELS, WIDTH, avif, box, full_box, ispe, number


def irot(turns: int) -> bytes:
    return box(b"irot", number(turns, 1))


def imir(axis: int) -> bytes:
    return box(b"imir", number(axis, 1))


COLOR = full_box(b"pixi", 0, b"\3\10\10\10")
SHARED_LOCATION: dict[str, Any] = {"offset_bytes": 8, "length_bytes": 8, "base_bytes": 8, "base": 40}

VALID: dict[str, dict[str, Any]] = {
    "as libavif writes it": {},
    "brand avis": {"brands": b"avis" + bytes(4) + b"avisavif"},
    "brand mif1, compatible with avif": {"brands": b"mif1" + bytes(4) + b"avifmif1"},
    "brand msf1, compatible with avif": {"brands": b"msf1" + bytes(4) + b"avifmsf1"},
    "a brand version that is a line break": {"brands": b"mif1\n\n\n\n" + b"avif"},
    "pitm version 1": {"pitm_version": 1, "item": 0x01_0001, "infe_version": 3, "iloc_version": 2, "ipma_version": 1},
    "iinf version 1": {"iinf_version": 1, "items_before": 1},
    "infe version 3": {"infe_version": 3, "items_before": 2},
    "iloc version 1": {"iloc_version": 1, "items_before": 1},
    "iloc version 2": {"iloc_version": 2, "items_before": 2},
    "iloc version 0 with reserved bits": {"index_bytes": 4},
    "iloc version 1 with index numbers": {"iloc_version": 1, "index_bytes": 4, "items_before": 1},
    "iloc version 2 with long index numbers": {"iloc_version": 2, "index_bytes": 8, "items_before": 1},
    "ipma version 1": {"ipma_version": 1, "items_before": 1},
    "wide associations": {"has_wide_associations": True, "items_before": 1},
    "a wide association with an essential property": {"has_wide_associations": True, "associations": (0x8001,)},
    "an essential size": {"associations": (0x81,)},
    "no associated property before the size": {"properties": (COLOR, ispe()), "associations": (1, 2)},
    "an association with nothing": {"associations": (0, 1)},
    "an association behind the last property": {"associations": (9, 1)},
    "the sizes of other items": {"properties": (ispe(9, 9), ispe(), ispe(8, 8)), "associations": (2,)},
    "another size among the last": {"properties": (ispe(9, 9), COLOR, ispe()), "associations": (3,), "items_before": 2},
    "a grid": {"item_type": b"grid"},
    "other items before it": {"items_before": 3},
    "a base offset": SHARED_LOCATION,
    "a base offset of four bytes": {"base_bytes": 4, "base": 40, "items_before": 1},
    "no offset but the base": {"offset_bytes": 0, "base_bytes": 4, "iloc_version": 1},
    "pixels in several extents": {"extent_lengths": (5, len(PIXELS) - 5), "items_before": 1},
    "pixels in idat": {"iloc_version": 1, "construction_method": 1, "offset_shift": 10_000},
    "a box length of eight bytes": {"has_large_mdat": True},
    "boxes in another order": {"kinds": (b"iprp", b"hdlr", b"iloc", b"iinf", b"pitm")},
    "boxes that are not read": {"more_in_meta": box(b"idat", bytes(100)) + full_box(b"iref", 9)},
    "an empty box": {"more_in_meta": box(b"free")},
    "one of many brands": {"brands": b"heic" + bytes(4) + b"mif1" * 20 + b"avif"},
    "two tables of associations": {"properties": (COLOR, ispe()), "associations": (1, 2), "ipma_boxes": 2},
    "three tables of associations": {"associations": (9, 1, 9), "ipma_boxes": 3, "items_before": 1},
    "an empty table of associations": {"ipma_boxes": 2},
    "a last box to the end of the file": {"mdat_length": 0},
    "a last box that is shorter than the pixels": {"mdat_length": 9},
    "a last box that is longer than the file": {"mdat_length": 10_000},
}


@pytest.mark.parametrize("name", VALID)
def test_every_choice_of_an_encoder_is_read(name: str) -> None:
    choices = VALID[name]
    if name == "no offset but the base":
        choices = choices | {"base": _pixels_at(**choices)}
    assert _facts(avif(**choices)) == ImageMetadata("image/avif", WIDTH, HEIGHT)


def _pixels_at(**choices: Any) -> int:
    return avif(**choices).index(PIXELS)


ENDS = "it ends inside its structure"
LOST = "its items extend beyond its end"

DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "meta version 1": ({"meta_version": 1}, "a box has an unknown version"),
    "pitm version 2": ({"pitm_version": 2}, "a box has an unknown version"),
    "iinf version 2": ({"iinf_version": 2}, "a box has an unknown version"),
    "infe version 4": ({"infe_version": 4}, "a box has an unknown version"),
    "iloc version 3": ({"iloc_version": 3}, "a box has an unknown version"),
    "ipma version 2": ({"ipma_version": 2}, "a box has an unknown version"),
    "ispe version 1": ({"properties": (ispe(version=1),)}, "a box has an unknown version"),
    "a video handler": ({"handler": b"vide"}, "it does not describe an image"),
    "no size": ({"properties": (COLOR,)}, "its size is missing"),
    "a size that is not associated": ({"associations": ()}, "its size is missing"),
    "a property of number 0": ({"properties": (COLOR, ispe()), "associations": (0,)}, "its size is missing"),
    "a property behind the last": ({"associations": (2,)}, "its size is missing"),
    "pixels behind the end": ({"offset_shift": 1}, LOST),
    "the second extent behind the end": ({"extent_lengths": (5, len(PIXELS) - 4)}, LOST),
    "no bytes in an extent": ({"extent_lengths": (0,)}, "its bytes are missing"),
    "no extent": ({"extent_lengths": ()}, "its bytes are missing"),
    "a base behind the end": ({**SHARED_LOCATION, "offset_shift": 1, "items_before": 1}, LOST),
    "pixels in the file, by a long description": (
        {"iloc_version": 1, "index_bytes": 4, "offset_shift": 1, "items_before": 1},
        LOST,
    ),
    **{
        f"no {kind.decode()}": (
            {"kinds": tuple(each for each in (b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp") if each != kind)},
            "a box is missing",
        )
        for kind in (b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp")
    },
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_structure_is_refused(name: str) -> None:
    choices, reason = DAMAGED[name]
    # Without a description, a file is not an image. With one, it is an image whose bytes are missing.
    with pytest.raises(
        (ImageTruncatedError, NotAnImageError), match=f"^(the image/avif is .*|not an.*, but) {reason}$"
    ):
        _facts(avif(**choices))


@pytest.mark.parametrize("item_type", [b"Exif", b"hvc1", b"mime"])
def test_only_av1_is_archived(item_type: bytes) -> None:
    with pytest.raises(
        UnknownFormatError, match="the image/avif is not archived: its primary item is not encoded as AV1"
    ):
        _facts(avif(item_type=item_type))


@pytest.mark.parametrize(
    "choices", [{}, {"mdat_length": 0}, {"mdat_length": 10_000}, {"has_large_mdat": True}], ids=str
)
def test_missing_pixels_are_found_by_the_locations_of_items(choices: dict[str, Any]) -> None:
    whole = avif(**choices)
    for missing in range(1, len(PIXELS) + 1):
        with pytest.raises(ImageTruncatedError, match=LOST):
            _facts(whole[:-missing])


@pytest.mark.parametrize("mdat_length", [None, 0])
@pytest.mark.parametrize("more", [b"\n", bytes(64), b"<html></html>", b"\0\0\1\0freeabc", b"\0\0\0\1wide"])
def test_bytes_after_the_end_are_counted(more: bytes, mdat_length: int | None) -> None:
    assert _facts(avif(mdat_length=mdat_length) + more).trailing_bytes == len(more)


def test_without_a_known_length_a_cut_box_is_refused() -> None:
    for data in (avif() + b"\0\0\1\0freeabc", avif(mdat_length=10_000)):
        with pytest.raises(ImageTruncatedError, match="its end is missing"):
            read_image_metadata(BytesIO(data), len(data), is_all=False)
    for data in (avif(mdat_length=0), avif() + bytes(9), avif() + b"<html></html>"):
        assert read_image_metadata(BytesIO(data), len(data), is_all=False).width == WIDTH


def test_frames_outside_of_items_need_a_complete_box() -> None:
    film = box(b"moov", bytes(30))
    assert _facts(avif(more_before_mdat=film)).width == WIDTH
    for length in (0, 10_000):
        with pytest.raises(ImageTruncatedError, match="it ends inside its structure"):
            _facts(avif(more_before_mdat=film, mdat_length=length))


@pytest.mark.parametrize("kind", [b"meta", b"mdat"])
def test_a_file_without_meta_is_not_an_image_and_without_mdat_too_it_is_cut(kind: bytes) -> None:
    whole = avif()
    error = NotAnImageError if kind == b"meta" else ImageTruncatedError
    with pytest.raises(error):
        _facts(whole.replace(b"meta", b"free")[: len(whole) if kind == b"meta" else whole.index(b"mdat") - 4])


@pytest.mark.parametrize(
    ("properties", "orientation"),
    [
        ((), None),
        ((irot(0),), None),
        ((irot(1),), 8),
        ((irot(2),), 3),
        ((irot(3),), 6),
        ((imir(0),), 4),
        ((imir(1),), 2),
        ((irot(1), imir(0)), 5),
        ((irot(1), imir(1)), 7),
        ((irot(2), imir(0)), 2),
        ((irot(2), imir(1)), 4),
        ((irot(3), imir(0)), 7),
        ((irot(3), imir(1)), 5),
    ],
)
def test_rotation_and_mirroring_give_the_orientation(properties: tuple[bytes, ...], orientation: int | None) -> None:
    all_properties = (ispe(), *properties)
    facts = _facts(avif(properties=all_properties, associations=tuple(range(1, len(all_properties) + 1))))

    assert (facts.width, facts.height, facts.orientation) == (WIDTH, HEIGHT, orientation)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_orientation_is_the_one_that_pillow_writes(orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    Pillow.new("RGB", (20, 10)).save(file, "AVIF", exif=exif)

    assert _facts(file.getvalue()).orientation == orientation


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"meta", b"free", "it does not describe an image"),
        (b"ipco", b"free", "a box is missing"),
        (b"ipma", b"free", "a box is missing"),
        (b"infe", b"free", "its primary item is not encoded as AV1"),
        (b"hdlr" + bytes(8), b"hdlr" + bytes(7) + b"\1", "it does not describe an image"),
        # One association more than the box has bytes for, and one item more.
        (b"ipma" + bytes(4) + number(1, 4) + b"\0\1\1", b"ipma" + bytes(4) + number(1, 4) + b"\0\1\2", "a box extends"),
        (b"ipma" + bytes(4) + number(1, 4) + b"\0\1", b"ipma" + bytes(4) + number(1, 4) + b"\0\2", "its size"),
        (b"iloc" + bytes(4) + b"\x44\0\0\1\0\1", b"iloc" + bytes(4) + b"\x44\0\0\1\0\2", "its bytes are missing"),
        (b"iloc" + bytes(4) + b"\x44\0\0\1", b"iloc" + bytes(4) + b"\x44\0\0\0", "its bytes are missing"),
    ],
)
def test_one_wrong_field_is_refused(old: bytes, new: bytes, reason: str) -> None:
    whole = avif()
    assert whole.count(old) == 1

    with pytest.raises((ImageTruncatedError, NotAnImageError, UnknownFormatError), match=reason):
        _facts(whole.replace(old, new))


def test_an_extent_table_that_is_longer_than_its_box_is_refused() -> None:
    # The second extent would be read from the next box. Offsets into `idat` (construction method 1) are not compared
    # with the length of the file.
    whole = avif(iloc_version=1, construction_method=1, offset_shift=10_000)
    one_extent = b"\0\1" + number(whole.index(PIXELS) + 10_000, 4)
    assert whole.count(one_extent) == 1

    with pytest.raises(ImageTruncatedError, match="a box extends beyond its end"):
        _facts(whole.replace(one_extent, b"\0\2" + one_extent[2:]))


@pytest.mark.parametrize("brands", [b"mif1" + bytes(4) + b"heicmif1", b"heic" + bytes(4) + b"heicmif1", b"avi1"])
def test_other_brands_are_not_archived(brands: bytes) -> None:
    with pytest.raises(UnknownFormatError, match="not an image that is archived"):
        _facts(avif(brands=brands))


def _facts(data: bytes) -> ImageMetadata:
    return read_image_metadata(BytesIO(data), len(data))
