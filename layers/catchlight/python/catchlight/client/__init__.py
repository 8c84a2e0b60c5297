"""The answer desk from Python: `with connect("catchlight") as desk: desk.submit("flux-kontext", {"prompt": "..."})`."""

from catchlight.api.schemas import ImageAnswer, NewTask, TaskAnswer, TaskPage
from catchlight.client.aws_errors import CatchlightError
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
from catchlight.client.retrying import Patience
from catchlight.client.tasks_client import DeskClient, connect
from catchlight.models import ImageKind, ImageState, TaskStatus

__all__ = [
    "BusyError",
    "CatchlightError",
    "DeskClient",
    "DeskError",
    "Download",
    "DownloadError",
    "ImageAnswer",
    "ImageKind",
    "ImageState",
    "InDoubtError",
    "NewTask",
    "NotAllowedError",
    "NotFoundError",
    "Patience",
    "ProblemError",
    "TaskAnswer",
    "TaskPage",
    "TaskStatus",
    "UnexpectedAnswerError",
    "UnreachableError",
    "connect",
    "download",
]
