"""Parses AVIF files: boxes that fill the file, one of which describes numbered items (ISO/IEC 14496-12, 23008-12)."""

from collections.abc import Iterator
from dataclasses import dataclass

from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError

SIGNATURE = rb"....ftyp(?:avif|avis)|....ftyp(?:mif1|msf1)....avif"
_ITEM_TYPES = {b"av01", b"grid"}


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int  # of the content
    end: int


def read_dimensions(file: BoundedReader) -> tuple[int, int]:
    """Returns width and height of the primary item after checking that it is an image and its bytes are in the file.

    Raises:
        DamagedError: the structure is broken or truncated.
    """
    boxes = _by_kind(_boxes(file, 0, file.size), b"ftyp", b"meta", b"mdat")
    _version(file, boxes[b"meta"], newest=0)
    described = _boxes(file, boxes[b"meta"].start + 4, boxes[b"meta"].end)
    meta = _by_kind(described, b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp")
    if file.read(meta[b"hdlr"].start, 12) != bytes(8) + b"pict":
        raise DamagedError("it describes no picture")
    item = file.number(meta[b"pitm"].start + 4, 4 if _version(file, meta[b"pitm"], newest=1) else 2)
    if _item_type(file, meta[b"iinf"], item) not in _ITEM_TYPES:
        raise DamagedError("its primary item is no image")
    _check_location(file, meta[b"iloc"], item)
    properties = _by_kind(_boxes(file, meta[b"iprp"].start, meta[b"iprp"].end), b"ipco", b"ipma")
    known = list(_boxes(file, properties[b"ipco"].start, properties[b"ipco"].end))
    for index in _associations(file, properties[b"ipma"], item):
        if 0 < index <= len(known) and known[index - 1].kind == b"ispe":
            size = known[index - 1]
            _version(file, size, newest=0)
            return file.number(size.start + 4, 4), file.number(size.start + 8, 4)
    raise DamagedError("its size is missing")


def _boxes(file: BoundedReader, start: int, end: int) -> Iterator[_Box]:
    """Yields the boxes between two offsets, which the boxes must fill exactly.

    A last box of length 0, which the standard allows, is rejected: it extends to the end of the file, so truncation
    could not be detected. No encoder of still images writes it.
    """
    while start < end:
        header = file.read(start, 8)
        length, content = int.from_bytes(header[:4], "big"), start + 8
        if length == 1:
            length, content = file.number(content, 8), content + 8
        if length < content - start or start + length > end:
            raise DamagedError("a box goes on after the end")
        yield _Box(header[4:], content, start + length)
        start += length


def _by_kind(boxes: Iterator[_Box], *needed: bytes) -> dict[bytes, _Box]:
    found = {box.kind: box for box in boxes}
    if not found.keys() >= set(needed):
        raise DamagedError("a box is missing")
    return found


def _version(file: BoundedReader, box: _Box, *, newest: int) -> int:
    """Returns the version of a full box, its first byte. Versions above `newest` raise DamagedError."""
    version = file.number(box.start, 1)
    if version > newest:
        raise DamagedError("a box is of no kind that exists")
    return version


def _item_type(file: BoundedReader, iinf: _Box, item: int) -> bytes | None:
    entries = iinf.start + (8 if _version(file, iinf, newest=1) else 6)
    for entry in _boxes(file, entries, iinf.end):
        # infe, version 2 or 3: number, protection, type.
        width = 4 if _version(file, entry, newest=3) == 3 else 2
        if entry.kind == b"infe" and file.number(entry.start + 4, width) == item:
            return file.read(entry.start + 6 + width, 4)
    return None


def _check_location(file: BoundedReader, iloc: _Box, item: int) -> None:
    """Checks that the item's extents are inside the file. Extents inside a box of `meta` are not checked.

    Raises:
        DamagedError: an extent is empty or ends after the end of the file, or there are no extents.
    """
    version = _version(file, iloc, newest=2)
    sizes = file.number(iloc.start + 4, 2)
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version else 0
    number_bytes = 2 if version < 2 else 4
    at = iloc.start + 6
    items = file.number(at, number_bytes)
    at += number_bytes
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
            end = start + file.number(at + index_bytes + offset_bytes, length_bytes)
            at += index_bytes + offset_bytes + length_bytes
            if is_item and is_in_file and not start < end <= file.size:
                raise DamagedError("its bytes lie behind its end")
        if at > iloc.end:
            break
        if is_item and extents:
            return
    raise DamagedError("its bytes are missing")


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
            break
        if found == item:
            return [file.number(at + n * index_bytes, index_bytes) & ~is_essential for n in range(count)]
        at += count * index_bytes
    raise DamagedError("its size is missing")
