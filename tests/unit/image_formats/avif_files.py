"""Builds AVIF files box by box, with every choice that the format leaves to an encoder."""

import struct
from dataclasses import dataclass, replace

WIDTH, HEIGHT = 61, 37
PIXELS = b"coded pixels"
_NUMBER = {0: "", 1: "B", 2: "H", 4: "I", 8: "Q"}


def number(value: int, size: int) -> bytes:
    """Returns a big-endian number of `size` bytes; empty for a size of 0."""
    return struct.pack(f">{_NUMBER[size]}", value) if size else b""


def box(kind: bytes, *content: bytes) -> bytes:
    """Returns a box with a length of four bytes."""
    data = b"".join(content)
    return number(8 + len(data), 4) + kind + data


def large_box(kind: bytes, *content: bytes) -> bytes:
    """Returns a box with a length of eight bytes."""
    data = b"".join(content)
    return number(1, 4) + kind + number(16 + len(data), 8) + data


def full_box(kind: bytes, version: int, *content: bytes, flags: int = 0) -> bytes:
    """Returns a box that begins with a version and flags."""
    return box(kind, number(version, 1), number(flags, 4)[1:], *content)


def ispe(width: int = WIDTH, height: int = HEIGHT, version: int = 0) -> bytes:
    """Returns the property with an item's size."""
    return full_box(b"ispe", version, number(width, 4), number(height, 4))


@dataclass(frozen=True)
class Avif:
    """One AVIF file. The defaults are those of libavif."""

    brands: bytes = b"avif" + bytes(4) + b"avifmif1miaf"
    handler: bytes = b"pict"
    meta_version: int = 0
    item: int = 1  # number of the primary item
    pitm_version: int = 0
    iinf_version: int = 0
    infe_version: int = 2
    item_type: bytes = b"av01"
    items_before: int = 0  # number of items before the primary one in every table
    iloc_version: int = 0
    offset_bytes: int = 4
    length_bytes: int = 4
    base_bytes: int = 0
    index_bytes: int = 0
    base: int = 0
    construction_method: int = 0
    offset_shift: int = 0
    extent_lengths: tuple[int, ...] = (len(PIXELS),)
    properties: tuple[bytes, ...] = (ispe(),)
    associations: tuple[int, ...] = (1,)
    ipma_version: int = 0
    has_wide_associations: bool = False
    has_large_mdat: bool = False
    mdat_length: int | None = None  # replaces the correct length; 0 means "to the end of the file"
    ipma_boxes: int = 1  # number of boxes among which the associations are distributed
    kinds: tuple[bytes, ...] = (b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp")
    more_in_meta: bytes = b""
    more_before_mdat: bytes = b""

    def build(self) -> bytes:
        """Returns the file."""
        # The offset of the pixels depends on the length of the description, which does not depend on the offset.
        return self._file(len(self._file(0)) - len(PIXELS))

    def _file(self, pixels_at: int) -> bytes:
        boxes = {
            b"hdlr": full_box(b"hdlr", 0, bytes(4), self.handler, bytes(12), b"\0"),
            b"pitm": full_box(b"pitm", self.pitm_version, number(self.item, 4 if self.pitm_version else 2)),
            b"iinf": self._iinf(),
            b"iloc": self._iloc(pixels_at),
            b"iprp": box(b"iprp", box(b"ipco", *self.properties), *map(self._ipma, range(self.ipma_boxes))),
        }
        meta = [boxes[kind] for kind in self.kinds]
        make = large_box if self.has_large_mdat else box
        mdat = make(b"mdat", PIXELS)
        if self.mdat_length is not None:
            mdat = number(self.mdat_length, 4) + mdat[4:]
        return (
            box(b"ftyp", self.brands)
            + full_box(b"meta", self.meta_version, *meta, self.more_in_meta)
            + self.more_before_mdat
            + mdat
        )

    def _numbers(self) -> list[int]:
        return [*range(100, 100 + self.items_before), self.item]

    def _iinf(self) -> bytes:
        item_bytes = 4 if self.infe_version == 3 else 2
        entries = [
            full_box(
                b"infe",
                self.infe_version,
                number(item, item_bytes),
                bytes(2),
                self.item_type if item == self.item else b"Exif",
                b"\0",
            )
            for item in self._numbers()
        ]
        return full_box(b"iinf", self.iinf_version, number(len(entries), 4 if self.iinf_version else 2), *entries)

    def _iloc(self, pixels_at: int) -> bytes:
        item_bytes = 4 if self.iloc_version == 2 else 2
        content = [
            number(self.offset_bytes << 4 | self.length_bytes, 1),
            number(self.base_bytes << 4 | self.index_bytes, 1),
            number(len(self._numbers()), item_bytes),
        ]
        for item in self._numbers():
            content.append(number(item, item_bytes))
            if self.iloc_version:
                content.append(number(self.construction_method, 2))
            content += [bytes(2), number(self.base, self.base_bytes), number(len(self.extent_lengths), 2)]
            at = pixels_at + self.offset_shift - self.base if pixels_at else 0
            # Only the primary item refers to real bytes; the other items' positions do not matter.
            at = at if item == self.item else 0
            for length in self.extent_lengths:
                content.append(number(0, self.index_bytes if self.iloc_version else 0))
                content += [number(at, self.offset_bytes), number(length, self.length_bytes)]
                at += length
        return full_box(b"iloc", self.iloc_version, *content)

    def _ipma(self, part: int) -> bytes:
        content = [number(len(self._numbers()), 4)]
        for item in self._numbers():
            indices = self.associations[part :: self.ipma_boxes]
            if item != self.item:
                indices = (len(self.properties),) * 2
            content += [number(item, 4 if self.ipma_version else 2), number(len(indices), 1)]
            content += [number(index, 2 if self.has_wide_associations else 1) for index in indices]
        return full_box(b"ipma", self.ipma_version, *content, flags=int(self.has_wide_associations))


def avif(**choices: object) -> bytes:
    """Returns an AVIF file with these choices, otherwise with libavif's."""
    return replace(Avif(), **choices).build()  # type: ignore[arg-type] # names and types are those of the fields
