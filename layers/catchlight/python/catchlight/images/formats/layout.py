"""What the parser of a format returns, and how it reports files that it cannot follow to their end."""

from dataclasses import dataclass


class TruncatedError(Exception):
    """The file ends before its pixels do."""

    def __init__(self, reason: str, *, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at  # offset of the part that the file ends in, if known


class DamagedError(Exception):
    """The structure is broken."""


class UnsupportedError(Exception):
    """A valid file of a variant that browsers do not show."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The result of following a file's structure: all pixels are in the file."""

    width: int  # pixels, as stored
    height: int
    end: int  # offset after the image's last byte; the file may go on
    has_end: bool = True  # False: the end marker is missing or is not reached
    orientation: int = 1  # EXIF's number from 1 to 8: how to turn and mirror the stored pixels to show them
    canvas: tuple[int, int] = (0, 0)  # pixels that decoders need for all frames, if more than width and height
