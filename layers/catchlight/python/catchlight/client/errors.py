"""What the tasks API, or the way to it, may refuse.

CatchlightError
└── TasksApiError
    ├── APIConnectionError        no answer came, also after some tries
    ├── PermissionDeniedError         403  API Gateway does not let these credentials in
    ├── UnexpectedResponseError   not an answer of the tasks API: another server, a stack that is too old
    ├── APIError            the tasks API refused, and says why and what to do next
    │   ├── NotFoundError       404  no such task, image or submission
    │   ├── RateLimitError           429, 503  the same request is worth another try later
    │   └── UnknownOutcomeError        409  the provider may have taken a submission: nothing is sent again by itself
    └── DownloadError           an image could not be saved
"""

from http import HTTPStatus

from catchlight.api.problems import IN_DOUBT, IN_PROGRESS
from catchlight.api.schemas import ProblemBody
from catchlight.client.aws_errors import CatchlightError


class TasksApiError(CatchlightError):
    """Base of all that goes wrong between a client and the tasks API; itself for faults of the API in general."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.is_worth_another_try = again
        self.retry_after_seconds: float | None = None  # as the answer asks for


class APIConnectionError(TasksApiError):
    """No answer came. A submission may be sent again under the same idempotency key."""

    def __init__(self, message: str) -> None:
        super().__init__(message, again=True)


class PermissionDeniedError(TasksApiError):
    """The credentials are not let in: they need `execute-api:Invoke` on the stack's API."""


class UnexpectedResponseError(TasksApiError):
    """Something answered, but not as the tasks API does."""


class APIError(TasksApiError):
    """The tasks API's own refusal; `body` has all that it says."""

    def __init__(self, body: ProblemBody, *, again: bool = False) -> None:
        super().__init__(_in_words(body), again=again)
        self.body = body


class NotFoundError(APIError):
    """There is no such task, image or submission."""


class RateLimitError(APIError):
    """Not now: nothing was generated, and the same request may be sent again later."""


class UnknownOutcomeError(APIError):
    """Whether the provider took a submission is not known: whether to risk paying twice is for people to decide."""


class DownloadError(TasksApiError):
    """An image could not be saved: what came is not what was archived, or a different file is in the way."""


def error_of(body: ProblemBody) -> APIError:
    """The class that fits a problem."""
    match body.status:
        case HTTPStatus.NOT_FOUND:
            return NotFoundError(body)
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return RateLimitError(body, again=True)
        case _ if body.type == IN_DOUBT.type:
            return UnknownOutcomeError(body)
        case _:
            return APIError(body, again=body.type == IN_PROGRESS.type)


def _in_words(body: ProblemBody) -> str:
    lines = [f"{body.title}: {_as_sentence(body.detail)} {body.advice}".rstrip()]
    lines += [f"  {problem.at}: {problem.detail}" for problem in body.errors]
    if body.provider_reply:
        lines.append(f"  The provider answered {body.provider_reply.status}: {body.provider_reply.body}")
    if body.task_id:
        lines.append(f"  Its task: {body.task_id}")
    return "\n".join(lines)


def _as_sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
