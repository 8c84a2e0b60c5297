"""Client of the tasks API: `with connect("catchlight") as api: api.submit("flux-kontext", {"prompt": "..."})`."""

from catchlight.api.response_models import ImageResponse, NewTask, TaskPage, TaskResponse
from catchlight.client.async_tasks_client import AsyncTasksClient, connect_async
from catchlight.client.downloading import Download, download
from catchlight.client.errors import (
    APIConnectionError,
    APIError,
    CatchlightError,
    DownloadError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TasksApiError,
    UnexpectedResponseError,
    UnknownOutcomeError,
)
from catchlight.client.retrying import RetryPolicy
from catchlight.client.tasks_client import TasksClient, connect
from catchlight.models import ImageKind, ImageState, TaskStatus

__all__ = [
    "APIConnectionError",
    "APIError",
    "AsyncTasksClient",
    "CatchlightError",
    "Download",
    "DownloadError",
    "ImageKind",
    "ImageResponse",
    "ImageState",
    "NewTask",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "RetryPolicy",
    "TaskPage",
    "TaskResponse",
    "TaskStatus",
    "TasksApiError",
    "TasksClient",
    "UnexpectedResponseError",
    "UnknownOutcomeError",
    "connect",
    "connect_async",
    "download",
]
