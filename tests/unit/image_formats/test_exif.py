"""EXIF: the orientation of both byte orders, and invalid directories."""

import struct

import pytest

from catchlight.images.formats.exif import read_orientation


def tiff(orientation: int, *, order: str = "<", kind: int = 3, before: int = 0, directory: int = 8) -> bytes:
    """Returns EXIF metadata with an orientation, after `before` other entries."""
    number = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(f"{order}HH", orientation, 0)
    other = struct.pack(f"{order}HHII", 0x0100, 4, 1, 7)
    entries = other * before + number
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", directory)
    return start + bytes(directory - 8) + struct.pack(f"{order}H", before + 1) + entries + bytes(4)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_read(orientation: int, order: str, prefix: bytes) -> None:
    assert read_orientation(prefix + tiff(orientation, order=order)) == orientation
    assert read_orientation(prefix + tiff(orientation, order=order, before=5, directory=100)) == orientation


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        tiff(0),
        tiff(9),
        tiff(6, kind=4),
        tiff(6)[:-9],
        tiff(6, directory=5000)[:4990],
        b"II*\0\xff\xff\xff\xff" + tiff(6)[8:],
        b"II*\0\x08\0\0\0\xff\xff" + bytes(65_000),
        b"XX*\0" + tiff(6)[4:],
    ],
    ids=lambda exif: repr(exif[:12]),
)
def test_exif_without_a_valid_orientation_gives_1(exif: bytes) -> None:
    assert read_orientation(exif) == 1
