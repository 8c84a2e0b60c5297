"""The result of a format's parser, and the errors that it raises for incomplete, damaged and unsupported files."""

from dataclasses import dataclass


class TruncatedError(Exception):
    """The file ends before its pixels do."""

    def __init__(self, reason: str, *, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at  # offset of the part that is cut off, if known


class DamagedError(Exception):
    """The structure of the file is invalid."""


class UnsupportedError(Exception):
    """A valid file of a variant that browsers do not show."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The structure of an image file that contains all pixels."""

    width: int  # pixels, as stored
    height: int
    end: int  # offset after the image's last byte; other bytes may follow
    has_end: bool = True  # False: the end marker is missing or is not reached
    orientation: int = 1  # EXIF's number from 1 to 8: how to turn and mirror the stored pixels to show them
    canvas: tuple[int, int] = (0, 0)  # width and height that decoders need for all frames, if larger
