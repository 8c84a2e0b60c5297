"""What the answer desk, or the way to it, may refuse.

CatchlightError
└── DeskError
    ├── UnreachableError        no answer came, also after some tries
    ├── NotAllowedError         403  API Gateway does not let these credentials in
    ├── UnexpectedAnswerError   not an answer of the desk: another server, a stack that is too old
    ├── ProblemError            the desk refused, and says why and what to do next
    │   ├── NotFoundError       404  no such task, image or submission
    │   ├── BusyError           429, 503  the same request is worth another try later
    │   └── InDoubtError        409  the provider may have taken a submission: nothing is sent again by itself
    └── DownloadError           an image could not be saved
"""

from http import HTTPStatus

from catchlight.api.problems import IN_DOUBT, IN_PROGRESS
from catchlight.api.schemas import ProblemBody
from catchlight.client.aws_errors import CatchlightError


class DeskError(CatchlightError):
    """Base of all that goes wrong between a client and the answer desk; itself for faults of the API in general."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.is_worth_another_try = again
        self.retry_after_seconds: float | None = None  # as the answer asks for


class UnreachableError(DeskError):
    """No answer came. A submission may be sent again under the same idempotency key."""

    def __init__(self, message: str) -> None:
        super().__init__(message, again=True)


class NotAllowedError(DeskError):
    """The credentials are not let in: they need `execute-api:Invoke` on the stack's API."""


class UnexpectedAnswerError(DeskError):
    """Something answered, but not as the desk does."""


class ProblemError(DeskError):
    """The desk's own refusal; `body` has all that it says."""

    def __init__(self, body: ProblemBody, *, again: bool = False) -> None:
        super().__init__(_in_words(body), again=again)
        self.body = body


class NotFoundError(ProblemError):
    """There is no such task, image or submission."""


class BusyError(ProblemError):
    """Not now: nothing was generated, and the same request may be sent again later."""


class InDoubtError(ProblemError):
    """Whether the provider took a submission is not known: whether to risk paying twice is for people to decide."""


class DownloadError(DeskError):
    """An image could not be saved: what came is not what was archived, or a different file is in the way."""


def error_of(body: ProblemBody) -> ProblemError:
    """The class that fits a problem."""
    match body.status:
        case HTTPStatus.NOT_FOUND:
            return NotFoundError(body)
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return BusyError(body, again=True)
        case _ if body.type == IN_DOUBT.type:
            return InDoubtError(body)
        case _:
            return ProblemError(body, again=body.type == IN_PROGRESS.type)


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
