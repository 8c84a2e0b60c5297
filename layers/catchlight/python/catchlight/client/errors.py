"""Defines the errors of the command line and of the tasks API client.

CatchlightError
├── UsageError                      the arguments are invalid, or do not determine a stack
└── TasksApiError
    ├── APIConnectionError          no response, after all retries
    ├── PermissionDeniedError       401, 403  API Gateway refuses these credentials
    ├── UnexpectedResponseError     not a response of the tasks API: another server, or a stack of another version
    ├── APIError                    the tasks API refused the request; its body has the reason and the next step
    │   ├── NotFoundError           404  no such task, image or submission
    │   ├── RateLimitError          429, 503  the same request may succeed later
    │   └── UnknownOutcomeError     409  the provider may have accepted a submission: it is not sent again automatically
    └── DownloadError               an image could not be saved
"""

from http import HTTPStatus

from catchlight.api.problems import IN_PROGRESS, UNKNOWN_OUTCOME, ProblemBody


class CatchlightError(Exception):
    """A command or a request failed. The message has the next step and contains no secrets; the exit status is 1."""


class UsageError(CatchlightError):
    """The arguments are invalid, or do not determine a stack; the exit status is 2."""


class TasksApiError(CatchlightError):
    """Base class of the client's errors; raised itself for invalid keys, S3's errors, and API Gateway's 429 and 5xx."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.is_retryable = retryable
        self.retry_after_seconds: float | None = None  # from the Retry-After header


class APIConnectionError(TasksApiError):
    """No response arrived, or not all of it. A submission may be sent again with the same idempotency key."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class PermissionDeniedError(TasksApiError):
    """API Gateway refused the credentials: they need `execute-api:Invoke` on the stack's API."""


class UnexpectedResponseError(TasksApiError):
    """The response does not come from a tasks API of this version."""


class APIError(TasksApiError):
    """The tasks API refused the request; `body` is its problem body (RFC 9457)."""

    def __init__(self, body: ProblemBody, *, retryable: bool = False) -> None:
        super().__init__(_message(body), retryable=retryable)
        self.body = body


class NotFoundError(APIError):
    """The task, image or submission does not exist."""


class RateLimitError(APIError):
    """The request cannot be served now: nothing was generated, and the same request may be sent again later."""


class UnknownOutcomeError(APIError):
    """It is unknown whether the provider accepted a submission. A person must decide whether to risk paying twice."""


class DownloadError(TasksApiError):
    """An image could not be saved: its SHA-256 is wrong, another file has its name, or the download was cancelled."""


def api_error(body: ProblemBody) -> APIError:
    """Returns the error for a problem body."""
    match body.status:
        case HTTPStatus.NOT_FOUND:
            return NotFoundError(body)
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return RateLimitError(body, retryable=True)
        case _ if body.type == UNKNOWN_OUTCOME.type:
            return UnknownOutcomeError(body)
        case _:
            return APIError(body, retryable=body.type == IN_PROGRESS.type)


def _message(body: ProblemBody) -> str:
    lines = [f"{body.title}: {_as_sentence(body.detail)} {body.advice}".rstrip()]
    lines += [f"  {problem.at}: {problem.detail}" for problem in body.errors]
    if body.provider_reply:
        lines.append(f"  The provider returned HTTP {body.provider_reply.status}: {body.provider_reply.body}")
    if body.task_id:
        lines.append(f"  Task id: {body.task_id}")
    return "\n".join(lines)


def _as_sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
