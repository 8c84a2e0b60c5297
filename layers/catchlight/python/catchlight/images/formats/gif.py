"""Parses GIF files: a logical screen, then images and extensions with sub-blocks, then the trailer (GIF89a, app. B)."""

from catchlight.images.formats.bounded_reader import BoundedReader, DamagedError

SIGNATURE = rb"GIF8[79]a"


def read_dimensions(file: BoundedReader) -> tuple[int, int]:
    """Returns width and height of the logical screen after checking that every image fits into it.

    Raises:
        DamagedError, TrailingBytesError: the file is damaged or truncated, or has trailing bytes.
    """
    screen = file.read(6, 7)
    width, height = int.from_bytes(screen[:2], "little"), int.from_bytes(screen[2:4], "little")
    offset = 13 + _color_table_bytes(screen[4])
    has_image = False
    while (kind := file.read(offset, 1)) != b"\x3b":
        match kind:
            case b"\x2c":
                descriptor = file.read(offset + 1, 9)
                left, top, across, down = (int.from_bytes(descriptor[at : at + 2], "little") for at in (0, 2, 4, 6))
                # Decoders enlarge the canvas for images outside the screen, beyond the size returned here.
                if not (across and down and left + across <= width and top + down <= height):
                    raise DamagedError("an image does not fit into its screen")
                offset += 10 + _color_table_bytes(descriptor[8])
                if file.read(offset, 1)[0] not in range(1, 9):
                    raise DamagedError("its codes are of no length that exists")
                offset += 1
                has_image = True
            case b"\x21":
                offset += 2
            case _:
                raise DamagedError("a block is missing")
        while length := file.read(offset, 1)[0]:
            offset += 1 + length
        offset += 1
    if not has_image:
        raise DamagedError("it has no pixels")
    file.expect_end(offset + 1)
    return width, height


def _color_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
