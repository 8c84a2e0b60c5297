"""Parses GIF files: a logical screen, then images and extensions with sub-blocks, then the trailer (GIF89a, app. B)."""

from catchlight.images.formats.bounded_reader import BoundedReader
from catchlight.images.formats.layout import DamagedError, Layout, TruncatedError

SIGNATURE = rb"GIF8[79]a"
_IMAGE, _EXTENSION, _TRAILER, _TERMINATOR = b"\x2c", b"\x21", b"\x3b", b"\0"
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF


def read_layout(file: BoundedReader) -> Layout:
    """Follows the blocks up to the trailer.

    If the first image extends beyond the logical screen, decoders enlarge the screen; some do so for other images, too.
    Without the trailer, a still image still has all its pixels, but an animation may lack images.

    Raises:
        DamagedError, TruncatedError: the file is damaged, or ends before its pixels do.
    """
    screen = file.read(6, 7)
    size = canvas = int.from_bytes(screen[:2], "little"), int.from_bytes(screen[2:4], "little")
    offset = end = 13 + _color_table_bytes(screen[4])
    images, is_animated = 0, False
    while (kind := _block_kind(file, offset)) != _TRAILER:
        if kind == _IMAGE:
            descriptor = file.read(offset + 1, 9)
            left, top, across, down = (int.from_bytes(descriptor[at : at + 2], "little") for at in (0, 2, 4, 6))
            offset += 10 + _color_table_bytes(descriptor[8])
            if not (across and down) or file.number(offset, 1) not in range(1, 9):
                raise DamagedError("an image descriptor is invalid")
            file.has_pixels = True
            canvas = max(canvas[0], left + across), max(canvas[1], top + down)
            size = size if images else canvas
            offset = end = _end_of_sub_blocks(file, offset + 1)
            images += 1
        elif kind == _EXTENSION:
            is_animated = is_animated or _animates(file, offset)
            offset = end = _end_of_sub_blocks(file, offset + 2)
        elif kind == _TERMINATOR and images:
            offset += 1  # some encoders write the terminator twice
        elif images == 1 and not is_animated:
            return Layout(*size, end, has_end=False)
        elif not kind:
            raise TruncatedError("its trailer is missing")
        else:
            raise DamagedError("a block is missing")
    if not images:
        raise DamagedError("it has no pixels")
    return Layout(*size, offset + 1, canvas=canvas)


def _block_kind(file: BoundedReader, offset: int) -> bytes:
    """Returns the first byte of a block, empty at the end of the file."""
    return file.read(offset, 1) if offset < file.size else b""


def _end_of_sub_blocks(file: BoundedReader, offset: int) -> int:
    """Returns the offset after the terminator of the sub-blocks that start at `offset`."""
    start = offset
    try:
        while length := file.number(offset, 1):
            offset += 1 + length
    except TruncatedError:
        raise TruncatedError("it ends inside a block", at=start) from None
    return offset + 1


def _animates(file: BoundedReader, offset: int) -> bool:
    """Returns whether an extension belongs to an animation: it repeats the images, or delays the next one."""
    label = file.number(offset + 1, 1)
    if label == _GRAPHIC_CONTROL:
        return any(file.read(offset + 4, 2))
    return label == _APPLICATION and file.read(offset + 3, 11) in (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def _color_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
