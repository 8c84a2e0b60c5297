"""Parses AVIF files: nested boxes; the box `meta` describes numbered items (ISO/IEC 14496-12, 23008-12)."""

from collections.abc import Iterator
from dataclasses import dataclass

from catchlight.images.formats.bounded_reader import BoundedReader
from catchlight.images.formats.layout import DamagedError, Layout, TruncatedError, UnsupportedError

# One of the brands in the first box.
SIGNATURE = rb"....ftyp(?:....){0,30}?avi[fs]"
_ITEM_TYPES = {b"av01", b"grid"}
# EXIF's orientation by `irot` (quarter turns to the left) and `imir` (nothing, top and bottom, or left and right are
# exchanged).
_ORIENTATIONS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int  # of the content
    end: int


def read_layout(file: BoundedReader) -> Layout:
    """Follows the boxes and checks that the primary item is an image and that the file contains the bytes of all items.

    A last box of length 0 extends to the end of the file: Photoshop writes the pixels into such a box. If the last box
    has this length or is cut off, the pixels are complete if the bytes of all items are in the file.

    Raises:
        DamagedError, TruncatedError: the file is damaged, or ends before its pixels do.
        UnsupportedError: the image is not encoded as AV1.
    """
    boxes, cut = _top_boxes(file)
    end = boxes[-1].end if boxes else 0
    kinds = {box.kind for box in boxes} | ({cut} if cut else set())
    meta = next((box for box in boxes if box.kind == b"meta"), None)
    if meta is None and b"mdat" in kinds:
        raise DamagedError("it does not describe an image")
    # Files with `moov` have frames besides the items. The positions of frames are not checked.
    if meta is None or (cut == b"mdat" and b"moov" in kinds):
        raise TruncatedError("it ends inside its structure", at=end)
    items, properties, item = _description(file, meta)
    file.has_pixels = True
    end_of_items = _end_of_items(file, items, item)
    if end_of_items > file.size:
        raise TruncatedError("its items extend beyond its end")
    return Layout(
        *_dimensions(file, properties),
        max(end, end_of_items),
        has_end=cut is None or _extends_to_the_end(file, end),
        orientation=_orientation(file, properties),
    )


def _top_boxes(file: BoundedReader) -> tuple[list[_Box], bytes | None]:
    """Returns the complete boxes, and the kind of a last box that extends to the end of the file or beyond it, if any.

    Other bytes after the last box are not part of the image.
    """
    boxes: list[_Box] = []
    offset = 0
    while offset + 8 <= file.size:
        box = _box(file, offset)
        if not box.start <= box.end <= file.size:
            return boxes, box.kind if box.kind.isalnum() else None
        boxes.append(box)
        offset = box.end
    return boxes, None


def _box(file: BoundedReader, offset: int) -> _Box:
    header = file.read(offset, 8)
    length, content = int.from_bytes(header[:4], "big"), offset + 8
    if length == 1 and content + 8 <= file.size:
        length, content = file.number(content, 8), content + 8
    return _Box(header[4:], content, offset + length)


def _extends_to_the_end(file: BoundedReader, offset: int) -> bool:
    return file.number(offset, 4) == 0


def _boxes(file: BoundedReader, start: int, end: int) -> Iterator[_Box]:
    """Yields the boxes between two offsets, which the boxes must fill exactly."""
    while start < end:
        box = _box(file, start)
        if not box.start <= box.end <= end:
            raise DamagedError("a box extends beyond its end")
        yield box
        start = box.end


def _by_kind(boxes: Iterator[_Box], *needed: bytes) -> dict[bytes, _Box]:
    found = {box.kind: box for box in boxes}
    if not found.keys() >= set(needed):
        raise DamagedError("a box is missing")
    return found


def _version(file: BoundedReader, box: _Box, *, newest: int) -> int:
    """Returns the version of a full box, its first byte. Versions above `newest` raise DamagedError."""
    version = file.number(box.start, 1)
    if version > newest:
        raise DamagedError("a box has an unknown version")
    return version


def _description(file: BoundedReader, meta: _Box) -> tuple[_Box, list[_Box], int]:
    """Returns the box with the positions of the items, and the properties and the number of the primary item."""
    _version(file, meta, newest=0)
    boxes = _by_kind(_boxes(file, meta.start + 4, meta.end), b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp")
    if file.read(boxes[b"hdlr"].start, 12) != bytes(8) + b"pict":
        raise DamagedError("it does not describe an image")
    item = file.number(boxes[b"pitm"].start + 4, 4 if _version(file, boxes[b"pitm"], newest=1) else 2)
    if _item_type(file, boxes[b"iinf"], item) not in _ITEM_TYPES:
        raise UnsupportedError("its primary item is not encoded as AV1")
    return boxes[b"iloc"], _properties(file, boxes[b"iprp"], item), item


def _item_type(file: BoundedReader, iinf: _Box, item: int) -> bytes | None:
    entries = iinf.start + (8 if _version(file, iinf, newest=1) else 6)
    for entry in _boxes(file, entries, iinf.end):
        # infe, version 2 or 3: number, protection, type.
        width = 4 if _version(file, entry, newest=3) == 3 else 2
        if entry.kind == b"infe" and file.number(entry.start + 4, width) == item:
            return file.read(entry.start + 6 + width, 4)
    return None


def _end_of_items(file: BoundedReader, iloc: _Box, item: int) -> int:
    """Returns the offset after the last byte of all items. Extents inside a box of `meta` are not counted.

    Raises:
        DamagedError: the item with the number `item` has no bytes.
    """
    version = _version(file, iloc, newest=2)
    sizes = file.number(iloc.start + 4, 2)
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version else 0
    number_bytes = 2 if version < 2 else 4
    at = iloc.start + 6
    items = file.number(at, number_bytes)
    at += number_bytes
    end, has_item = 0, False
    for _ in range(items):
        is_item = file.number(at, number_bytes) == item
        at += number_bytes
        is_in_file = not version or not file.number(at, 2) & 15
        at += 4 if version else 2
        base = file.number(at, base_bytes)
        extents = file.number(at + base_bytes, 2)
        at += base_bytes + 2
        for _ in range(extents):
            start = base + file.number(at + index_bytes, offset_bytes)
            length = file.number(at + index_bytes + offset_bytes, length_bytes)
            at += index_bytes + offset_bytes + length_bytes
            if is_item and not length:
                raise DamagedError("its bytes are missing")
            if is_in_file:
                end = max(end, start + length)
        if at > iloc.end:
            raise DamagedError("a box extends beyond its end")
        has_item = has_item or (is_item and extents > 0)
    if not has_item:
        raise DamagedError("its bytes are missing")
    return end


def _properties(file: BoundedReader, iprp: _Box, item: int) -> list[_Box]:
    """Returns an item's properties, which all boxes `ipma` together list by their numbers. Unknown ones are ignored."""
    boxes = list(_boxes(file, iprp.start, iprp.end))
    ipco = _by_kind(iter(boxes), b"ipco", b"ipma")[b"ipco"]
    known = list(_boxes(file, ipco.start, ipco.end))
    indices = [index for box in boxes if box.kind == b"ipma" for index in _associations(file, box, item)]
    return [known[index - 1] for index in indices if 0 < index <= len(known)]


def _associations(file: BoundedReader, ipma: _Box, item: int) -> list[int]:
    """Returns the indices of an item's properties, counted from 1."""
    number_bytes = 4 if _version(file, ipma, newest=1) else 2
    index_bytes = 2 if file.number(ipma.start + 3, 1) & 1 else 1
    is_essential = 1 << (8 * index_bytes - 1)
    at = ipma.start + 8
    for _ in range(file.number(ipma.start + 4, 4)):
        found, count = file.number(at, number_bytes), file.number(at + number_bytes, 1)
        at += number_bytes + 1
        if at + count * index_bytes > ipma.end:
            raise DamagedError("a box extends beyond its end")
        if found == item:
            return [file.number(at + n * index_bytes, index_bytes) & ~is_essential for n in range(count)]
        at += count * index_bytes
    return []


def _dimensions(file: BoundedReader, properties: list[_Box]) -> tuple[int, int]:
    size = next((box for box in properties if box.kind == b"ispe"), None)
    if size is None:
        raise DamagedError("its size is missing")
    _version(file, size, newest=0)
    return file.number(size.start + 4, 4), file.number(size.start + 8, 4)


def _orientation(file: BoundedReader, properties: list[_Box]) -> int:
    turns = mirror = 0
    for box in properties:
        if box.kind == b"irot":
            turns = file.number(box.start, 1) & 3
        elif box.kind == b"imir":
            mirror = 1 + (file.number(box.start, 1) & 1)
    return _ORIENTATIONS[turns][mirror]
