"""AVIF: boxes that fill the file; the primary item's properties tell its size (ISO/IEC 14496-12 and 23008-12)."""

from collections.abc import Iterator
from dataclasses import dataclass

from image_tasks.image_formats.parts import DamagedError, Parts

SIGNATURE = rb"....ftyp(?:avif|avis)|....ftyp(?:mif1|msf1)....avif"


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int  # of the content
    end: int


def read_dimensions(file: Parts) -> tuple[int, int]:
    """Width and height of the primary item."""
    boxes = _by_kind(_boxes(file, 0, file.size))
    if not {b"ftyp", b"meta", b"mdat"} <= boxes.keys():
        raise DamagedError("a box is missing")
    # meta and pitm are full boxes: a version and flags come first.
    meta = _by_kind(_boxes(file, boxes[b"meta"].start + 4, boxes[b"meta"].end))
    if not {b"pitm", b"iloc", b"iprp"} <= meta.keys():
        raise DamagedError("a box is missing")
    primary = meta[b"pitm"].start
    item = file.number(primary + 4, 4 if file.read(primary, 1)[0] else 2)
    properties = _by_kind(_boxes(file, meta[b"iprp"].start, meta[b"iprp"].end))
    if not {b"ipco", b"ipma"} <= properties.keys():
        raise DamagedError("a box is missing")
    described = list(_boxes(file, properties[b"ipco"].start, properties[b"ipco"].end))
    for index in _associations(file, properties[b"ipma"], item):
        if 0 < index <= len(described) and described[index - 1].kind == b"ispe":
            start = described[index - 1].start
            return file.number(start + 4, 4), file.number(start + 8, 4)
    raise DamagedError("its size is missing")


def _boxes(file: Parts, start: int, end: int) -> Iterator[_Box]:
    """The boxes between two offsets, which they must fill.

    A last box of length 0 would reach to the end of the file, wherever that is: then nothing tells a whole file from a
    truncated one. No encoder of still images writes it.
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


def _by_kind(boxes: Iterator[_Box]) -> dict[bytes, _Box]:
    return {box.kind: box for box in boxes}


def _associations(file: Parts, ipma: _Box, item: int) -> list[int]:
    """Numbers of an item's properties, from 1."""
    version, flags, entries = file.number(ipma.start, 1), file.number(ipma.start + 1, 3), file.number(ipma.start + 4, 4)
    id_bytes, index_bytes = 4 if version else 2, 2 if flags & 1 else 1
    is_essential = 1 << (8 * index_bytes - 1)
    offset = ipma.start + 8
    for _ in range(entries):
        found, count = file.number(offset, id_bytes), file.number(offset + id_bytes, 1)
        offset += id_bytes + 1
        if offset + count * index_bytes > ipma.end:
            break
        if found == item:
            return [file.number(offset + n * index_bytes, index_bytes) & ~is_essential for n in range(count)]
        offset += count * index_bytes
    raise DamagedError("its size is missing")
