"""Reads the orientation from EXIF metadata: a TIFF header and a directory of tags (CIPA DC-008, 4.5)."""

from collections.abc import Mapping
from typing import Literal

_BYTE_ORDERS: Mapping[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION, _SHORT = 0x0112, 3
AS_STORED = 1
# The orientation is in the first directory, which all encoders write first. Thumbnails and the camera maker's notes
# follow.
MAX_EXIF_BYTES = 65_536
_PREFIX = b"Exif\0\0"


def read_orientation(exif: bytes) -> int:
    """Returns the orientation, a number from 1 to 8. It is 1 (AS_STORED) if it is missing or invalid."""
    exif = exif.removeprefix(_PREFIX)
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        return AS_STORED

    def number(at: int, length: int) -> int:
        return int.from_bytes(exif[at : at + length], order)

    directory = number(4, 4)
    for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(exif) - 11), 12):
        if number(entry, 2) == _ORIENTATION and number(entry + 2, 2) == _SHORT:
            orientation = number(entry + 8, 2)
            return orientation if 1 <= orientation <= 8 else AS_STORED
    return AS_STORED
