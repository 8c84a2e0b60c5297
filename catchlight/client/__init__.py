"""The answer desk from Python: `with connect("catchlight") as desk: desk.submit("flux-kontext", {"prompt": "..."})`."""

from catchlight.client.desk_client import DeskClient, connect
from catchlight.client.downloading import Download, download
from catchlight.client.errors import (
    BusyError,
    DeskError,
    DownloadError,
    InDoubtError,
    NotAllowedError,
    NotFoundError,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
)

__all__ = [
    "BusyError",
    "DeskClient",
    "DeskError",
    "Download",
    "DownloadError",
    "InDoubtError",
    "NotAllowedError",
    "NotFoundError",
    "ProblemError",
    "UnexpectedAnswerError",
    "UnreachableError",
    "connect",
    "download",
]
